"""Prepared datasets: a folder of ArrayRecord shards, and how one is written in parallel.

    <folder>/<split>-00000-of-00008.array_record ...   the examples
    <folder>/<split>.json                              how many there are
    <folder>/COMPLETED-<split>                         the last file to be written

A shard is a pure function of its number. It appears under its name when it is whole, and one that
is there and can be read is left alone, so an interrupted run continues, and a damaged shard is made
again; run again, or run on many machines with a common file system, the result is the same.
"""

import dataclasses
import json
import multiprocessing
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from t5x.data.records import ArrayRecordFile, read_array_record, write_array_record
from t5x.extras import how_to_install
from t5x.files import write_json, write_text

INFO_FORMAT = 1
_SUFFIX = ".array_record"
_SIZES = "shard_bytes"
_NAME = re.compile(rf"(?P<split>.+)-(?P<number>\d{{5}})-of-(?P<count>\d{{5}}){re.escape(_SUFFIX)}")


def shard_path(folder: str | os.PathLike, split: str, number: int, count: int) -> Path:
    """Where shard `number` of `count` lies."""
    return Path(folder) / f"{split}-{number:05d}-of-{count:05d}{_SUFFIX}"


def marker_path(folder: str | os.PathLike, split: str) -> Path:
    """The file that says that a split is whole."""
    return Path(folder) / f"COMPLETED-{split}"


@dataclasses.dataclass(frozen=True)
class ShardWriter:
    """Writes one shard; may be sent to another process or machine.

    Attributes:
      make_examples: shard number -> its examples; a pure function that can be pickled.
      folder, split, num_shards: see `shard_path`.
      sizes: of the shards as they were written before, in bytes; None if not known.
    """

    make_examples: Callable[[int], Iterable[dict]]
    folder: str
    split: str
    num_shards: int
    sizes: Sequence[int] | None = None

    def __call__(self, number: int) -> int:
        """Write shard `number` unless it is there, whole; return how many examples were written."""
        path = shard_path(self.folder, self.split, number, self.num_shards)
        if path.exists() and _is_whole(path, self.sizes[number] if self.sizes else None):
            return 0
        return write_array_record(path, self.make_examples(number))


def _is_whole(path: Path, size: int | None) -> bool:
    """Whether a shard has its size, if that is known, and every record can be read."""
    if size is not None and path.stat().st_size != size:
        return False
    try:
        for _ in read_array_record(path):
            pass
    except ValueError:
        return False
    return True


def write_dataset(
    make_examples: Callable[[int], Iterable[dict]],
    folder: str | os.PathLike,
    split: str,
    num_shards: int,
    *,
    workers: int = 1,
    runner: str | None = None,
    beam_options: Sequence[str] = (),
    progress: Callable[[Iterable], Iterable] = iter,
    extra_info: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Write every shard of a split, its counts, and the marker.

    Args:
      make_examples: see `ShardWriter`.
      folder, split, num_shards: see `shard_path`.
      workers: local processes; 1 works in this one.
      runner: name of an Apache Beam runner instead, such as "DirectRunner" (extra `beam`). Its
        machines must see `folder`.
      beam_options: further options of the pipeline, such as "--direct_num_workers=4".
      progress: wraps the stream of finished shards; not with a runner.
      extra_info: more entries of `<split>.json`.

    Returns:
      What `<split>.json` holds, see `read_info`.

    Raises:
      ValueError: no shards, or the folder has the split in another number of shards.
      ImportError: `runner` without apache_beam.
    """
    if num_shards < 1:
        raise ValueError(f"a dataset has at least one shard, got {num_shards}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _check_other_shards(folder, split, num_shards)
    marker_path(folder, split).unlink(missing_ok=True)
    sizes = _sizes(folder / f"{split}.json", num_shards)
    write = ShardWriter(make_examples, str(folder), split, num_shards, sizes)
    if runner:
        _run_beam(write, num_shards, runner, beam_options)
    elif workers > 1:
        with multiprocessing.get_context("spawn").Pool(min(workers, num_shards)) as pool:
            _exhaust(progress(pool.imap_unordered(write, range(num_shards))))
    else:
        _exhaust(progress(map(write, range(num_shards))))
    info = _make_info(folder, split, num_shards) | (extra_info or {})
    write_json(folder / f"{split}.json", info)
    write_text(marker_path(folder, split), "")
    return info


def _exhaust(items: Iterable) -> None:
    for _ in items:
        pass


def _check_other_shards(folder: Path, split: str, num_shards: int) -> None:
    for path in sorted(folder.glob(f"{split}-?????-of-?????{_SUFFIX}")):
        count = int(path.name.removesuffix(_SUFFIX)[-5:])
        if count != num_shards:
            raise ValueError(
                f"{folder} has split {split!r} in {count} shards ({path.name}), not in "
                f"{num_shards}; ask for {count}, or remove them, or choose another folder"
            )


def _run_beam(
    write: ShardWriter, num_shards: int, runner: str, beam_options: Sequence[str]
) -> None:
    try:
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError as e:
        raise ImportError(f"--runner {runner} needs Apache Beam: {how_to_install('beam')}") from e
    options = PipelineOptions(list(beam_options), runner=runner)
    with beam.Pipeline(options=options) as pipeline:
        numbers = pipeline | "shards" >> beam.Create(range(num_shards)) | beam.Reshuffle()
        _ = numbers | "write" >> beam.Map(write)


def _make_info(folder: Path, split: str, num_shards: int) -> dict[str, Any]:
    paths = [shard_path(folder, split, i, num_shards) for i in range(num_shards)]
    return {
        "format": INFO_FORMAT,
        "split": split,
        "examples": sum(len(ArrayRecordFile(path)) for path in paths),
        "shards": num_shards,
        "bytes": sum(path.stat().st_size for path in paths),
        _SIZES: [path.stat().st_size for path in paths],
    }


def _sizes(info: Path, num_shards: int) -> list[int] | None:
    """The sizes of shards in a `<split>.json`; None without them (of earlier versions, damaged)."""
    try:
        sizes = json.loads(info.read_text(encoding="utf-8"))[_SIZES]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    whole = isinstance(sizes, list) and len(sizes) == num_shards
    return sizes if whole and all(isinstance(size, int) for size in sizes) else None


def check_sizes(paths: Iterable[str | os.PathLike]) -> None:
    """Compare shards with the sizes that they had when they were prepared, where that is known.

    Raises:
      ValueError: naming the shard that has another size, and how it is made again.
    """
    known: dict[Path, list[int] | None] = {}
    for path in map(Path, paths):
        match = _NAME.fullmatch(path.name)
        if match is None:
            continue
        number, count = int(match["number"]), int(match["count"])
        info = path.with_name(f"{match['split']}.json")
        if info not in known:
            known[info] = _sizes(info, count)
        sizes = known[info]
        found = path.stat().st_size
        if sizes is not None and number < len(sizes) and found != sizes[number]:
            raise ValueError(
                f"{path}: has {found} bytes, but {sizes[number]} when it was prepared: copy it "
                "again, or run its preparation again with the same arguments, which makes this "
                "file again and keeps the others"
            )


def read_info(folder: str | os.PathLike, split: str) -> dict[str, Any] | None:
    """What `write_dataset` said of a split: "examples", "shards", "bytes", ...

    Returns:
      None when the folder has no such split.

    Raises:
      ValueError: the split is not whole; says what to do.
    """
    folder = Path(folder)
    path = folder / f"{split}.json"
    begun = any(folder.glob(f"{split}-?????-of-?????{_SUFFIX}"))
    if not marker_path(folder, split).exists():
        if begun or path.exists():
            raise ValueError(
                f"{folder}: split {split!r} was not written to its end (no "
                f"{marker_path(folder, split).name}); prepare it again with "
                "the same arguments, it continues"
            )
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise ValueError(f"{path}: cannot be read: {e}; prepare the dataset again") from e
