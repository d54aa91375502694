"""Checkpoint folders under upstream's names; the functions are those of `t5x.checkpoints`."""

import enum
import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from t5x.checkpoints.loading import checkpoint_kind, get_checkpoint_step
from t5x.checkpoints.steps import (
    PIN_NAME,
    get_checkpoint_dir,
    is_pinned_checkpoint,
    pin_checkpoint,
    unpin_checkpoint,
)
from t5x.unsupported import unsupported_names

if not TYPE_CHECKING:  # type checkers still report names that do not exist
    __getattr__ = unsupported_names(__name__)

__all__ = [
    "CheckpointTypes",
    "always_keep_checkpoint_file",
    "detect_checkpoint_type",
    "get_checkpoint_dir",
    "get_checkpoint_step",
    "is_pinned_checkpoint",
    "pin_checkpoint",
    "remove_checkpoint_dir",
    "unpin_checkpoint",
]

_log = logging.getLogger(__name__)


class CheckpointTypes(enum.Enum):
    """Format of a checkpoint."""

    ORBAX = "orbax"
    T5X = "legacy"
    SAFETENSORS = "safetensors"


def detect_checkpoint_type(
    checkpoint_path: str | Path, expected: CheckpointTypes | None = None
) -> CheckpointTypes:
    """Return the format of a checkpoint; a format other than `expected` is logged.

    Raises:
      CheckpointError: no checkpoint at `checkpoint_path`.
    """
    found = CheckpointTypes(checkpoint_kind(checkpoint_path))
    if expected is not None and found is not expected:
        _log.warning("%s: expected a checkpoint of %s, found %s", checkpoint_path, expected, found)
    return found


def always_keep_checkpoint_file(checkpoint: str | Path) -> str:
    """Return the path of the file that pins a checkpoint."""
    return str(Path(checkpoint) / PIN_NAME)


def remove_checkpoint_dir(ckpt_dir: str | Path) -> None:
    """Delete a checkpoint folder, unless it is pinned."""
    if is_pinned_checkpoint(ckpt_dir):
        _log.warning("%s is pinned (%s) and stays", ckpt_dir, PIN_NAME)
        return
    shutil.rmtree(ckpt_dir)
