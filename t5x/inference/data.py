"""The examples of a task from any place on, with their ids: what `t5x.infer` reads."""

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from t5x.data import lookup
from t5x.data.batching import START, ExampleStream
from t5x.data.caching import read_by
from t5x.data.converters import FeatureConverter, PassThroughFeatureConverter
from t5x.data.examples import ExampleMaker
from t5x.data.fingerprint import fingerprint
from t5x.data.memory import check_batch_memory
from t5x.data.order import TaskOrder
from t5x.data.seqio.bridge import NativeSource
from t5x.data.tasks import Mixture, Task

ID, PART = "_id", "_part"
Example = dict[str, Any]
Position = dict[str, int]


class TaskReader:
    """One pass over a shard of a task registered here.

    Every example gets `_id`, the index of its raw example in the split, and, where a raw example
    gives several, `_part`, their number.

    Args:
      task: the task.
      cfg: a `t5x.utils.DatasetConfig`.
      shard_id: examples shard_id, shard_id + num_shards, ... of the split.
      num_shards: number of shards.
    """

    def __init__(self, task: Task, cfg: Any, shard_id: int, num_shards: int):
        sequence = task.sequence(cfg.split)
        self.name = task.name
        self.output_features = task.output_features
        self.data = {"examples": len(sequence), "fingerprint": fingerprint(sequence)}
        seed = cfg.seed or 0
        self._order = TaskOrder(len(sequence), cfg.shuffle, seed, 0, shard_id, num_shards)
        self._maker = ExampleMaker(
            [task],
            [sequence],
            dict(cfg.task_feature_lengths or {}),
            PassThroughFeatureConverter(),
            seed,
            cfg.trim_output_features,
        )

    def read(self, position: Position | None = None) -> Iterator[tuple[Example, Position]]:
        """(example, position after it) from `position` on; None begins at the start."""
        stream = ExampleStream(
            self._elements(position["element"] if position else 0), {**START, **(position or {})}
        )
        for example in stream:
            after = stream.position()
            yield example, {"element": after["element"], "offset": after["offset"]}

    def _elements(self, start: int) -> Iterator[list[Example]]:
        for number in range(start, self._order.shard_size):
            place = self._order.place(number)
            examples = self._maker.task_examples(place)
            if len(examples) == 1:
                yield [{ID: place.index, **examples[0]}]
            else:
                yield [{ID: place.index, PART: part, **one} for part, one in enumerate(examples)]


class SeqioReader:
    """As `TaskReader`, for a task of seqio; `_id` is the number of the example in the shard.

    seqio cannot start in the middle: what comes before a position is read and dropped.
    """

    def __init__(self, task: Any, cfg: Any, shard_id: int, num_shards: int):
        self.name: str = task.name
        self.output_features = task.output_features
        self.data = {"examples": task.num_input_examples(cfg.split)}
        self._task, self._cfg, self._shard = task, cfg, (shard_id, num_shards)

    def read(self, position: Position | None = None) -> Iterator[tuple[Example, Position]]:
        """As `TaskReader.read`."""
        import seqio

        cfg, (shard_id, num_shards) = self._cfg, self._shard
        dataset = self._task.get_dataset(
            sequence_length=cfg.task_feature_lengths,
            split=cfg.split,
            shuffle=cfg.shuffle,
            seed=cfg.seed,
            num_epochs=1,
            use_cached=cfg.use_cached,
            trim_output_features=cfg.trim_output_features,
            shard_info=seqio.ShardInfo(shard_id, num_shards) if num_shards > 1 else None,
        )
        start = position["element"] if position else 0
        examples = dataset.skip(start).as_numpy_iterator()
        for number, example in enumerate(examples, start=start):
            yield {ID: number, **example}, {"element": number + 1, "offset": 0}


def make_readers(cfg: Any, shard_id: int, num_shards: int) -> list[Any]:
    """A reader for each task of the configured task or mixture.

    Raises:
      ValueError: an unknown name, split, or shard.
    """
    if not 0 <= shard_id < num_shards:
        raise ValueError(f"shard_id={shard_id} is not in [0, num_shards={num_shards}).")
    source = lookup.find(cfg.mixture_or_task_name)
    if isinstance(source, NativeSource):
        import seqio

        tasks = seqio.get_subtasks(source.provider)
        return [SeqioReader(task, cfg, shard_id, num_shards) for task in tasks]
    tasks = source.tasks if isinstance(source, Mixture) else [source]
    tasks = read_by(tasks, cfg.split, cfg.use_cached)
    return [TaskReader(task, cfg, shard_id, num_shards) for task in tasks]


class BatchMaker:
    """Groups of examples as model batches of one shape.

    Args:
      converter: made with pack=False.
      lengths: {task feature: length}.
      batch_size: rows of every batch; missing ones are zeros.

    Raises:
      ValueError: the lengths are not those of the converter's features, or a batch exceeds the
        memory.
    """

    def __init__(
        self, converter: FeatureConverter, lengths: Mapping[str, Any] | None, batch_size: int
    ):
        converter.check_lengths(lengths or {})
        check_batch_memory(converter, lengths or {}, batch_size, "examples")
        self._converter = converter
        self._lengths = dict(lengths or {})
        self.batch_size = batch_size

    def make(self, examples: list[Example]) -> dict[str, np.ndarray]:
        """At most `batch_size` examples as a batch."""
        converter, lengths = self._converter, self._lengths
        prepared = [converter.prepare(self._complete(e), lengths) for e in examples]
        batch = converter.convert(converter.collate(prepared, converter.prepared_lengths(lengths)))
        missing = self.batch_size - len(examples)
        return {
            name: np.concatenate([rows, np.zeros((missing, *rows.shape[1:]), rows.dtype)])
            for name, rows in batch.items()
        }

    def _complete(self, example: Example) -> Example:
        """Targets may be unknown; the model gets none."""
        spec = self._converter.TASK_FEATURES.get("targets")
        if spec is None or spec.rank != 1 or "targets" in example:
            return example
        return {**example, "targets": np.zeros(0, spec.dtype)}


def take(examples: Iterator[Any], count: int) -> list[Any]:
    """The next `count` items, fewer at the end."""
    return list(itertools.islice(examples, count))
