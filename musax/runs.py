"""Training runs, read from disk with their data for evaluation and export."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from musax.trust import read_macros
from t5x.checkpoints.loading import check_finite, checkpoint_step, load_params, run_checkpoint


@dataclasses.dataclass(frozen=True)
class TrainedRun:
    """A trained model and its data.

    Attributes:
      model: the t5x model.
      params: of its network, nested dicts of arrays.
      train_task, evaluate_task: `t5x.data.tasks.Task`s, to train on and to evaluate on.
      length: tokens of a row in training.
      step: of the checkpoint; 0 if unknown.
      name: in tables.
      encoding: of music as tokens, see `musax.events.pieces`; None for other data.
    """

    model: Any
    params: Any
    train_task: Any
    evaluate_task: Any
    length: int
    step: int
    name: str = ""
    encoding: Any = None

    @property
    def num_parameters(self) -> int:
        """The number of parameters."""
        return sum(np.size(x) for x in jax.tree.leaves(self.params))


def load_trained_run(
    run_dir: str | Path,
    step: int | None = None,
    read_params: Callable[[str | Path], Any] = load_params,
) -> TrainedRun:
    """Read a run whose `config.gin` has MODEL, TRAIN_TASK, EVALUATE_TASK, TASK_FEATURE_LENGTHS.

    Args:
      run_dir: MODEL_DIR of the run.
      step: of the checkpoint; None takes the last.
      read_params: reads the parameters of a checkpoint.

    Raises:
      FileNotFoundError: no `config.gin`, or no such checkpoint.
      ValueError: the configuration lacks a macro.
      CheckpointError: the checkpoint is damaged, or its parameters are not finite.
    """
    checkpoint = run_checkpoint(run_dir, step)
    names = ("MODEL", "TRAIN_TASK", "EVALUATE_TASK", "TASK_FEATURE_LENGTHS")
    model, train_task, evaluate_task, lengths = read_macros(run_dir, *names)
    params = read_params(checkpoint)
    check_finite(params, checkpoint)
    found = checkpoint_step(checkpoint)
    return TrainedRun(
        model,
        params,
        train_task,
        evaluate_task,
        lengths["targets"],
        found,
        f"{Path(run_dir).resolve().name} ({found} steps)",
    )
