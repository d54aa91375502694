"""Read parameters and states whatever their format, and check that they fit a model."""

import difflib
from collections.abc import Callable, Container, Iterable, Mapping
from pathlib import Path
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from t5x.checkpoints.errors import CheckpointError
from t5x.checkpoints.folders import (
    all_checkpoints,
    checkpoint_step,
    get_checkpoint_step,
    orbax_state,
    read_state,
)
from t5x.checkpoints.integrity import continue_before, damaged, reading, whole_before
from t5x.checkpoints.legacy import is_legacy_checkpoint
from t5x.checkpoints.locks import kept
from t5x.checkpoints.safetensors import load_safetensors
from t5x.checkpoints.transformations import transform_restored
from t5x.files import check_local
from t5x.user_paths import user_path

Tree = Any
_MAX_LISTED = 20

__all__ = [
    "CheckpointError",
    "all_checkpoints",
    "check_finite",
    "check_local_checkpoint",
    "check_params",
    "check_tree",
    "checkpoint_kind",
    "checkpoint_step",
    "find_checkpoint",
    "get_checkpoint_step",
    "latest_checkpoint",
    "load_params",
    "load_state",
    "load_t5x_checkpoint",
    "place",
    "run_checkpoint",
]


def checkpoint_kind(path: str | Path) -> str:
    """Which format `path` is: "legacy", "orbax" or "safetensors".

    Raises:
      CheckpointError: none of them; the message says what was looked for.
    """
    check_local_checkpoint(path)
    path = Path(path)
    if path.is_file() and path.suffix == ".safetensors":
        return "safetensors"
    if is_legacy_checkpoint(path):
        return "legacy"
    if orbax_state(path) is not None:
        return "orbax"
    if path.is_dir() and (whole_before(path) or any(path.glob("*/commit_success.txt"))):
        raise damaged(path, "neither a file `checkpoint` nor a whole folder `state` in it")
    raise CheckpointError(
        f"{path}: no checkpoint here. Expected a `.safetensors` file, or a checkpoint_<step> "
        "folder with a file `checkpoint` (T5X) or a folder `state` (Orbax)"
        + ("." if path.exists() else "; this path does not exist.")
    )


def check_local_checkpoint(path: str | Path) -> None:
    """Raise CheckpointError for an address such as gs://bucket/run; says how to copy it."""
    try:
        check_local(path, "checkpoint")
    except ValueError as error:
        raise CheckpointError(str(error)) from error


def latest_checkpoint(folder: str | Path) -> Path | None:
    """The `checkpoint_<step>` folder with the highest step in `folder`, or None."""
    return max(all_checkpoints(folder), key=checkpoint_step, default=None)


def run_checkpoint(run_dir: str | Path, step: int | None = None) -> Path:
    """The checkpoint of a run at `step`, or its last.

    Raises:
      FileNotFoundError: the run has no such checkpoint.
    """
    check_local_checkpoint(run_dir)
    found = {checkpoint_step(path): path for path in all_checkpoints(run_dir)}
    chosen = max(found, default=None) if step is None else step
    if chosen not in found:
        asked = "checkpoint" if step is None else f"checkpoint of step {step}"
        raise FileNotFoundError(f"{run_dir}: no {asked}; there are {sorted(found)}")
    return found[chosen]


def find_checkpoint(path: str | Path) -> Path:
    """A run folder stands for its latest checkpoint, a model folder for its safetensors file."""
    check_local_checkpoint(path)
    path = user_path(path)
    if path.is_dir() and not is_legacy_checkpoint(path) and orbax_state(path) is None:
        if (path / "model.safetensors").is_file():
            return path / "model.safetensors"
        return latest_checkpoint(path) or path
    return path


def load_params(path: str | Path) -> Tree:
    """Read a model's parameters.

    Args:
      path: a `.safetensors` file, a `checkpoint_<step>` folder of T5X or Orbax, or a folder with
        `model.safetensors` or with such checkpoints, of which the latest is taken.

    Returns:
      Nested dicts of numpy arrays, with the stored dtypes.

    Raises:
      CheckpointError: there is no checkpoint, or it is damaged; the message names the file.
    """
    path = find_checkpoint(path)
    kind = checkpoint_kind(path)
    if kind == "safetensors":
        return load_safetensors(path)[0]
    tree = load_state(path, "target")
    if "target" not in tree:
        raise CheckpointError(f"{path}: holds no `target`, so no parameters: {sorted(tree)}.")
    return tree["target"]


def load_state(path: str | Path, subtree: str = "") -> dict[str, Tree]:
    """Read a whole training state, or its `subtree`, as nested dicts of numpy arrays.

    Raises:
      CheckpointError: as `load_params`; also for safetensors, which hold parameters only, unless
        `subtree` is "target".
    """
    path = find_checkpoint(path)
    kind = checkpoint_kind(path)
    if kind == "safetensors":
        if subtree != "target":
            raise CheckpointError(f"{path}: a .safetensors file holds parameters only.")
        return {"target": load_safetensors(path)[0]}
    if kind == "legacy":
        try:
            with kept(path):
                return read_state(path, subtree)
        except CheckpointError as error:
            raise CheckpointError(f"{error} {continue_before(path)}".strip()) from error
    part = (orbax_state(path) or path).relative_to(path).name
    with reading(path, part):
        return read_state(path, subtree)


def load_t5x_checkpoint(
    path: str | Path,
    step: int | None = None,
    state_transformation_fns: Iterable[Callable[..., Tree]] = (),
    remap: bool = True,
    lazy_parameters: bool = False,
) -> dict[str, Tree]:
    """Read a whole training state of any format, as `load_state`, with upstream's arguments.

    Args:
      path: a `checkpoint_<step>` folder, or the folder of a run.
      step: which checkpoint of the run; None reads the latest.
      state_transformation_fns: applied in order to what was read, see
        `t5x.checkpoints.RestoreStateTransformationFn`.
      remap: accepted for upstream's callers; there are no older names to map.
      lazy_parameters: must be False.

    Returns:
      {"target": parameters, "state": {"step", "param_states"}[, "flax_mutables"]}, nested dicts of
      numpy arrays.

    Raises:
      CheckpointError: no checkpoint, or a damaged one.
      FileNotFoundError: the run has no checkpoint of `step`.
      ValueError: `lazy_parameters`.
    """
    del remap
    if lazy_parameters:
        raise ValueError(
            "load_t5x_checkpoint: lazy_parameters=True is not supported; to read a part of a "
            "checkpoint call load_state(path, subtree), such as load_state(path, 'target')."
        )
    state = load_state(path if step is None else run_checkpoint(path, step))
    return transform_restored(state, state_transformation_fns, state, is_resuming=False)


def place(state: Tree, expected: Tree) -> Tree:
    """Put arrays on their devices in the model's dtypes; `state` may be part of `expected`."""

    def place(path: Any, x: Any) -> Any:
        struct = expected
        for key in path:
            struct = struct[key.key]
        array = np.asarray(x).astype(struct.dtype)
        return jax.make_array_from_callback(struct.shape, struct.sharding, lambda i: array[i])

    return jax.tree_util.tree_map_with_path(place, state)


def check_params(params: Tree, expected: Tree, source: str | Path = "checkpoint") -> None:
    """Check that `params` has exactly the names and shapes of `expected` (arrays or structs).

    Raises:
      CheckpointError: lists what is missing, unknown, or of another shape.
    """
    check_tree(params, expected, source)


def check_finite(params: Tree, source: str | Path = "checkpoint") -> None:
    """Check that no parameter is NaN or infinite.

    Args:
      params: nested or flat dicts of arrays, on the host or on devices.
      source: the file, for messages.

    Raises:
      CheckpointError: names the first such array, and says how many there are.
    """
    flat: dict[str, Any] = flax.traverse_util.flatten_dict(dict(params), sep="/")
    broken = [name for name, x in flat.items() if not _finite(x)]
    if broken:
        raise CheckpointError(
            f"{source}: {len(broken)} of {len(flat)} arrays hold NaN or infinite numbers, such as "
            f"{broken[0]}: the training run diverged before this was saved, or the file is "
            "damaged. Take an earlier checkpoint, or copy the file again."
        )


def _finite(array: Any) -> bool:
    """Whether all numbers are finite, of a device array in several processes those held here."""
    shards = getattr(array, "addressable_shards", None)
    parts = [array] if shards is None else [s.data for s in shards if s.replica_id == 0]
    numbers = map(np.asarray, parts)
    return all(bool(np.isfinite(x).all()) for x in numbers if jnp.issubdtype(x.dtype, jnp.inexact))


def check_tree(found: Tree, expected: Tree, source: str | Path) -> None:
    """As `check_params`, for any nested dicts or flat dicts with '/'-joined names."""
    have, want = _shapes(found), _shapes(expected)
    unknown = sorted(have.keys() - want.keys())
    missing, other_shape = {}, {}
    for name in sorted(want.keys() - have.keys()):
        close = difflib.get_close_matches(name, unknown, n=1, cutoff=0.8)
        hint = f" (it has {close[0]})" if close else ""
        missing[name] = f"missing: {name} {want[name]}{hint}"
    for name in sorted(have.keys() & want.keys()):
        if have[name] != want[name]:
            text = f"shape: {name} is {have[name]}, the model expects {want[name]}"
            other_shape[name] = text
    extra = {name: f"unknown to the model: {name} {have[name]}" for name in unknown}
    problems = {**missing, **extra, **other_shape}
    if problems:
        follow = _follow_from_parameters(problems)
        lines = [line for kind in (missing, extra, other_shape) for line in _listed(kind, follow)]
        if follow:
            lines.append(f"and {len(follow)} arrays of the optimizer's state for these parameters")
        raise CheckpointError(
            f"{source} does not fit the model:\n  " + "\n  ".join(lines), problems
        )


def _follow_from_parameters(problems: Iterable[str]) -> set[str]:
    """Names in the optimizer's state that belong to parameters which are problems themselves."""
    parameters = [n.removeprefix("target/") for n in problems if n.startswith("target/")]
    states = [name for name in problems if name.startswith("state/")]
    return {name for name in states if any(f"/{p}/" in f"{name}/" for p in parameters)}


def _listed(problems: Mapping[str, str], left_out: Container[str]) -> list[str]:
    lines = [line for name, line in problems.items() if name not in left_out]
    if len(lines) <= _MAX_LISTED:
        return lines
    return [*lines[:_MAX_LISTED], f"... and {len(lines) - _MAX_LISTED} more like it"]


def _shapes(tree: Tree) -> dict[str, tuple[int, ...]]:
    flat: dict[str, Any] = flax.traverse_util.flatten_dict(dict(tree), sep="/") if tree else {}
    return {
        name: tuple(np.shape(leaf)) if not hasattr(leaf, "shape") else tuple(leaf.shape)
        for name, leaf in flat.items()
        if leaf is not None and not isinstance(leaf, Mapping)
    }
