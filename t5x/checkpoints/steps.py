"""Checkpoint folders of a run by step, and pins that keep a checkpoint from being deleted.

MODEL_DIR/checkpoint_<step>/         one checkpoint
                           /PINNED   the retention policy leaves this checkpoint alone
"""

import contextlib
from pathlib import Path

from t5x.checkpoints.loading import all_checkpoints, checkpoint_step
from t5x.files import write_text

#: Name of the file that pins a checkpoint.
PIN_NAME = "PINNED"


def all_steps(checkpoints_dir: str | Path) -> list[int]:
    """Return the steps of the whole checkpoints in a run's folder, ascending."""
    return [checkpoint_step(path) for path in all_checkpoints(checkpoints_dir)]


def latest_step(checkpoints_dir: str | Path) -> int | None:
    """Return the highest step with a whole checkpoint in a run's folder, or None."""
    return max(all_steps(checkpoints_dir), default=None)


def get_checkpoint_dir(
    checkpoints_dir: str | Path, step: int, step_format_fixed_length: int | None = None
) -> str:
    """Return the folder of checkpoint `step`, existing or not.

    Args:
      checkpoints_dir: the run's folder, MODEL_DIR.
      step: the training step.
      step_format_fixed_length: number of digits, filled with zeros; None writes only those needed.
    """
    digits = str(step).zfill(step_format_fixed_length or 0)
    return str(Path(checkpoints_dir) / f"checkpoint_{digits}")


def pin_checkpoint(ckpt_dir: str | Path, txt: str = "1") -> None:
    """Keep a checkpoint from being deleted by the run that wrote it.

    Args:
      ckpt_dir: an existing `checkpoint_<step>` folder.
      txt: content of the pin, such as a reason.

    Raises:
      FileNotFoundError: no such folder.
    """
    if not Path(ckpt_dir).is_dir():
        raise FileNotFoundError(f"{ckpt_dir}: no such checkpoint folder to pin.")
    write_text(Path(ckpt_dir) / PIN_NAME, txt)


def unpin_checkpoint(ckpt_dir: str | Path) -> None:
    """Remove the pin of a checkpoint, if it has one."""
    with contextlib.suppress(FileNotFoundError):
        (Path(ckpt_dir) / PIN_NAME).unlink()


def is_pinned_checkpoint(ckpt_dir: str | Path) -> bool:
    """Return whether a checkpoint is pinned."""
    return (Path(ckpt_dir) / PIN_NAME).is_file()
