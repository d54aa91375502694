"""What a training run made, for evaluation and export."""

from pathlib import Path
from typing import Any, NamedTuple

import flax.traverse_util

from cdcd import warping
from t5x.checkpoints.loading import checkpoint_step, load_state, run_checkpoint
from t5x.run_config import read_macros


class TrainedRun(NamedTuple):
    """A run.

    Attributes:
      model: of `cdcd.models` or `cdcd.baselines`.
      params: of its network: the average if the run kept one, and the average of the curves of the
        time warp in place of the curves.
      train_task, evaluate_task: its data.
      length: of its rows.
      step: of the checkpoint.
    """

    model: Any
    params: Any
    train_task: Any
    evaluate_task: Any
    length: int
    step: int


def load_run(run_dir: str | Path, step: int | None = None) -> TrainedRun:
    """Reads a run that configs/cdcd configured.

    Args:
      run_dir: MODEL_DIR of the run.
      step: of the checkpoint; None takes the last.

    Raises:
      FileNotFoundError: there is no `config.gin`, or no such checkpoint.
      ValueError: the configuration lacks a macro.
    """
    checkpoint = run_checkpoint(run_dir, step)
    names = ("MODEL", "TRAIN_TASK", "EVALUATE_TASK", "TASK_FEATURE_LENGTHS")
    model, train_task, evaluate_task, lengths = read_macros(run_dir, *names)
    return TrainedRun(
        model,
        load_inference_params(checkpoint),
        train_task,
        evaluate_task,
        lengths["targets"],
        checkpoint_step(checkpoint),
    )


def load_inference_params(checkpoint: str | Path) -> Any:
    """The parameters of a checkpoint as `TrainedRun` has them."""
    state = load_state(checkpoint)
    params = state["target"]
    slots = state["state"]["param_states"]
    if isinstance(slots, dict) and "ema" in slots:
        params = slots["ema"]
    average = state.get("flax_mutables", {}).get(warping.AVERAGE)
    if average is not None:
        params = {**params, warping.PARAMS: dict(average)}
    return flax.traverse_util.unflatten_dict(flax.traverse_util.flatten_dict(dict(params)))
