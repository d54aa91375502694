"""The objects that gin files configure, under upstream's names."""

import dataclasses
import importlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from t5x.compilation_cache import enable_compilation_cache
from t5x.partitioning import PjitPartitioner
from t5x.restoring import TrainStateInitializer
from t5x.schedules import create_learning_rate_scheduler

__all__ = [
    "CheckpointConfig",
    "DatasetConfig",
    "RestoreCheckpointConfig",
    "SaveCheckpointConfig",
    "TrainStateInitializer",
    "create_learning_rate_scheduler",
    "enable_compilation_cache",
    "get_dataset",
    "get_training_eval_datasets",
    "round_vocab_size_to_multiple",
]

_DTYPES = (None, "float32", "bfloat16", "float16")


@dataclasses.dataclass
class DatasetConfig:
    """A task or mixture, and how it becomes batches.

    Attributes:
      mixture_or_task_name: registered name, or the object.
      task_feature_lengths: task feature -> length of one example.
      split: such as "train".
      batch_size: global number of rows of a batch.
      shuffle: a new permutation of the split every epoch.
      seed: of the order and of the preprocessors; None takes the run's seed.
      use_cached: for seqio tasks with a cache.
      pack: several examples share a row.
      use_custom_packing_ops: of upstream, without effect.
      module: imported first, to register tasks.
      use_memory_cache: evaluation examples are kept in memory.
      trim_output_features: cut features longer than their length (otherwise an error).
      num_workers: processes that make examples.
      num_read_threads: threads that make examples.
      length_buckets, bucket_window: see `t5x.data.get_dataset`.
    """

    mixture_or_task_name: Any
    task_feature_lengths: Mapping[str, Any]
    split: str
    batch_size: int
    shuffle: bool
    seed: int | None = None
    use_cached: bool = False
    pack: bool = False
    use_custom_packing_ops: bool = False
    module: str | None = None
    use_memory_cache: bool = True
    trim_output_features: bool = True
    num_workers: int = 0
    num_read_threads: int = 0
    length_buckets: Sequence[int] | Mapping[str, Sequence[int]] | None = None
    bucket_window: int = 16

    def __post_init__(self):
        if self.module:
            importlib.import_module(self.module)

    @property
    def name(self) -> str:
        """The name of the task or mixture."""
        return getattr(self.mixture_or_task_name, "name", self.mixture_or_task_name)


@dataclasses.dataclass
class SaveCheckpointConfig:
    """When and how checkpoints are written.

    Attributes:
      dtype: of the parameters on disk: float32, bfloat16, float16, or None for their own.
      period: steps between checkpoints; None saves only at `checkpoint_steps` and at the end.
      checkpoint_steps: extra steps to save at.
      keep: newest checkpoints to keep; None keeps all.
      save_dataset: of upstream; the data position is saved with every checkpoint in any case.
    """

    dtype: str | None = "float32"
    period: int | None = None
    checkpoint_steps: Sequence[int] | None = None
    keep: int | None = None
    save_dataset: bool = True

    def __post_init__(self):
        _check_dtype("SaveCheckpointConfig", self.dtype)
        if self.period is not None and self.period < 1:
            raise ValueError(f"SaveCheckpointConfig.period must be positive, got {self.period}.")


@dataclasses.dataclass
class RestoreCheckpointConfig:
    """The checkpoint a new run starts from (a run that resumes reads its own).

    Attributes:
      path: checkpoint, run folder or `.safetensors` file; [] means none.
      mode: "specific" (`path` itself), "latest" or "all" (of the run in folder `path`).
      assignment_map: (regex on names here, name there or None) pairs; see `t5x.restoring.assign`.
      strict: raise when the checkpoint has arrays that the model does not use.
      fallback_to_scratch: initialize what the checkpoint lacks, or all when there is none.
      dtype: parameters are rounded to it when read.
      restore_dataset: continue the data where that run stood.
    """

    path: str | Sequence[str]
    mode: str = "latest"
    assignment_map: Sequence[tuple[str, str | None]] | None = None
    strict: bool = True
    fallback_to_scratch: bool = False
    dtype: str | None = None
    restore_dataset: bool = False

    def __post_init__(self):
        _check_dtype("RestoreCheckpointConfig", self.dtype)
        if self.mode not in ("specific", "latest", "all"):
            raise ValueError(
                f"RestoreCheckpointConfig.mode is {self.mode!r}; use specific, latest or all."
            )


@dataclasses.dataclass
class CheckpointConfig:
    """Both directions; None leaves one out."""

    save: SaveCheckpointConfig | None = None
    restore: RestoreCheckpointConfig | None = None


def _check_dtype(owner: str, dtype: Any) -> None:
    if dtype not in _DTYPES:
        raise ValueError(f"{owner}.dtype is {dtype!r}; use one of {_DTYPES}.")


def round_vocab_size_to_multiple(vocabulary: Any, divisor: int = 128) -> int:
    """The vocabulary's size, rounded up to a multiple of `divisor`."""
    return -(-vocabulary.vocab_size // divisor) * divisor


def get_dataset(
    cfg: DatasetConfig,
    shard_id: int,
    num_shards: int,
    feature_converter_cls: Any,
    num_epochs: int | None = None,
    **options: Any,
) -> Any:
    """The batches of shard `shard_id` of `num_shards`: a `t5x.data.DatasetIterator`.

    Args:
      cfg: what to read.
      shard_id: this process's shard.
      num_shards: number of shards.
      feature_converter_cls: class of the model's feature converter, called with `pack`.
      num_epochs: None repeats for ever.
      **options: further arguments of `t5x.data.get_dataset`.
    """
    from t5x import data

    return data.get_dataset(
        cfg.mixture_or_task_name,
        cfg.task_feature_lengths,
        cfg.split,
        cfg.batch_size,
        shuffle=cfg.shuffle,
        seed=cfg.seed,
        num_epochs=num_epochs,
        feature_converter=feature_converter_cls(pack=cfg.pack),
        pack=cfg.pack,
        shard_index=shard_id,
        num_shards=num_shards,
        trim_output_features=cfg.trim_output_features,
        length_buckets=cfg.length_buckets,
        bucket_window=cfg.bucket_window,
        num_workers=cfg.num_workers,
        num_read_threads=cfg.num_read_threads,
        use_cached=cfg.use_cached,
        **options,
    )


def get_training_eval_datasets(
    cfg: DatasetConfig,
    partitioner: PjitPartitioner,
    eval_steps: int | None,
    feature_converter_cls: Any,
) -> "dict[str, FirstBatches]":
    """For each task of the evaluation mixture, its first `eval_steps` batches.

    The split repeats if it is shorter; None means one pass over its whole batches. The same
    batches come every time.
    """
    from t5x import data

    layout = partitioner.get_data_layout(cfg.batch_size)
    source = data.get_mixture_or_task(cfg.mixture_or_task_name)
    result = {}
    for task in getattr(source, "tasks", [source]):
        batches = get_dataset(
            dataclasses.replace(cfg, mixture_or_task_name=task),
            layout.shard_id,
            layout.num_shards,
            feature_converter_cls,
            num_epochs=None if eval_steps else 1,
        )
        result[task.name] = FirstBatches(batches, eval_steps)
    return result


class FirstBatches:
    """The first `count` batches of an iterator (None: all), which `close` closes."""

    def __init__(self, batches: Any, count: int | None):
        self._batches = batches
        self._limited = itertools.islice(batches, count or None)

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        return self._limited

    def __next__(self) -> Mapping[str, Any]:
        return next(self._limited)

    def close(self) -> None:
        """Ends the threads and processes that make the batches."""
        self._batches.close()
