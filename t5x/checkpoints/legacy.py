"""Read legacy T5X checkpoint folders, as the released MT3 and T5 weights are stored.

`checkpoint_<step>/checkpoint` is a flax msgpack file of
`{"version": 3, "optimizer": {"target": params, "state": {"step", "param_states"}}}`. A leaf is an
array, or a TensorStore spec of a zarr v2 array in a folder beside it, named by the leaf's path with
dots: `target.encoder.encoder_norm.scale/`. The spec's key-value store may be one that exists
no more (gs://, gfile); only its relative path counts. Chunks are gzip or zstd, as `.zarray` says.

No TensorFlow; TensorStore only for compressors other than gzip.
"""

import gzip
import itertools
import json
import zlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import flax.serialization
import numpy as np

from t5x.checkpoints.errors import CheckpointError

Tree = Any
INDEX_NAME = "checkpoint"
MIN_VERSION = 2


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
      CheckpointError: no checkpoint, an unknown version, or an array that is absent or damaged; the
        message names it.
    """
    folder = Path(folder)
    index = folder / INDEX_NAME
    if not index.is_file():
        raise CheckpointError(f"{folder}: no file `{INDEX_NAME}` here, so no T5X checkpoint.")
    try:
        content = flax.serialization.msgpack_restore(index.read_bytes())
    except Exception as error:
        raise CheckpointError(f"{index}: not a readable msgpack file ({error}).") from error
    tree = _optimizer_tree(content, index)
    return _resolve(tree, folder, (), tuple(subtree.split("/")) if subtree else ())


def _optimizer_tree(content: Any, index: Path) -> Mapping[str, Tree]:
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{index}: holds {type(content).__name__}, expected a tree.")
    version = int(content.get("version", 0))
    if version == 0 and "target" in content:  # the oldest files are the bare tree
        return content
    if version < MIN_VERSION or "optimizer" not in content:
        raise CheckpointError(
            f"{index}: checkpoint version {version} is not supported (expected {MIN_VERSION} or "
            "later with an `optimizer` tree); convert it with the T5X that wrote it."
        )
    return content["optimizer"]


def is_tensorstore_spec(leaf: Any) -> bool:
    """Return whether a leaf stands for an array in a folder of its own."""
    return isinstance(leaf, Mapping) and {"driver", "kvstore", "metadata"} <= leaf.keys()


def _resolve(node: Any, folder: Path, path: tuple[str, ...], wanted: tuple[str, ...]) -> Any:
    if is_tensorstore_spec(node):
        return _read_spec(node, folder, "/".join(path))
    if isinstance(node, Mapping):
        return {
            key: _resolve(child, folder, (*path, key), wanted)
            for key, child in node.items()
            if all(a == b for a, b in zip((*path, key), wanted))
        }
    return node if node is None else np.asarray(node)


def _read_spec(spec: Mapping[str, Any], folder: Path, name: str) -> np.ndarray:
    if spec["driver"] != "zarr":
        raise CheckpointError(f"{folder}: {name} has driver {spec['driver']!r}, expected 'zarr'.")
    stored = spec["kvstore"].get("path") or spec.get("path") or name.replace("/", ".")
    # A stale absolute path (a bucket, another machine) ends in the array's own folder.
    array_folder = folder / stored.strip("/")
    if not array_folder.is_dir():
        array_folder = folder / PurePosixPath(stored).name
    return read_zarr(array_folder, name)


def read_zarr(folder: Path, name: str) -> np.ndarray:
    """Read a zarr v2 array, of any number of chunks, compressed with gzip, zlib, zstd or not.

    Raises:
      CheckpointError: naming the array `name` and the file that is absent or damaged.
    """
    header = folder / ".zarray"
    try:
        meta = json.loads(header.read_text())
    except OSError as error:
        raise CheckpointError(f"{header}: array {name} is missing ({error.strerror}).") from error
    except ValueError as error:
        raise CheckpointError(f"{header}: header of array {name} is not JSON: {error}") from error
    codec = (meta.get("compressor") or {}).get("id")
    if codec not in _DECOMPRESS or meta.get("filters") or meta.get("order", "C") != "C":
        return _read_with_tensorstore(folder, name)
    shape, chunks = tuple(meta["shape"]), tuple(meta["chunks"])
    dtype = _dtype(meta["dtype"])
    fill = meta.get("fill_value")
    result = np.full(shape, 0 if fill is None else fill, dtype)
    grid = [range(-(-size // chunk)) for size, chunk in zip(shape, chunks)]
    separator = meta.get("dimension_separator", ".")
    for index in itertools.product(*grid):
        file = folder / (separator.join(map(str, index)) or "0")
        if not file.is_file() and fill is not None:
            continue
        start = [i * chunk for i, chunk in zip(index, chunks)]
        block = _read_chunk(file, codec, dtype, chunks, name)
        where = tuple(slice(a, min(a + c, n)) for a, c, n in zip(start, chunks, shape))
        result[where] = block[tuple(slice(0, w.stop - w.start) for w in where)]
    return result


def _read_chunk(
    file: Path, codec: str | None, dtype: np.dtype, shape: tuple[int, ...], name: str
) -> np.ndarray:
    try:
        data = _DECOMPRESS[codec](file.read_bytes())
    except FileNotFoundError as error:
        raise CheckpointError(f"{file}: this part of array {name} is missing.") from error
    except (OSError, EOFError, zlib.error) as error:
        raise CheckpointError(f"{file}: this part of array {name} is damaged: {error}") from error
    expected = int(np.prod(shape)) * dtype.itemsize
    if len(data) != expected:
        raise CheckpointError(
            f"{file}: this part of array {name} has {len(data)} bytes, expected {expected} for "
            f"{tuple(shape)} of {dtype}."
        )
    return np.frombuffer(data, dtype).reshape(shape)


_DECOMPRESS = {None: bytes, "gzip": gzip.decompress, "zlib": zlib.decompress}


def _dtype(name: str) -> np.dtype:
    if name == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name)


def _read_with_tensorstore(folder: Path, name: str) -> np.ndarray:
    import tensorstore

    spec = {"driver": "zarr", "kvstore": {"driver": "file", "path": str(folder.resolve())}}
    # TensorStore reads absent chunks as zeros, so their presence is checked first.
    meta = json.loads((folder / ".zarray").read_text())
    grid = [range(-(-size // chunk)) for size, chunk in zip(meta["shape"], meta["chunks"])]
    separator = meta.get("dimension_separator", ".")
    for index in itertools.product(*grid):
        file = folder / (separator.join(map(str, index)) or "0")
        if not file.is_file() and meta.get("fill_value") is None:
            raise CheckpointError(f"{file}: this part of array {name} is missing.")
    try:
        store = tensorstore.open(spec, read=True, open=True).result()
        return np.asarray(store.read().result())
    except (ValueError, OSError) as error:
        raise CheckpointError(f"{folder}: array {name} cannot be read: {error}") from error
