"""The objects that gin files configure, under upstream's names."""

import dataclasses
import importlib
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from flax.core import unfreeze
from flax.linen.partitioning import AxisMetadata
from flax.traverse_util import flatten_dict, unflatten_dict

from t5x import gin_limits
from t5x.checkpoints.retention import Checkpointer
from t5x.compilation_cache import enable_compilation_cache
from t5x.data.lookup import find_provider
from t5x.gin_utils import GinError
from t5x.partitioning import BasePartitioner
from t5x.restoring import TrainStateInitializer
from t5x.schedules import create_learning_rate_scheduler
from t5x.unsupported import unsupported_names

if not TYPE_CHECKING:  # type checkers still report names that do not exist
    __getattr__ = unsupported_names(__name__)

__all__ = [
    "CheckpointConfig",
    "DatasetConfig",
    "RestoreCheckpointConfig",
    "SaveCheckpointConfig",
    "TrainStateInitializer",
    "create_learning_rate_scheduler",
    "enable_compilation_cache",
    "get_dataset",
    "get_local_data",
    "get_training_eval_datasets",
    "get_vocabulary",
    "import_module",
    "override_params_axes_names",
    "round_vocab_size_to_multiple",
    "set_hardware_rng_ops",
    "verify_matching_vocabs",
]

_DTYPES = (None, "float32", "bfloat16", "float16")


@dataclasses.dataclass
class DatasetConfig:
    """A task or mixture, and how it becomes batches.

    Attributes:
      mixture_or_task_name: registered name, or the object.
      task_feature_lengths: task feature -> length of one example. None, for the evaluation
        of predictions only, takes those of the longest examples.
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
      runtime_preprocessors: of upstream, for airio only; must be None.
      num_prefetch_threads: of upstream; as num_read_threads.
      num_workers: processes that make examples.
      num_read_threads: threads that make examples.
      length_buckets, bucket_window: see `t5x.data.get_dataset`.
    """

    mixture_or_task_name: Any
    task_feature_lengths: Mapping[str, Any] | None
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
    runtime_preprocessors: Any = None
    num_prefetch_threads: int | None = None
    num_workers: int = 0
    num_read_threads: int = 0
    length_buckets: Sequence[int] | Mapping[str, Sequence[int]] | None = None
    bucket_window: int = 16

    def __post_init__(self):
        if self.runtime_preprocessors is not None:
            raise ValueError(
                "DatasetConfig.runtime_preprocessors belongs to airio, which is not used here; "
                "make them preprocessors of the task."
            )
        self.num_read_threads = self.num_read_threads or self.num_prefetch_threads or 0
        check_count("DatasetConfig.batch_size", self.batch_size, 1)
        check_count("DatasetConfig.num_workers", self.num_workers)
        check_count("DatasetConfig.num_read_threads", self.num_read_threads)
        for name, length in (self.task_feature_lengths or {}).items():
            for size in np.ravel(length):
                check_count(f"DatasetConfig.task_feature_lengths of {name}", size, 1)
        if self.module:
            import_module(self.module)

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
      keep_dataset_checkpoints, save_dataset: of upstream; every checkpoint has its data position.
      checkpointer_cls: which are kept: `Checkpointer`, or `SaveBestCheckpointer` with its options.
      state_transformation_fns: f(state_dict) -> state_dict, applied in order to what is written.
      checkpoint_manager_cls: of upstream; Orbax's is the only one.
    """

    dtype: str | None = "float32"
    period: int | None = None
    checkpoint_steps: Sequence[int] | None = None
    keep: int | None = None
    keep_dataset_checkpoints: int | None = None
    save_dataset: bool = True
    checkpointer_cls: Callable[..., Checkpointer] = Checkpointer
    state_transformation_fns: Sequence[Callable[[Any], Any]] = ()
    checkpoint_manager_cls: Any = None

    @property
    def policy(self) -> Checkpointer:
        """Which checkpoints are kept."""
        own = {} if self.keep is None else {"keep": self.keep}
        return self.checkpointer_cls(**own)

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
      assignment_map: (regex on names here, name there or None) pairs; see `t5x.state_utils.assign`.
      strict: raise when the checkpoint has arrays that the model does not use.
      fallback_to_scratch: initialize what the checkpoint lacks, or all when there is none.
      dtype: parameters are rounded to it when read.
      restore_dataset: continue the data where that run stood.
      checkpointer_cls, checkpoint_manager_cls: of upstream; the format is found out.
      state_transformation_fns: f(state_dict) -> state_dict, applied in order to what is read, such
        as `t5x.checkpoints.scanned_states.convert_layers`; for what else they are given see
        `TrainStateInitializer.from_checkpoint`.
    """

    path: str | Sequence[str]
    mode: str = "latest"
    assignment_map: Sequence[tuple[str, str | None]] | None = None
    strict: bool = True
    fallback_to_scratch: bool = False
    dtype: str | None = None
    restore_dataset: bool = False
    checkpointer_cls: Any = None
    state_transformation_fns: Sequence[Callable[..., Any]] = ()
    checkpoint_manager_cls: Any = None

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


def check_count(name: str, value: Any, least: int = 0) -> None:
    """Raise ValueError for a whole number below `least`; other values are not looked at."""
    if isinstance(value, int | np.integer) and value < least:
        raise ValueError(f"{name} is {value}, expected {least} or more.")


def _check_dtype(owner: str, dtype: Any) -> None:
    if dtype not in _DTYPES:
        raise ValueError(f"{owner}.dtype is {dtype!r}; use one of {_DTYPES}.")


def import_module(module: str) -> None:
    """Import `module`, which registers tasks.

    Raises:
      ImportError: names the module, and where it was looked for.
      ForbiddenError: the configuration of a run folder asks for it, see `t5x.gin_limits`.
    """
    gin_limits.check_import(module)
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not module.startswith(error.name):
            raise
        raise ImportError(
            f"DatasetConfig.module: there is no module {module!r}. It is found from the current "
            "folder and PYTHONPATH; run `python -m t5x.train` where it can be imported.",
            name=error.name,
        ) from error


def get_vocabulary(cfg: DatasetConfig) -> tuple[Any, Any]:
    """(vocabulary of the inputs, vocabulary of the targets) of the task or mixture of `cfg`.

    A language model's task has no inputs, so both are that of its targets.
    """
    features = find_provider(cfg.mixture_or_task_name).output_features
    targets = features["targets"].vocabulary
    return (features["inputs"].vocabulary if "inputs" in features else targets), targets


def verify_matching_vocabs(cfg: DatasetConfig, model: Any) -> None:
    """Check that the data is written in the vocabularies that the model reads.

    Models and features without a vocabulary (continuous inputs), and tasks without targets, are not
    checked.

    Raises:
      GinError: names the two that differ, or the network that has too few rows for one.
    """
    if not hasattr(model, "output_vocabulary") or cfg.mixture_or_task_name is None:
        return
    if "targets" not in find_provider(cfg.mixture_or_task_name).output_features:
        return
    for kind, of_data, of_model in zip(
        ("input", "output"),
        get_vocabulary(cfg),
        (getattr(model, "input_vocabulary", None), model.output_vocabulary),
    ):
        if _differ(of_data, of_model):
            raise GinError(
                f"{cfg.name}: the {kind} vocabulary of the data, {of_data!r}, is not the model's, "
                f"{of_model!r}. Give the model the task's vocabulary (VOCABULARY), or another task."
            )
        rows = getattr(getattr(getattr(model, "module", None), "config", None), "vocab_size", None)
        ids = getattr(of_data, "vocab_size", None)
        if of_model is not None and rows and ids and rows < ids:
            raise GinError(
                f"{cfg.name}: the {kind} vocabulary {of_data!r} has {ids} ids, but the network "
                f"embeds {rows} (vocab_size of its configuration); give it at least {ids}."
            )


def _differ(a: Any, b: Any) -> bool:
    if a is None or b is None or a == b:
        return False
    if type(a) is type(b) and type(a).__eq__ is not object.__eq__:
        return True
    # Of two kinds of object (ours and seqio's, say), the ids are what can be compared.
    sizes = [getattr(v, "vocab_size", None) for v in (a, b)]
    return all(sizes) and sizes[0] != sizes[1]


def override_params_axes_names(
    model_variables: Mapping[str, Any],
    params_axes_names_override: Sequence[tuple[str, tuple[str, ...]]] = (),
) -> dict[str, Any]:
    """The variables with other logical axis names for some parameters.

    Args:
      model_variables: collections with `params` and `params_axes`.
      params_axes_names_override: (regular expression on '/'-joined names, axis names) pairs; the
        first that matches a name decides.

    Raises:
      ValueError: a pair that matches no parameter, or has another number of axes.
    """
    variables = dict(unfreeze(dict(model_variables)))
    axes: dict[str, Any] = flatten_dict(variables["params_axes"], sep="/")
    shapes: dict[str, Any] = flatten_dict(variables["params"], sep="/")
    idle = {pattern for pattern, _ in params_axes_names_override}
    for name, value in shapes.items():
        for pattern, names in params_axes_names_override:
            if re.fullmatch(pattern, name):
                idle.discard(pattern)
                if len(names) != value.ndim:
                    raise ValueError(f"Axes {names} for {name} of shape {tuple(value.shape)}.")
                axes[name + "_axes"] = AxisMetadata(names=tuple(names))
                break
    if idle:
        raise ValueError(f"params_axes_names_override: no parameter matches {sorted(idle)}.")
    return {**variables, "params_axes": unflatten_dict(axes, sep="/")}


def get_local_data(x: Any) -> Any:
    """Return this process's first part of a device array; other values as they are.

    Of a replicated array, such as a train state's step or a loss, that is the whole.
    """
    if isinstance(x, jax.Array) and not isinstance(x, jax.core.Tracer):
        return x.addressable_data(0)
    return x


def set_hardware_rng_ops() -> None:
    """Draw random numbers by the device's own generator: faster, other on each kind of device."""
    jax.config.update("jax_default_prng_impl", "unsafe_rbg")


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
      **options: further arguments of `t5x.data.get_dataset`. `prefetch` is 0 unless it is given,
        since `t5x.train` reads ahead itself.

    Raises:
      ValueError: no feature lengths, or what `t5x.data.get_dataset` raises.
    """
    from t5x import data

    if cfg.task_feature_lengths is None:
        raise ValueError(
            f"DatasetConfig of {cfg.mixture_or_task_name!r}: task_feature_lengths is None, which "
            "only the evaluation of predictions can work with; give a length for each feature."
        )
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
        **{"prefetch": 0, **options},
    )


def get_training_eval_datasets(
    cfg: DatasetConfig,
    partitioner: BasePartitioner,
    eval_steps: int | None,
    feature_converter_cls: Any,
) -> "dict[str, FirstBatches]":
    """For each task of the evaluation mixture, its first `eval_steps` batches.

    The split repeats if it is shorter; None means one pass over its whole batches. The same
    batches come every time.
    """
    layout = partitioner.get_data_layout(cfg.batch_size)
    source = find_provider(cfg.mixture_or_task_name)
    result = {}
    for task in getattr(source, "tasks", [source]):
        batches = get_dataset(
            dataclasses.replace(cfg, mixture_or_task_name=task),
            layout.shard_id,
            layout.num_shards,
            feature_converter_cls,
            num_epochs=None if eval_steps else 1,
            prefetch=2,
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
        """End the threads and processes that make the batches."""
        self._batches.close()
