"""The `checkpoint_<step>` folders of a run, and how one of them is read, damaged or not."""

import re
from pathlib import Path
from typing import Any

import numpy as np

from t5x.checkpoints.legacy import is_legacy_checkpoint, read_legacy_checkpoint
from t5x.checkpoints.orbax_arrays import check_links, check_name, open_arrays
from t5x.checkpoints.sizes import Budget

Tree = Any
_STEP_FOLDER = re.compile(r"checkpoint_(\d+)")


def all_checkpoints(folder: str | Path) -> list[Path]:
    """Whole `checkpoint_<step>` folders in `folder`, by step."""
    folder = Path(folder)
    found = folder.iterdir() if folder.is_dir() else ()
    steps = [p for p in found if p.is_dir() and _STEP_FOLDER.fullmatch(p.name)]
    return sorted(steps, key=checkpoint_step)


def get_checkpoint_step(ckpt_dir: str | Path) -> int | None:
    """Return the step in the name of a `checkpoint_<step>` folder; None for other names."""
    match = _STEP_FOLDER.fullmatch(Path(ckpt_dir).name)
    return int(match.group(1)) if match else None


def checkpoint_step(path: str | Path) -> int:
    """Return the step in the name of a `checkpoint_<step>` folder; 0 for other names."""
    return get_checkpoint_step(path) or 0


def orbax_state(path: Path) -> Path | None:
    """The folder of an Orbax pytree in checkpoint `path`."""
    for folder in (path / "state", path / "default", path):
        if (folder / "_METADATA").is_file() or (folder / "manifest.ocdbt").is_file():
            return folder
    return None


def read_state(path: Path, subtree: str = "") -> dict[str, Tree]:
    """Read a checkpoint folder of T5X or Orbax as it is, whatever is raised on the way."""
    if is_legacy_checkpoint(path):
        return read_legacy_checkpoint(path, subtree)
    return _read_orbax(orbax_state(path) or path, subtree)


def _check_orbax(folder: Path, tree: Any) -> None:
    """Raise CheckpointError for arrays that the disk cannot hold, and links out of the folder."""
    import jax

    check_links(folder)
    budget = Budget(folder)
    for keys, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = jax.tree_util.keystr(keys, simple=True, separator="/")
        check_name(name, folder)
        if getattr(leaf, "shape", None) is not None and getattr(leaf, "dtype", None) is not None:
            budget.take(leaf.shape, np.dtype(leaf.dtype), f"{folder}: array {name}")


def _read_orbax(folder: Path, subtree: str) -> dict[str, Tree]:
    stored = open_arrays(folder)
    return _read_through_orbax(folder, subtree) if stored is None else stored.read(subtree)


def _read_through_orbax(folder: Path, subtree: str) -> dict[str, Tree]:
    import jax
    import orbax.checkpoint as ocp
    from etils import epath

    directory = epath.Path(folder.absolute())
    handler = ocp.PyTreeCheckpointHandler(use_ocdbt=True)
    metadata = handler.metadata(directory)
    tree: Any = getattr(metadata, "tree", metadata)
    _check_orbax(folder, tree)
    if subtree:
        tree = {k: v for k, v in tree.items() if k == subtree}
    arrays = jax.tree.map(lambda leaf: ocp.RestoreArgs(restore_type=np.ndarray), tree)
    item = jax.tree.map(lambda leaf: 0, tree)
    args = ocp.args.PyTreeRestore(item=item, restore_args=arrays, partial_restore=True)
    return handler.restore(directory, args=args)
