"""Finds the reference vectors: those of `$MUSAX_GOLDEN/<system>` before `tests/golden/<system>`."""

import functools
import os
import tempfile
from pathlib import Path

_OWN = Path(__file__).parent / "golden"


@functools.cache
def golden_dir(system: str) -> Path:
    """Folder with the vectors of `system`, for example `golden_dir("mt3")`.

    A set that `MUSAX_GOLDEN` names stands before the project's own, file by file: what it does not
    have comes from `tests/golden`.
    """
    root = os.environ.get("MUSAX_GOLDEN")
    if not root:
        return _OWN / system
    folder = Path(root).resolve() / system
    if not Path(root).is_dir():
        raise FileNotFoundError(f"MUSAX_GOLDEN={root}: no such folder")
    merged = tempfile.TemporaryDirectory(prefix=f"musax-golden-{system}-")
    _folders.append(merged)  # removed at exit
    for source in (folder, _OWN / system):
        for path in sorted(source.iterdir()) if source.is_dir() else ():
            link = Path(merged.name) / path.name
            if not link.exists():
                link.symlink_to(path)
    return Path(merged.name)


_folders: list[tempfile.TemporaryDirectory] = []
