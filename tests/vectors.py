"""Finds the reference vectors: `tests/golden/<system>`, or `$MUSAX_GOLDEN/<system>` when set."""

import os
from pathlib import Path


def golden_dir(system: str) -> Path:
    """Folder with the vectors of `system`, for example `golden_dir("mt3")`."""
    root = os.environ.get("MUSAX_GOLDEN")
    folder = (Path(root) if root else Path(__file__).parent / "golden") / system
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no reference vectors here; MUSAX_GOLDEN={root!r}")
    return folder
