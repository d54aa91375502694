"""Training runs of cdcd, for evaluation and export."""

from pathlib import Path
from typing import Any

import flax.traverse_util

from cdcd import warping
from cdcd.contents import KINDS, Melody, Pieces
from cdcd.inference import Writer
from cdcd.melodies import melody_task
from cdcd.text import text_task
from musax.runs import TrainedRun, load_trained_run
from t5x.checkpoints.loading import load_state


def load_run(run_dir: str | Path, step: int | None = None) -> TrainedRun:
    """Read a run that configs/cdcd configured; see `musax.runs.load_trained_run`.

    Its parameters are those of `load_inference_params`.
    """
    return load_trained_run(run_dir, step, load_inference_params)


def load_model(
    name_or_dir: str | Path, data: str, train_part: tuple[int, int] | None = None
) -> TrainedRun:
    """Return a shipped model, or a model folder, as the run that it was exported from.

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
    """Return the parameters of a checkpoint for inference.

    They are the average if the run kept one, with the average of the curves of the time warp in
    place of the curves.
    """
    state = load_state(checkpoint)
    params = state["target"]
    slots = state["state"]["param_states"]
    if isinstance(slots, dict) and "ema" in slots:
        params = slots["ema"]
    average = state.get("flax_mutables", {}).get(warping.AVERAGE)
    if average is not None:
        params = {**params, warping.PARAMS: dict(average)}
    return flax.traverse_util.unflatten_dict(flax.traverse_util.flatten_dict(dict(params)))
