"""Read the arrays of an Orbax folder straight from TensorStore, the headers of all at once.

    state/_METADATA        JSON: the tree of names, and what kind of value stands at each
         /manifest.ocdbt   the key-value store of all arrays; without it, each has its own folder

An array has the keys `<its names, joined by dots>/.zarray` and `/<chunk>`, zarr v2. Orbax opens
each array by itself, several times over, which is most of the time that it takes to restore many
small ones. What it can write besides (zarr v3, lists, text) is left to it.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import flax.traverse_util
import jax
import numpy as np

from t5x.checkpoints.errors import CheckpointError
from t5x.checkpoints.sizes import Budget, inside, read_bytes
from t5x.checkpoints.zarr import Header, parse_header

Tree = Any
Names = tuple[str, ...]
_TREE_NAME = "_METADATA"
_DICT_KEY = 2  # Orbax's KeyType.DICT
_ARRAYS = ("jax.Array", "np.ndarray")
_EMPTY: Mapping[str, Any] = {"Dict": {}, "None": None}
_CACHE_BYTES = 2**24  # for the nodes of the key-value store
_GROUP_BYTES = 2**30  # read at once, so that the host need not hold the whole state


class StoredArrays:
    """The arrays of a folder, whose headers were read and checked.

    Attributes:
      headers: names from the root on -> shape, dtype and chunks.
    """

    def __init__(self, folder: Path, kinds: Mapping[Names, str]):
        import tensorstore

        self._empty = {path: _EMPTY[kind] for path, kind in kinds.items() if kind in _EMPTY}
        base = {"driver": "file", "path": f"{folder.absolute()}/"}
        merged = (folder / "manifest.ocdbt").is_file()
        self._base = {"driver": "ocdbt", "base": base} if merged else base
        self._context = tensorstore.Context({"cache_pool": {"total_bytes_limit": _CACHE_BYTES}})
        store = tensorstore.KvStore.open(self._base, context=self._context).result()
        found = {path: store.read(_key(path) + ".zarray") for path in kinds.keys() - self._empty}
        self._texts: dict[Names, bytes] = {}
        self.headers: dict[Names, Header] = {}
        budget = Budget(folder)
        for path in kinds.keys() - self._empty:
            where = f"{folder}: array {'/'.join(path)}"
            read = found[path].result()
            if read.state != "value":
                raise CheckpointError(f"{where}: its header is missing.")
            header = parse_header(read.value, f"{where}: header")
            budget.take(header.shape, header.dtype, where)
            budget.take(header.chunks, header.dtype, f"{where}: chunks")
            self._texts[path], self.headers[path] = read.value, header

    @property
    def shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        """'/'-joined names -> shape and dtype."""
        return {
            "/".join(path): jax.ShapeDtypeStruct(header.shape, header.dtype)
            for path, header in self.headers.items()
        }

    def read(self, subtree: str = "") -> dict[str, Tree]:
        """Return the tree, or its branch `subtree` alone, of numpy arrays as they are stored."""
        paths = [path for path in self.headers if subtree in ("", path[0])]
        reads = {path: store.read() for path, store in self._open(paths)}
        empty = {path: x for path, x in self._empty.items() if subtree in ("", path[0])}
        arrays = {path: read.result() for path, read in reads.items()}
        return flax.traverse_util.unflatten_dict({**empty, **arrays})

    def restore(self, expected: Tree) -> Tree:
        """Read what the devices of this process hold, and put it there.

        Args:
          expected: a tree of `jax.ShapeDtypeStruct`s of the stored shapes, with shardings.

        Returns:
          The tree of arrays, in the dtypes of `expected`.
        """
        flat: dict[Names, Any] = flax.traverse_util.flatten_dict(expected, keep_empty_nodes=True)
        for group in self._groups([path for path, x in flat.items() if hasattr(x, "shape")]):
            parts = {path: _parts(store, flat[path]) for path, store in self._open(group)}
            for path in group:
                flat[path] = _placed(flat[path], parts.pop(path))
        return flax.traverse_util.unflatten_dict(flat)

    def _groups(self, paths: list[Names]) -> Iterator[list[Names]]:
        group: list[Names] = []
        size = 0
        for path in paths:
            group.append(path)
            size += self.headers[path].size_bytes
            if size >= _GROUP_BYTES:
                yield group
                group, size = [], 0
        yield group

    def _open(self, paths: list[Names]) -> list[tuple[Names, Any]]:
        """The open TensorStores of arrays; the headers that were checked count, not the file's."""
        import tensorstore

        opening = [
            tensorstore.open(
                {
                    "driver": "zarr",
                    "kvstore": {**self._base, "path": self._inner_path(path)},
                    "metadata": json.loads(self._texts[path]),
                },
                context=self._context,
                read=True,
                open=True,
                assume_metadata=True,
            )
            for path in paths
        ]
        return [(path, store.result()) for path, store in zip(paths, opening)]

    def _inner_path(self, path: Names) -> str:
        return self._base.get("path", "") + _key(path)


def _key(path: Names) -> str:
    return f"{'.'.join(path)}/"


def _parts(store: Any, struct: Any) -> dict[tuple[slice, ...], Any]:
    """Start to read the parts of an array that the devices of this process hold."""
    indices = set(struct.sharding.addressable_devices_indices_map(struct.shape).values())
    return {index: store[index].read() for index in indices}


def _placed(struct: Any, parts: Mapping[tuple[slice, ...], Any]) -> jax.Array:
    def part(index: tuple[slice, ...] | None) -> np.ndarray:
        return parts[index or ()].result().astype(struct.dtype, copy=False)

    return jax.make_array_from_callback(struct.shape, struct.sharding, part)


def open_arrays(folder: Path) -> StoredArrays | None:
    """Return the arrays of an Orbax folder, or None if only Orbax can read it.

    Raises:
      CheckpointError: an array is missing, has a header that the disk cannot hold, or something
        leads out of the folder.
      OSError, ValueError, LookupError, TypeError, AttributeError: the folder is damaged.
    """
    if not (folder / _TREE_NAME).is_file():
        return None
    check_links(folder)
    text = read_bytes(folder / _TREE_NAME, (folder / _TREE_NAME).stat().st_size, "the tree")
    try:
        content = json.loads(text)
    except RecursionError as error:
        raise CheckpointError(f"{folder / _TREE_NAME} is no tree of arrays.") from error
    kinds = {}
    for entry in content["tree_metadata"].values():
        path = tuple(str(key["key"]) for key in entry["key_metadata"])
        check_name("/".join(path), folder)
        kinds[path] = entry["value_metadata"]["value_type"]
        if any(key["key_type"] != _DICT_KEY for key in entry["key_metadata"]):
            return None
    if content.get("use_zarr3") or not all(kind in (*_ARRAYS, *_EMPTY) for kind in kinds.values()):
        return None
    return StoredArrays(folder, kinds)


def check_links(folder: Path) -> None:
    """Raise CheckpointError for links out of the folder."""
    for path in folder.rglob("*"):
        if path.is_symlink():
            inside(folder, path, str(path))


def check_name(name: str, folder: Path) -> None:
    """Raise CheckpointError for an array that would lie outside the folder."""
    if ".." in name.split("/"):
        raise CheckpointError(f"{folder}: array {name!r} would lie outside the folder.")
