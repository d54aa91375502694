"""What a file of unknown origin may claim: no more than the disk holds, nothing outside its folder.

A header of a few bytes can declare an array of any size, and a few kilobytes can unpack to
gigabytes. So a size is compared with the bytes that lie on the disk before anything is allocated:
parameters hardly shrink when they are packed, and states of zeros are a part of a checkpoint.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from t5x.checkpoints.errors import CheckpointError

_MOST_UNPACKED = 64  # bytes of arrays for each byte on the disk, over a whole checkpoint
_ALWAYS_ALLOWED = 2**26
_MAX_RANK = 32


class Budget:
    """Bytes that the arrays of a file or folder may take together.

    Args:
      path: the file or folder.
    """

    def __init__(self, path: Path):
        self.on_disk = _bytes_on_disk(path)
        self.left = _ALWAYS_ALLOWED + _MOST_UNPACKED * self.on_disk

    def take(self, shape: Sequence[int], dtype: np.dtype, what: str) -> None:
        """Count an array, before it is allocated.

        Raises:
          CheckpointError: the arrays so far take more than the budget; `what` names this one.
        """
        self.left -= math.prod(shape) * dtype.itemsize
        if self.left < 0:
            raise CheckpointError(
                f"{what}: {tuple(shape)} of {dtype} is more than a checkpoint of {self.on_disk} "
                "bytes on the disk can hold; the file is damaged or made to exhaust memory."
            )


def _bytes_on_disk(path: Path) -> int:
    """Bytes that a file, or all in a folder, takes; holes of sparse files and links are none."""
    files = (f for f in path.rglob("*") if not f.is_symlink()) if path.is_dir() else [path]
    stats = (file.stat() for file in files if file.is_file())
    return sum(min(s.st_size, max(s.st_blocks * 512, 4096)) for s in stats)


def check_shape(value: Any, what: str, smallest: int = 0) -> tuple[int, ...]:
    """Return a list of sizes as a tuple.

    Raises:
      CheckpointError: no list of whole numbers from `smallest` on.
    """
    if (
        not isinstance(value, list | tuple)
        or len(value) > _MAX_RANK
        or not all(type(size) is int and smallest <= size < 2**48 for size in value)
    ):
        raise CheckpointError(
            f"{what}={_brief(value)}: expected a list of whole numbers of {smallest} or more."
        )
    return tuple(value)


def check_dtype(name: Any, what: str) -> np.dtype:
    """Return the type of numbers of a name, such as "<f4" or "bfloat16".

    Raises:
      CheckpointError: no type of numbers.
    """
    import ml_dtypes

    try:
        found = np.dtype(getattr(ml_dtypes, name, name) if isinstance(name, str) else name)
    except (TypeError, ValueError, SyntaxError) as error:
        raise CheckpointError(f"{what}={_brief(name)}: expected a type such as <f4.") from error
    of_ml_dtypes = found.isbuiltin == 2
    if not isinstance(name, str) or not (found.kind in "biufc" or of_ml_dtypes):
        raise CheckpointError(f"{what}={_brief(name)}: expected a type of numbers, such as <f4.")
    return found


def inside(folder: Path, path: Path, what: str) -> Path:
    """Return `path`, links followed.

    Raises:
      CheckpointError: it lies outside `folder`; `what` names the field that leads there.
    """
    try:
        found, root = path.resolve(), folder.resolve()
    except (OSError, ValueError, RuntimeError) as error:  # zero bytes, circles of links
        raise CheckpointError(f"{what}: {_brief(str(path))} is no path ({error}).") from error
    if not found.is_relative_to(root):
        raise CheckpointError(
            f"{what}: {_brief(str(path))} leads to {_brief(str(found))}, outside the checkpoint's "
            f"folder; what a checkpoint has lies within {root}."
        )
    return found


def read_bytes(path: Path, largest: int, what: str) -> bytes:
    """Return the content of a file.

    Raises:
      CheckpointError: no file, or one of more than `largest` bytes.
    """
    if not path.is_file():  # pipes and devices never end
        raise CheckpointError(f"{path}: {what} is missing.")
    size = path.stat().st_size
    if size > largest:
        raise CheckpointError(f"{path}: {what} has {size} bytes, expected at most {largest}.")
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: {what} cannot be read ({error.strerror}).") from error


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:80] + "…"
