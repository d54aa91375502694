"""What a training run made, for evaluation and export."""

from pathlib import Path
from typing import Any, NamedTuple

import flax.traverse_util

from cdcd import warping
from cdcd.contents import KINDS, Melody, Pieces
from cdcd.inference import Writer
from cdcd.melodies import melody_task
from cdcd.text import text_task
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
      step: of the checkpoint; 0 if it is not known.
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


def load_model(
    name_or_dir: str | Path, data: str, train_part: tuple[int, int] | None = None
) -> TrainedRun:
    """A shipped model, or a model folder, as the run that it was made of.

    Args:
      name_or_dir: see `cdcd.inference.Writer.from_pretrained`.
      data: DATA_DIR of configs/cdcd/melody.gin or letters.gin.
      train_part: TRAIN_PART there.

    Raises:
      ValueError, OSError: see `Writer.from_pretrained`, and when read, the tasks.
    """
    writer = Writer.from_pretrained(name_or_dir)
    length, contents = writer.config.length, writer.contents
    if isinstance(contents, Melody):
        task = melody_task(data, length, purpose="evaluate", train_part=train_part)
    else:
        kind = next(kind for kind, cls in KINDS.items() if isinstance(contents, cls))
        vocabulary = contents.model if isinstance(contents, Pieces) else kind
        task = text_task(data, length, vocabulary, purpose="evaluate", train_part=train_part)
    return TrainedRun(writer.model, writer.params, task, task, length, 0)


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
