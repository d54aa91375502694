"""Random-access sources: for each split a sequence with `len()` and `[i]`."""

import bisect
import glob
import itertools
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from t5x.data.features import Example
from t5x.data.prepared import check_sizes
from t5x.data.records import ArrayRecordFile
from t5x.files import check_local

_SHARD = re.compile(r"(?P<name>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(\.[a-z_]+)?$")


@runtime_checkable
class Source(Protocol):
    """Where a task's raw examples come from."""

    @property
    def splits(self) -> tuple[str, ...]: ...

    def sequence(self, split: str) -> Sequence[Example]:
        """The examples of a split: an object with `len()` and `[i]`, safe to send to a process."""
        ...


def check_split(split: str, splits: Sequence[str], where: str) -> None:
    if split not in splits:
        raise ValueError(f"{where} has no split {split!r}; it has {sorted(splits)}")


class FunctionSource:
    """Examples from Python: {split: sequence} or {split: function that makes the sequence}.

    A function is called at most once, when its split is first asked for. It may be a generator;
    its examples are then kept in memory.
    """

    def __init__(
        self,
        splits: Mapping[
            str, Sequence[Mapping[str, Any]] | Callable[[], Sequence[Mapping[str, Any]]]
        ],
    ):
        self._splits: dict[str, Any] = dict(splits)

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self._splits)

    def sequence(self, split: str) -> Sequence[Example]:
        check_split(split, self.splits, "the source")
        given = self._splits[split]
        if callable(given) and not hasattr(given, "__getitem__"):
            examples = given()
            if isinstance(examples, Iterator):
                examples = list(examples)
            if not hasattr(examples, "__len__") or not hasattr(examples, "__getitem__"):
                raise ValueError(
                    f"split {split!r}: expected a sequence with len() and [i], "
                    f"got {type(examples).__name__}"
                )
            self._splits[split] = examples
        return self._splits[split]


class _Generated:
    def __init__(self, function, split: str, size: int):
        self._function, self._split, self._size = function, split, size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> Example:
        return self._function(self._split, index)


class GeneratedSource:
    """Examples made when they are read, such as rendered audio: `function(split, index)`.

    `function` must be pure: the same split and index give the same example.
    """

    def __init__(self, function: Callable[[str, int], Example], num_examples: Mapping[str, int]):
        self._function = function
        self._sizes = dict(num_examples)

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self._sizes)

    def sequence(self, split: str) -> Sequence[Example]:
        check_split(split, self.splits, "the source")
        return _Generated(self._function, split, self._sizes[split])  # type: ignore[return-value]


def expand_patterns(patterns: str | os.PathLike | Sequence, what: str) -> list[str]:
    """Sorted files that match any of the glob patterns (`**` goes into folders).

    Raises:
      FileNotFoundError: naming the pattern that matches no file.
    """
    if isinstance(patterns, str | os.PathLike):
        patterns = [patterns]
    found: set[str] = set()
    for pattern in patterns:
        check_local(pattern, what)
        pattern = os.path.expanduser(os.fspath(pattern))
        matches = [p for p in glob.glob(pattern, recursive=True) if os.path.isfile(p)]
        if not matches:
            raise FileNotFoundError(f"{what}: no file matches {pattern!r}")
        found.update(matches)
    return sorted(found)


def check_shards(paths: Sequence[str | os.PathLike]) -> None:
    """Raise ValueError when shards of a set `<name>-00000-of-0000N` are missing."""
    found: dict[tuple[str, int], set[int]] = {}
    for path in paths:
        if match := _SHARD.match(os.fspath(path)):
            name, number, count = match["name"], int(match["number"]), int(match["count"])
            found.setdefault((name, count), set()).add(number)
    for (name, count), numbers in found.items():
        missing = sorted(set(range(count)) - numbers)
        if missing:
            raise ValueError(
                f"{name}: {len(missing)} of {count} shards are missing, the first is number "
                f"{missing[0]}; prepare the dataset to its end (the same "
                "command again) or remove the shards of an older one"
            )


class _ArrayRecords:
    """Opens its files on first use, so that it can be sent to a worker process."""

    def __init__(self, paths: list[str]):
        self._paths = paths
        self._files: list[ArrayRecordFile] | None = None
        self._starts: list[int] = []

    def _open(self) -> list[ArrayRecordFile]:
        if self._files is None:
            self._files = [ArrayRecordFile(path) for path in self._paths]
            self._starts = list(itertools.accumulate(map(len, self._files), initial=0))
        return self._files

    def __len__(self) -> int:
        return sum(map(len, self._open()))

    def __getitem__(self, index: int) -> Example:
        files = self._open()
        if not 0 <= index < self._starts[-1]:
            raise IndexError(f"example {index} of {self._starts[-1]}")
        number = bisect.bisect_right(self._starts, index) - 1
        return files[number][index - self._starts[number]]

    def __getstate__(self):
        return {"_paths": self._paths, "_files": None, "_starts": []}


class ArrayRecordSource:
    """{split: file pattern or patterns} of ArrayRecord files written by `records`."""

    def __init__(self, patterns: Mapping[str, str | os.PathLike | Sequence]):
        self._patterns = dict(patterns)

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self._patterns)

    def sequence(self, split: str) -> Sequence[Example]:
        check_split(split, self.splits, "the source")
        paths = expand_patterns(self._patterns[split], f"split {split!r}")
        check_shards(paths)
        check_sizes(paths)
        return _ArrayRecords(paths)  # type: ignore[return-value]


class _Files:
    def __init__(self, paths: list[str], read: Callable[[Path], Example]):
        self._paths, self._read = paths, read

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Example:
        return self._read(Path(self._paths[index]))


def _path_example(path: Path) -> Example:
    return {"path": str(path)}  # type: ignore[dict-item]


class FileSource:
    """One example a file: {split: folder, pattern or patterns}, in sorted order.

    Args:
      patterns: for each split glob patterns; a folder means every file below it.
      read: makes the example of a path; by default {"path": str}.
    """

    def __init__(
        self,
        patterns: Mapping[str, str | os.PathLike | Sequence],
        read: Callable[[Path], Example] = _path_example,
    ):
        self._patterns = dict(patterns)
        self._read = read

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self._patterns)

    def sequence(self, split: str) -> Sequence[Example]:
        check_split(split, self.splits, "the source")
        patterns: Any = self._patterns[split]
        if isinstance(patterns, str | os.PathLike):
            patterns = [patterns]
        globs = [Path(p) / "**" / "*" if os.path.isdir(p) else p for p in patterns]
        paths = expand_patterns(globs, f"split {split!r}")
        return _Files(paths, self._read)  # type: ignore[return-value]


class TfdsSource:
    """A dataset of TensorFlow Datasets in its ArrayRecord form (extra `seqio`).

    Read by `tfds.data_source`: random access, arrays, and no TensorFlow while reading.

    Args:
      name: such as "mnist" or "ag_news_subset:1.0.0".
      splits: {split here: split there}, such as {"train": "train[:90%]"}, or names to take as they
        are; None takes all.
      data_dir: folder of the prepared datasets; None means the environment's TFDS_DATA_DIR, or
        `~/tensorflow_datasets`.

    Raises (when read):
      ImportError: tensorflow_datasets is not installed.
      ValueError: the dataset is absent, or not prepared as ArrayRecord.
    """

    def __init__(
        self,
        name: str,
        splits: Mapping[str, str] | Sequence[str] | None = None,
        data_dir: str | os.PathLike | None = None,
    ):
        self._name = name
        self._data_dir = None if data_dir is None else os.fspath(data_dir)
        self._splits = splits

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self._names())

    def _names(self) -> dict[str, str]:
        if self._splits is None:
            import tensorflow_datasets as tfds

            self._splits = list(tfds.builder(self._name, data_dir=self._data_dir).info.splits)
        if isinstance(self._splits, Mapping):
            return dict(self._splits)
        return {split: split for split in self._splits}

    def sequence(self, split: str) -> Sequence[Example]:
        import tensorflow_datasets as tfds

        names = self._names()
        check_split(split, tuple(names), f"dataset {self._name!r}")
        try:
            return tfds.data_source(self._name, split=names[split], data_dir=self._data_dir)
        except (NotImplementedError, ValueError, AssertionError) as e:
            raise ValueError(
                f"dataset {self._name!r}, split {names[split]!r} cannot be read at random: {e}; "
                f"prepare it with tfds.builder({self._name!r}, file_format='array_record')"
                ".download_and_prepare()"
            ) from e
