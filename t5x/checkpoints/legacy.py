"""Read legacy T5X checkpoint folders, as the released MT3 and T5 weights are stored.

`checkpoint_<step>/checkpoint` is a flax msgpack file of
`{"version": 3, "optimizer": {"target": params, "state": {"step", "param_states"}}}`. A leaf is an
array, or a TensorStore spec of a zarr v2 array in a folder beside it, named by the leaf's path with
dots: `target.encoder.encoder_norm.scale/`. The spec's key-value store may be one that exists
no more (gs://, gfile); only its relative path counts. Chunks are gzip or zstd, as `.zarray` says.

No TensorFlow; TensorStore only for compressors other than gzip.
"""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import flax.serialization
import numpy as np

from t5x.checkpoints.errors import CheckpointError
from t5x.checkpoints.sizes import Budget, inside, read_bytes
from t5x.checkpoints.zarr import read_zarr

__all__ = ["is_legacy_checkpoint", "is_tensorstore_spec", "read_legacy_checkpoint", "read_zarr"]

Tree = Any
INDEX_NAME = "checkpoint"
MIN_VERSION = 2
_DEEPEST = 100


def is_legacy_checkpoint(folder: Path) -> bool:
    """Is `folder` a `checkpoint_<step>` folder of T5X's own format?"""
    return (folder / INDEX_NAME).is_file()


def read_legacy_checkpoint(folder: str | Path, subtree: str = "") -> dict[str, Tree]:
    """Read a checkpoint folder into nested dicts of numpy arrays.

    Args:
      folder: the `checkpoint_<step>` folder.
      subtree: read only below this path, such as "target" for the parameters; the others are left
        out of the result.

    Returns:
      {"target": params, "state": {"step", "param_states"}[, "flax_mutables"]}, dtypes as stored.

    Raises:
      CheckpointError: no checkpoint, an unknown version, or an array that is absent, damaged,
        larger than the disk holds, or outside `folder`; the message names it.
    """
    folder = Path(folder)
    index = folder / INDEX_NAME
    if not index.is_file():
        raise CheckpointError(f"{folder}: no file `{INDEX_NAME}` here, so no T5X checkpoint.")
    budget = Budget(folder)
    data = read_bytes(index, budget.on_disk, "the index")
    try:
        content = flax.serialization.msgpack_restore(data)
    except Exception as error:
        raise CheckpointError(f"{index}: not a readable msgpack file ({error}).") from error
    reader = _Reader(folder, budget, tuple(subtree.split("/")) if subtree else ())
    tree = reader.resolve(_optimizer_tree(content, index), ())
    if subtree == "target" and not isinstance(tree.get("target", {}), Mapping):
        raise CheckpointError(f"{index}: `target` is an array, expected a tree of parameters.")
    return tree


def _optimizer_tree(content: Any, index: Path) -> Mapping[str, Tree]:
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{index}: holds {type(content).__name__}, expected a tree.")
    version = content.get("version", 0)
    if not isinstance(version, int | np.integer):
        raise CheckpointError(f"{index}: version={version!r}: expected a whole number.")
    if version == 0 and "target" in content:  # the oldest files are the bare tree
        return content
    if version < MIN_VERSION or "optimizer" not in content:
        raise CheckpointError(
            f"{index}: checkpoint version {version} is not supported (expected {MIN_VERSION} or "
            "later with an `optimizer` tree); convert it with the T5X that wrote it."
        )
    if not isinstance(content["optimizer"], Mapping):
        raise CheckpointError(f"{index}: `optimizer` is no tree.")
    return content["optimizer"]


def is_tensorstore_spec(leaf: Any) -> bool:
    """Return whether a leaf stands for an array in a folder of its own."""
    return isinstance(leaf, Mapping) and {"driver", "kvstore", "metadata"} <= leaf.keys()


class _Reader:
    """Puts arrays in the places of a tree.

    Args:
      folder: of the checkpoint.
      budget: bytes that its arrays may take.
      wanted: names on the path of the wanted subtree; () for all.
    """

    def __init__(self, folder: Path, budget: Budget, wanted: tuple[str, ...]):
        self._folder, self._budget, self._wanted = folder, budget, wanted

    def resolve(self, node: Any, path: tuple[str, ...]) -> Any:
        """Return the tree, or array, of a node of the index."""
        if is_tensorstore_spec(node):
            return self._read_spec(node, "/".join(path))
        if isinstance(node, Mapping):
            return {
                key: self.resolve(child, self._below(path, key))
                for key, child in node.items()
                if all(a == b for a, b in zip((*path, key), self._wanted))
            }
        return None if node is None else self._array(node, "/".join(path))

    def _below(self, path: tuple[str, ...], key: Any) -> tuple[str, ...]:
        if not isinstance(key, str) or len(path) >= _DEEPEST:
            raise CheckpointError(
                f"{self._folder / INDEX_NAME}: {'/'.join(path)[:80]} has the entry {key!r}: "
                f"expected names, at most {_DEEPEST} deep."
            )
        return (*path, key)

    def _array(self, leaf: Any, name: str) -> np.ndarray:
        try:
            array = np.asarray(leaf)
        except (ValueError, OverflowError):
            array = np.empty(0, object)
        if array.dtype.kind not in "biufc" and array.dtype.isbuiltin != 2:  # of ml_dtypes
            raise CheckpointError(
                f"{self._folder / INDEX_NAME}: {name} is {type(leaf).__name__}, expected an array."
            )
        return array

    def _read_spec(self, spec: Mapping[str, Any], name: str) -> np.ndarray:
        what = f"{self._folder / INDEX_NAME}: {name}"
        if spec["driver"] != "zarr":
            raise CheckpointError(f"{what} has driver {spec['driver']!r}, expected 'zarr'.")
        kvstore = spec["kvstore"]
        stored = kvstore.get("path") if isinstance(kvstore, Mapping) else None
        stored = stored or spec.get("path") or name.replace("/", ".")
        if not isinstance(stored, str):
            raise CheckpointError(f"{what} has the path {stored!r}, expected a string.")
        # A stale absolute path (a bucket, another machine) ends in the array's own folder.
        given = self._folder / stored.strip("/")
        by_name = self._folder / PurePosixPath(stored).name
        folder = given if ".." not in given.parts and given.is_dir() else by_name
        return read_zarr(inside(self._folder, folder, what), name, self._budget)
