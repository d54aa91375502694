"""Examples a second of the input pipeline, beside reading the same records and nothing else.

The records are tokens of random length in ArrayRecord shards. "Nothing else" is the loop that asks
ArrayRecord for the bytes of each record, at random, without decoding them.
"""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import Row, effort, run_pinned, time_ratio

LENGTHS = {"inputs": 128, "targets": 128}
VOCABULARY = 384
MEASURE = "of the speed of reading bytes"


def measure(tiny: bool = False) -> list[Row]:
    """Return shares of the parts of the pipeline."""
    found = run_pinned("benchmarks.data_pipeline:shares", tiny=tiny)
    return [Row(case, MEASURE, share) for case, share in found.items()]


def shares(tiny: bool) -> dict[str, float]:
    """Return CPU seconds of reading the bytes of as many records, divided by ours."""
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    from t5x.data import tf_example
    from t5x.data.sources import ArrayRecordSource
    from t5x.data.tfrecord import TFExampleSource, write_tfrecord

    count = 64 if tiny else 8192
    with tempfile.TemporaryDirectory() as folder:
        paths = _write(Path(folder), count)
        examples = {"train": Path(folder) / "train-*"}
        plain = ArrayRecordSource(examples).sequence("train")
        rows = [{name: plain[i][name] for name in LENGTHS} for i in range(count)]
        record_file = Path(folder) / "train.tfrecord"
        write_tfrecord(record_file, map(tf_example.serialize_example, rows))
        records = TFExampleSource({"train": record_file}).sequence("train")
        bare = ArrayRecordDataSource([str(path) for path in paths])
        order = np.random.default_rng(0).permutation(count).tolist()
        cases: dict[str, Callable[[], Any]] = {
            "decoded": lambda: [plain[i] for i in order],
            "decoded, TFRecord with checksums": lambda: [records[i] for i in order],
        }

        def share(work: Callable[[], Any]) -> float:
            return time_ratio(lambda: [bare[i] for i in order], work, **effort(tiny))

        found = {name: share(work) for name, work in cases.items()}
        sources = {
            "ArrayRecord": ArrayRecordSource(examples),
            "TFRecord": TFExampleSource({"train": record_file}),
        }
        for name, (source, options) in _pipelines().items():
            batches = _batches(sources[source], options)
            found[name] = share(_drawing(batches, count))
            batches.close()
    return found


def _write(folder: Path, count: int) -> list[Path]:
    """Return `count` examples of 30 to 120 tokens in four shards."""
    from t5x.data.records import write_shards

    rng = np.random.default_rng(1)

    def example() -> dict[str, np.ndarray]:
        sizes = {name: int(rng.integers(30, 120)) for name in LENGTHS}
        return {k: rng.integers(3, 259, n).astype(np.int32) for k, n in sizes.items()}

    return write_shards(folder / "train", [example() for _ in range(count)], 4)


def _pipelines() -> dict[str, tuple[str, dict[str, Any]]]:
    """Return the source and the options of each case, by its name."""
    return {
        "shuffled, padded batches": ("ArrayRecord", {}),
        "shuffled, padded batches, TFRecord with checksums": ("TFRecord", {}),
        "shuffled, packed batches": ("ArrayRecord", {"pack": True}),
        "span corruption, padded batches": ("ArrayRecord", {"corrupt": True}),
    }


def _batches(source: Any, options: dict[str, Any]) -> Any:
    from t5x.data import ByteVocabulary, EncDecFeatureConverter, Feature, Task, get_dataset
    from t5x.data.denoising import span_corruption
    from t5x.data.preprocessors import append_eos_after_trim

    corrupt = options.get("corrupt", False)
    vocabulary = ByteVocabulary(extra_ids=VOCABULARY - 259)
    task = Task(
        "benchmark",
        source,
        [*([span_corruption] if corrupt else []), append_eos_after_trim],
        {name: Feature(vocabulary) for name in LENGTHS},
    )
    return get_dataset(
        task,
        LENGTHS,
        "train",
        16,
        seed=0,
        feature_converter=EncDecFeatureConverter,
        pack=options.get("pack", False),
        prefetch=0,
    )


def _drawing(batches: Iterator[dict[str, np.ndarray]], count: int) -> Callable[[], None]:
    """Return work that takes batches until `count` examples have gone by."""

    def work() -> None:
        seen = 0
        while seen < count:
            batch = next(batches)
            segments = batch.get("decoder_segment_ids")
            seen += len(batch["decoder_target_tokens"]) if segments is None else _examples(segments)

    return work


def _examples(segment_ids: np.ndarray) -> int:
    """Return the number of examples in the rows of a packed batch."""
    return int(segment_ids.max(axis=1).sum())
