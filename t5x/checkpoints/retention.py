"""Which checkpoints of a run are kept: the newest ones, or the best by a metric.

Gin names the policy, and its options, as upstream does:

    utils.SaveCheckpointConfig.checkpointer_cls = @checkpoints.SaveBestCheckpointer
    checkpoints.SaveBestCheckpointer:
      metric_name_to_monitor = 'training_eval/my_task/loss'
      metric_mode = 'min'
"""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from t5x.checkpoints.errors import CheckpointError
from t5x.loggers import read_metrics


@dataclasses.dataclass
class Checkpointer:
    """Keeps the newest checkpoints.

    Attributes:
      keep: how many; None keeps all.
      force_keep_period: checkpoints whose step it divides stay for ever.
      save_dtype, restore_dtype, keep_dataset_checkpoints, use_gda:
        of upstream. The dtypes are those of `SaveCheckpointConfig` and `RestoreCheckpointConfig`;
        the data position lies, and goes, with its checkpoint.
    """

    keep: int | None = None
    save_dtype: Any = None
    restore_dtype: Any = None
    keep_dataset_checkpoints: int | None = None
    use_gda: bool = True
    force_keep_period: int | None = None

    def __post_init__(self):
        if self.keep is not None and self.keep < 1:
            raise ValueError(f"{type(self).__name__}.keep is {self.keep}; use None to keep all.")
        if self.force_keep_period is not None and self.force_keep_period < 1:
            raise ValueError(
                f"{type(self).__name__}.force_keep_period is {self.force_keep_period}; "
                "it must be positive."
            )

    def superfluous(self, steps: Sequence[int], folder: Path) -> list[int]:
        """Those of the ascending `steps` of the run in `folder` that may be deleted."""
        del folder
        return [] if self.keep is None else self._mortal(steps[: -self.keep])

    def _mortal(self, steps: Sequence[int]) -> list[int]:
        period = self.force_keep_period
        return [step for step in steps if period is None or step % period]


@dataclasses.dataclass
class SaveBestCheckpointer(Checkpointer):
    """Keeps the best checkpoints by a metric of their step, and always the newest.

    Attributes:
      metric_name_to_monitor: folder and metric, such as "train/accuracy",
        "training_eval/<task>/loss" or "inference_eval/<task>/<metric>".
      metric_mode: "max" or "min", the better direction.
      keep_checkpoints_without_metrics: a checkpoint whose step was not measured stays.
    """

    metric_name_to_monitor: str = "train/accuracy"
    metric_mode: str = "max"
    keep_checkpoints_without_metrics: bool = True

    def __post_init__(self):
        super().__post_init__()
        if self.metric_mode not in ("min", "max"):
            raise ValueError(
                f"SaveBestCheckpointer.metric_mode is {self.metric_mode!r}; use 'min' or 'max'."
            )

    def superfluous(self, steps: Sequence[int], folder: Path) -> list[int]:
        """As in `Checkpointer`, by the metrics in the logs of the run.

        Raises:
          CheckpointError: nothing of that name was ever logged, though other metrics of it were.
        """
        if self.keep is None:
            return []
        values = metric_by_step(folder, self.metric_name_to_monitor)
        sign = 1 if self.metric_mode == "max" else -1
        measured = sorted((s for s in steps if s in values), key=lambda s: (sign * values[s], s))
        worst = measured[: max(0, len(measured) - self.keep)]
        unknown = [s for s in steps if s not in values]
        drop = worst if self.keep_checkpoints_without_metrics else worst + unknown
        return sorted(self._mortal([s for s in drop if s != steps[-1]]))


def metric_by_step(folder: Path, name: str) -> dict[int, float]:
    """step -> value of the metric `name`, "<folder of the log>/<metric>", in a run's logs.

    Empty when nothing has been logged there yet.

    Raises:
      CheckpointError: the log has no metric of that name; the message lists those it has.
    """
    parts = name.split("/")
    for cut in range(len(parts) - 1, 0, -1):
        path = folder.joinpath(*parts[:cut]) / "metrics.jsonl"
        if path.is_file():
            return _read_metric(path, "/".join(parts[cut:]))
    return {}


def _read_metric(path: Path, metric: str) -> dict[int, float]:
    lines = read_metrics(path)
    if lines and all(metric not in line for line in lines):
        known = sorted({k for line in lines for k in line} - {"step", "time"})
        raise CheckpointError(
            f"SaveBestCheckpointer: {path} has no metric {metric!r}, only {', '.join(known)}."
        )
    values = {line["step"]: line.get(metric) for line in lines}
    numbers = {step: v for step, v in values.items() if isinstance(v, int | float)}
    return {step: v for step, v in numbers.items() if math.isfinite(v)}
