"""Tasks of seqio as tasks here, for evaluation: every example is made by seqio, and kept."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from t5x.data.features import Feature
from t5x.data.sources import check_split
from t5x.data.tasks import Task


def as_feature(feature: Any) -> Feature:
    """A feature of seqio as one of `t5x.data`."""
    if isinstance(feature, Feature):
        return feature
    dtype = getattr(feature.dtype, "as_numpy_dtype", feature.dtype)
    return Feature(
        feature.vocabulary, feature.add_eos, feature.required, np.dtype(dtype).type, feature.rank
    )


def evaluation_tasks(
    provider: Any, sequence_length: Mapping[str, Any] | None, seed: int | None, use_cached: bool
) -> list[Task]:
    """The tasks of a seqio task or mixture, their preprocessing done by seqio.

    Args:
      provider: the `seqio.Task` or `seqio.Mixture`.
      sequence_length: {feature: length} for the preprocessors and for trimming.
      seed: of the preprocessors.
      use_cached: read seqio's cache.
    """
    import seqio

    return [
        Task(
            task.name,
            _SeqioExamples(task, sequence_length, seed, use_cached),
            output_features={n: as_feature(f) for n, f in task.output_features.items()},
            metric_fns=[
                *task.predict_metric_fns,
                *task.predict_with_aux_metric_fns,
                *task.score_metric_fns,
            ],
            postprocess_fn=task.postprocess_fn,
        )
        for task in seqio.get_subtasks(provider)
    ]


class _SeqioExamples:
    """A source of preprocessed examples."""

    def __init__(
        self, task: Any, lengths: Mapping[str, Any] | None, seed: int | None, use_cached: bool
    ):
        self._task = task
        self._options = {"sequence_length": lengths, "seed": seed, "use_cached": use_cached}

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self._task.splits)

    def sequence(self, split: str) -> Sequence[dict[str, Any]]:
        """All examples of the split."""
        check_split(split, self.splits, f"task {self._task.name!r}")
        dataset = self._task.get_dataset(split=split, shuffle=False, num_epochs=1, **self._options)
        return list(dataset.as_numpy_iterator())
