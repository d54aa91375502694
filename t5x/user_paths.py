"""Paths as users write them; imports nothing that takes time."""

import os
from pathlib import Path


def user_path(path: str | os.PathLike[str]) -> Path:
    """Return a path as the user means it: `~` is the home folder, if it is not the name of a file.

    Where there is no such user, or no home folder, the path is left as it is.
    """
    if os.path.lexists(path):
        return Path(path)
    return Path(os.path.expanduser(path))
