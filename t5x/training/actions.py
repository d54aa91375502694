"""What may end a run early, by its metrics: `train.actions = {'TRAIN_EVAL': [@...()]}`."""

import enum
import math
from collections.abc import Mapping, Sequence

Metrics = Mapping[str, Mapping[str, float]]


class ActionMode(enum.StrEnum):
    """When actions are asked: after a report of training, or after an evaluation."""

    TRAIN = "TRAIN"
    TRAIN_EVAL = "TRAIN_EVAL"
    INFER_EVAL = "INFER_EVAL"


MODES = tuple(mode.value for mode in ActionMode)


class BaseAction:
    """Decides after every evaluation of its mode whether the run ends.

    Attributes:
      saves: whether the state at which it ends the run is worth a checkpoint.
    """

    saves = True

    def run(self, step: int, metrics: Metrics) -> bool:
        """Whether to end. `metrics`: task -> metric name -> value ("train" for mode TRAIN)."""
        raise NotImplementedError


def _look_up(metrics: Metrics, task: str, name: str) -> float:
    try:
        return metrics[task][name]
    except KeyError:
        known = {t: sorted(values) for t, values in metrics.items()}
        raise ValueError(f"Action on metric {(task, name)}: only {known} are computed.") from None


class EarlyStoppingAction(BaseAction):
    """Ends the run when a metric has not improved `patience` times in a row.

    Args:
      metric: (task, metric name).
      mode: "min" or "max", the better direction.
      patience: evaluations without improvement before the end.
      atol, rtol: how much better than the best counts as an improvement.
    """

    def __init__(
        self,
        metric: Sequence[str],
        mode: str,
        patience: int = 3,
        atol: float = 0.0,
        rtol: float = 0.0,
    ):
        if mode not in ("min", "max"):
            raise ValueError(f"EarlyStoppingAction.mode is {mode!r}, expected 'min' or 'max'.")
        self._task, self._name = metric
        self._sign = 1 if mode == "min" else -1
        self._patience = patience
        self._tolerance = (atol, rtol)
        self._best = math.inf
        self._waited = 0

    def run(self, step: int, metrics: Metrics) -> bool:
        value = self._sign * _look_up(metrics, self._task, self._name)
        atol, rtol = self._tolerance
        margin = atol + (rtol * abs(self._best) if math.isfinite(self._best) else 0.0)
        improved = value < self._best - margin
        self._waited = 0 if improved else self._waited + 1
        self._best = min(value, self._best) if improved else self._best
        return self._waited >= self._patience


class TerminateOnNanAction(BaseAction):
    """Ends the run when a metric is NaN or infinite, without a checkpoint of that state.

    In mode TRAIN it looks before every checkpoint, so the latest one is from before.

    Args:
      task: "train" with mode TRAIN, else the evaluated task.
      metric: its name.
    """

    saves = False

    def __init__(self, task: str, metric: str = "loss"):
        self._task, self._name = task, metric

    def run(self, step: int, metrics: Metrics) -> bool:
        return not math.isfinite(_look_up(metrics, self._task, self._name))
