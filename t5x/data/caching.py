"""Tasks whose preprocessing is done once: written by `cache_task`, read when `use_cached` asks.

A cached task is a prepared dataset (`t5x.data.prepared`) in `<cache folder>/<task name>/`. It holds
what comes out of the steps before `CacheDatasetPlaceholder`, or without one, before the first step
that asks for `rng` or `sequence_length`; the others run while reading. Cache folders are those of
`add_cache_dirs` and of the environment variable T5X_CACHE_DIRS (separated as in PATH).
"""

import dataclasses
import functools
import importlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from t5x.data.features import validate_features
from t5x.data.prepared import read_info, write_dataset
from t5x.data.preprocessors import (
    CacheDatasetPlaceholder,
    PreprocessorChain,
    injected_parameters,
)
from t5x.data.sources import ArrayRecordSource
from t5x.data.tasks import Task, TaskRegistry
from t5x.user_paths import user_path

_ENVIRONMENT = "T5X_CACHE_DIRS"
_added: list[Path] = []


def add_cache_dirs(folders: Sequence[str | os.PathLike]) -> None:
    """More folders in which `cached_task` looks, after those added before."""
    for folder in map(Path, folders):
        if folder not in _added:
            _added.append(folder)


def cache_dirs() -> list[Path]:
    """The folders in which `cached_task` looks, in order."""
    named = os.environ.get(_ENVIRONMENT, "").split(os.pathsep)
    return [*_added, *(user_path(folder) for folder in named if folder)]


def split_steps(task: Task) -> tuple[tuple[Callable, ...], tuple[Callable, ...]]:
    """The steps that are done once, and those that are done while reading.

    Raises:
      ValueError: a step before the placeholder asks for `rng` or `sequence_length`.
    """
    steps = task.preprocessors
    late = [bool({"rng", "sequence_length"} & set(injected_parameters(s))) for s in steps]
    places = [i for i, s in enumerate(steps) if isinstance(s, CacheDatasetPlaceholder)]
    border = places[0] if places else (late.index(True) if True in late else len(steps))
    if any(late[:border]):
        name = _step_name(steps[late.index(True)])
        raise ValueError(
            f"task {task.name!r}: preprocessor {name} takes rng or sequence_length, so "
            "CacheDatasetPlaceholder has to stand before it"
        )
    return steps[:border], steps[border:]


def _step_name(step: Callable) -> str:
    while isinstance(step, functools.partial):
        step = step.func
    return getattr(step, "__name__", type(step).__name__)


@dataclasses.dataclass(frozen=True)
class TaskShards:
    """Shard number -> cacheable examples: those of the raw examples number, number + count, ...

    Attributes:
      name: of a registered task.
      module: imported first in each process, to register it.
      split: of the task's source.
      num_shards: into how many shards the split is divided.
    """

    name: str
    module: str | None
    split: str
    num_shards: int

    def __call__(self, number: int) -> Iterator[dict]:
        if self.module:
            importlib.import_module(self.module)
        task = TaskRegistry.get(self.name)
        done, rest = split_steps(task)
        sequence = task.sequence(self.split)
        chain = PreprocessorChain(done, task.output_features, None, seed=0)
        for index in range(number, len(sequence), self.num_shards):
            for example in chain(sequence[index], 0, index):
                if not rest:
                    example = validate_features(example, task.output_features, task.name)
                yield example


def cache_task(
    name: str,
    folder: str | os.PathLike,
    split: str,
    num_shards: int = 16,
    module: str | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Write the cacheable examples of a task to `<folder>/<name>/`.

    Args:
      name: of a registered task.
      folder: a cache folder.
      split: of the task.
      num_shards: files.
      module: imported to register the task, here and in every process that helps.
      **options: further arguments of `write_dataset`.

    Returns:
      What `t5x.data.prepared.read_info` does.

    Raises:
      ValueError: unknown task or split, or steps that cannot be cached.
    """
    if module:
        importlib.import_module(module)
    task = TaskRegistry.get(name)
    task.sequence(split)
    steps = [_step_name(step) for step in split_steps(task)[0]]
    return write_dataset(
        TaskShards(name, module, split, num_shards),
        Path(folder) / name,
        split,
        num_shards,
        extra_info={"task": name, "preprocessors": steps},
        **options,
    )


def cached_task(task: Task, split: str) -> Task | None:
    """The same task, reading a split from its cache; None when no cache folder has it.

    Raises:
      ValueError: the cache is not whole, or was written with other preprocessors.
    """
    for folder in cache_dirs():
        info = read_info(folder / task.name, split)
        if info is None:
            continue
        done, rest = split_steps(task)
        steps = [_step_name(step) for step in done]
        if info.get("preprocessors") != steps:
            raise ValueError(
                f"{folder / task.name}: the cache of split {split!r} was made by the "
                f"preprocessors {info.get('preprocessors')}, the task has {steps}; remove the "
                "folder and cache the task again"
            )
        source = ArrayRecordSource({split: folder / task.name / f"{split}-*.array_record"})
        return Task(
            task.name, source, rest, task.output_features, task.metric_fns, task.postprocess_fn
        )
    return None


def use_caches(tasks: Sequence[Task], split: str) -> list[Task]:
    """Each task, reading its cache if it has one.

    Raises:
      ValueError: a task that has no cache needs one (`CacheDatasetPlaceholder(required=True)`).
    """
    found = []
    for task in tasks:
        cached = cached_task(task, split)
        if cached is None:
            check_not_required(task, split)
            logging.getLogger(__name__).info(
                "task %r, split %r has no cache in %s; its preprocessing is done while reading",
                task.name,
                split,
                [str(folder) for folder in cache_dirs()],
            )
        found.append(cached or task)
    return found


def read_by(tasks: Sequence[Task], split: str, use_cached: bool) -> list[Task]:
    """The tasks as they are read: from their caches if they are to be used and exist.

    Raises:
      ValueError: a task may only be read from a cache, and is not.
    """
    if use_cached:
        return use_caches(tasks, split)
    for task in tasks:
        check_not_required(task, split)
    return list(tasks)


def check_not_required(task: Task, split: str) -> None:
    """Raise ValueError for a task that may only be read from a cache."""
    steps = task.preprocessors
    if any(isinstance(step, CacheDatasetPlaceholder) and step.required for step in steps):
        raise ValueError(
            f"task {task.name!r} is only read from a cache, and split {split!r} has none in "
            f"{[str(folder) for folder in cache_dirs()]}: musax prepare task "
            f"{task.name} --split {split} -o FOLDER, then use_cached=True and "
            f"{_ENVIRONMENT}=FOLDER"
        )


def mixing_rate_num_examples(
    task: Task,
    maximum: int | None = None,
    scale: float = 1.0,
    temperature: float = 1.0,
    split: str = "train",
) -> float:
    """min(scale * number of examples, maximum) ** (1 / temperature), as seqio's.

    Counted are the cached examples of a task that has a cache, else its input examples.
    """
    rate = (cached_task(task, split) or task).num_input_examples(split) * scale
    if maximum:
        rate = min(rate, maximum)
    return rate ** (1.0 / temperature)
