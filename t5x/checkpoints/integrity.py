"""Damaged and half-copied checkpoints: found before they are used, and told with the way out.

    checkpoint_<step>/files.json          {"state/d/0fb…": [bytes, CRC-32], …}, written with it
                     /commit_success.txt  Orbax's mark of a whole checkpoint, in each part too

Orbax checks its indexes but not the arrays, so that a flipped bit in a weight is found by the list
of files alone. Checkpoints without one (of earlier versions, of T5X) are judged by whether they can
be read.
"""

import contextlib
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from t5x.checkpoints.errors import CheckpointError
from t5x.checkpoints.folders import all_checkpoints, checkpoint_step, read_state
from t5x.checkpoints.locks import kept
from t5x.files import write_json

FILES_NAME = "files.json"
_COMMIT_NAME = "commit_success.txt"
_BLOCK = 1 << 20


def write_file_list(folder: Path) -> None:
    """Write the list of the files in the parts (folders) of a checkpoint that is complete."""
    files = {name: [path.stat().st_size, _crc(path)] for name, path in _files(folder).items()}
    write_json(folder / FILES_NAME, files)


def find_damage(
    folder: Path, part: str = "", share: tuple[int, int] = (0, 1)
) -> tuple[str | None, bool]:
    """Look for files of a checkpoint that are missing or changed.

    Args:
      folder: `checkpoint_<step>`.
      part: look in this folder of it alone.
      share: (i, n) reads every n-th file from the i-th on; the sizes of all are compared.

    Returns:
      (what is wrong first, or None; whether there was a list to judge by).
    """
    if not (folder / FILES_NAME).is_file():
        return _without_commit(folder, part), False
    try:
        wanted = json.loads((folder / FILES_NAME).read_text(encoding="utf-8"))
        wanted = {str(name): (int(size), int(crc)) for name, (size, crc) in wanted.items()}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return f"{FILES_NAME} is not a list of files", True
    found = _files(folder, part)
    names = sorted(name for name in wanted if name.startswith(f"{part}/" if part else ""))
    for name in names:
        if name not in found:
            return f"{name} is missing", True
        size = found[name].stat().st_size
        if size != wanted[name][0]:
            return f"{name} has {size} bytes, expected {wanted[name][0]}", True
    for name in names[share[0] :: share[1]]:
        if _crc(found[name]) != wanted[name][1]:
            return f"{name} has other content than was written", True
    return None, True


def _without_commit(folder: Path, part: str) -> str | None:
    """The mark that is missing, if the checkpoint has others."""
    parts = [part] if part else [p.name for p in folder.iterdir() if p.is_dir()]
    marks = ["", *parts] if folder.is_dir() else []
    present = [(folder / name / _COMMIT_NAME).is_file() for name in marks]
    if not any(present) or all(present):
        return None
    missing = Path(marks[present.index(False)]) / _COMMIT_NAME
    return f"{missing} is missing"


def _files(folder: Path, part: str = "") -> dict[str, Path]:
    """Name from `folder` on -> path, of all files in its folders; links are files by their target.

    Only what is found on the disk is ever opened, whatever a list says.
    """
    parts = [folder / part] if part else [path for path in folder.iterdir() if path.is_dir()]
    paths = (path for part in parts for path in part.rglob("*"))
    return {path.relative_to(folder).as_posix(): path for path in paths if path.is_file()}


def _crc(path: Path) -> int:
    crc = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            crc = zlib.crc32(block, crc)
    return crc


@contextlib.contextmanager
def reading(folder: Path, part: str = "", share: tuple[int, int] = (0, 1)) -> Iterator[None]:
    """Look for damage first, and tell what goes wrong inside as a `CheckpointError`.

    A run that is training meanwhile does not delete the checkpoint. Arguments as of `find_damage`.
    """
    listed = False
    try:
        with kept(folder):
            why, listed = find_damage(folder, part, share)
            if why is not None:
                raise damaged(folder, why)
            yield
    except CheckpointError:
        raise
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        why = f"{part}: {_one_line(error)}" if part else _one_line(error)
        if listed:  # and nothing was wrong
            raise CheckpointError(f"{folder}: cannot be read ({why}).") from error
        raise damaged(folder, why) from error


def _one_line(error: Any) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:200] + "…"


def damaged(folder: Path, why: str) -> CheckpointError:
    """Return the error of a damaged checkpoint, which names the last whole one before it."""
    remedy = continue_before(folder) or (
        "No checkpoint before it is whole: copy it again from where it came."
    )
    return CheckpointError(f"{folder}: damaged or incomplete ({why}). {remedy}")


def continue_before(folder: Path) -> str:
    """Say how to continue from the last whole checkpoint before `folder`; "" without one."""
    earlier = whole_before(folder)
    if earlier is None:
        return ""
    return (
        f"{earlier.name} before it is whole: to continue from that one, move {folder.name} out "
        f"of {folder.parent} and run the same again (or name {earlier})."
    )


def whole_before(folder: Path) -> Path | None:
    """Return the checkpoint of the highest step below that of `folder` which is whole, if any."""
    step = checkpoint_step(folder)
    before = [path for path in all_checkpoints(folder.parent) if checkpoint_step(path) < step]
    return next((path for path in reversed(before) if _is_whole(path)), None)


def _is_whole(folder: Path) -> bool:
    """Whether nothing is damaged; a checkpoint without a list is read as a trial."""
    try:
        why, listed = find_damage(folder)
        if why is None and not listed:
            read_state(folder)
            for file in folder.glob("*/metadata"):  # the parts in JSON
                json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return False
    return why is None
