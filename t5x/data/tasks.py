"""Tasks and mixtures, and the registries by which gin files and the command line name them."""

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from t5x.data.features import Feature
from t5x.data.sources import FunctionSource, Source, check_split
from t5x.moved import moved_names

__getattr__ = moved_names(__name__, {"mixing_rate_num_examples": "t5x.data.caching"})

Rate = float | int | Callable[["Task"], float]


class Task:
    """A dataset and what is done with it.

    Args:
      name: registered name.
      source: a `Source`, or a dict {split: sequence or function that makes it}.
      preprocessors: functions from an example to examples, see `t5x.data.preprocessors`.
      output_features: {name: Feature} that every preprocessed example has.
      metric_fns: functions `(targets, predictions[, aux_values])` or `(targets, scores)` that
        return {metric name: value}.
      postprocess_fn: `fn(value, example=..., is_target=bool)` applied to targets and to decoded
        predictions before the metrics.
    """

    def __init__(
        self,
        name: str,
        source: Source | Mapping[str, Any],
        preprocessors: Sequence[Callable] = (),
        output_features: Mapping[str, Feature] | None = None,
        metric_fns: Sequence[Callable] = (),
        postprocess_fn: Callable | None = None,
    ):
        self.name = name
        self.source: Source = FunctionSource(source) if isinstance(source, Mapping) else source
        self.preprocessors = tuple(preprocessors)
        self.output_features = dict(output_features or {})
        self.metric_fns = tuple(metric_fns)
        self.postprocess_fn = postprocess_fn

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self.source.splits)

    def sequence(self, split: str) -> Sequence[dict]:
        """Raw examples of a split. Raises ValueError when the task has no such split."""
        check_split(split, self.splits, f"task {self.name!r}")
        return self.source.sequence(split)

    def num_input_examples(self, split: str) -> int:
        return len(self.sequence(split))

    def postprocess(self, value, **kwargs):
        return self.postprocess_fn(value, **kwargs) if self.postprocess_fn else value

    def __repr__(self) -> str:
        return f"Task({self.name!r}, splits={list(self.splits)})"


class Mixture:
    """Several tasks sampled in proportion to their rates.

    Args:
      name: registered name.
      tasks: names of tasks or mixtures, or pairs (name, rate); a rate is a number or a function
        of the task.
      default_rate: rate of the names given without one.
    """

    def __init__(
        self,
        name: str,
        tasks: Sequence[str | tuple[str, Rate]],
        default_rate: Rate | None = None,
    ):
        self.name = name
        self._members: list[tuple[Task | Mixture, Rate]] = []
        for entry in tasks:
            member, rate = (entry, default_rate) if isinstance(entry, str) else entry
            if rate is None:
                raise ValueError(f"mixture {name!r}: no rate for {member!r} and no default_rate")
            self._members.append((get_mixture_or_task(member), rate))
        if not self._members:
            raise ValueError(f"mixture {name!r} has no tasks")
        self._check_features()

    def _check_features(self) -> None:
        """Ids of one model mean the same in every task."""
        first, *others = self.tasks
        for task in others:
            if set(task.output_features) != set(first.output_features):
                raise ValueError(
                    f"mixture {self.name!r}: task {task.name!r} has output features "
                    f"{sorted(task.output_features)}, but {first.name!r} has "
                    f"{sorted(first.output_features)}"
                )
            for name, feature in task.output_features.items():
                here, there = (
                    getattr(f, "vocabulary", None) for f in (feature, first.output_features[name])
                )
                if here != there:
                    raise ValueError(
                        f"mixture {self.name!r}: {name!r} of task {task.name!r} is written in "
                        f"{here!r}, but that of {first.name!r} in {there!r}; tasks of a mixture "
                        "share their vocabularies"
                    )

    @property
    def tasks(self) -> list[Task]:
        """The tasks below this mixture, each once, in order of first mention."""
        found: dict[str, Task] = {}
        for member, _ in self._members:
            for task in member.tasks if isinstance(member, Mixture) else [member]:
                found.setdefault(task.name, task)
        return list(found.values())

    @property
    def output_features(self) -> dict[str, Feature]:
        return self.tasks[0].output_features

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(split for task in self.tasks for split in task.splits))

    def rate(self, task: Task) -> float:
        """Rate of a task, summed over every way it is reached; inner mixtures are normalised."""
        total = 0.0
        for member, rate in self._members:
            if isinstance(member, Mixture):
                inner = member.rate(task)
                if inner:
                    total += _rate_value(rate, member, self.name) * inner / member.total_rate
            elif member.name == task.name:
                total += _rate_value(rate, member, self.name)
        return total

    @property
    def total_rate(self) -> float:
        return sum(self.rate(task) for task in self.tasks)

    def __repr__(self) -> str:
        return f"Mixture({self.name!r}, tasks={[task.name for task in self.tasks]})"


def _rate_value(rate: Rate, member, mixture_name: str) -> float:
    value = float(rate(member) if callable(rate) else rate)
    if not value > 0:
        raise ValueError(
            f"mixture {mixture_name!r}: the rate of {member.name!r} is {value}; "
            "rates must be positive"
        )
    return value


class _Registry:
    """Names to objects; unknown names are answered with the closest known ones."""

    kind: ClassVar[str]
    _entries: ClassVar[dict[str, Any]]

    @classmethod
    def names(cls) -> list[str]:
        return sorted(cls._entries)

    @classmethod
    def get(cls, name: str):
        """Raise ValueError for an unknown name, with «did you mean»."""
        if name not in cls._entries:
            raise ValueError(unknown_name(name, cls.kind, cls.names()))
        return cls._entries[name]

    @classmethod
    def remove(cls, name: str) -> None:
        cls._entries.pop(name, None)

    @classmethod
    def _put(cls, entry):
        if entry.name in TaskRegistry._entries or entry.name in MixtureRegistry._entries:
            raise ValueError(
                f"a task or mixture named {entry.name!r} exists already; choose another name "
                "or remove the first one"
            )
        cls._entries[entry.name] = entry
        return entry


class TaskRegistry(_Registry):
    kind = "task"
    _entries: ClassVar[dict[str, Any]] = {}

    @classmethod
    def add(cls, name: str | Task, *args, **kwargs) -> Task:
        """Register a task: `add(task)` or `add(name, source=..., ...)` as `Task`."""
        return cls._put(name if isinstance(name, Task) else Task(name, *args, **kwargs))


class MixtureRegistry(_Registry):
    kind = "mixture"
    _entries: ClassVar[dict[str, Any]] = {}

    @classmethod
    def add(cls, name: str | Mixture, *args, **kwargs) -> Mixture:
        """Register a mixture: `add(mixture)` or `add(name, tasks=..., default_rate=...)`."""
        return cls._put(name if isinstance(name, Mixture) else Mixture(name, *args, **kwargs))


def unknown_name(name: str, kind: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(map(repr, close))}?" if close else f"known: {list(known)}"
    if not known:
        hint = "none is registered; import the module that registers it (DatasetConfig.module)"
    return f"unknown {kind} {name!r}; {hint}"


def get_mixture_or_task(name: str | Task | Mixture) -> Task | Mixture:
    """The registered task or mixture of a name. Raises ValueError with «did you mean»."""
    if isinstance(name, Task | Mixture):
        return name
    if not isinstance(name, str):
        raise ValueError(f"expected a Task, a Mixture or a name, got {type(name).__name__}")
    for registry in (TaskRegistry, MixtureRegistry):
        if name in registry._entries:
            return registry._entries[name]
    known = TaskRegistry.names() + MixtureRegistry.names()
    raise ValueError(unknown_name(name, "task or mixture", known))
