"""A parameter tree in one `.safetensors` file: names joined with '/', plus string metadata."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.traverse_util
import ml_dtypes
import numpy as np

from t5x.checkpoints.errors import CheckpointError
from t5x.checkpoints.sizes import Budget, read_bytes
from t5x.files import atomic_path

Tree = Any

# safetensors' dtype names; its numpy front end lacks bfloat16.
_NAMES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "I16": np.dtype(np.int16),
    "I8": np.dtype(np.int8),
    "U64": np.dtype(np.uint64),
    "U32": np.dtype(np.uint32),
    "U16": np.dtype(np.uint16),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}
_HEADER_LENGTH_BYTES = 8
_DEEPEST = 100


def save_safetensors(
    path: str | Path, params: Tree, metadata: Mapping[str, str] | None = None
) -> None:
    """Write `params` (nested dicts of arrays) to `path`, through a temporary file.

    Raises:
      CheckpointError: a name or dtype that the format cannot hold.
    """
    path = Path(path)
    flat = flax.traverse_util.flatten_dict(dict(params))
    codes = {dtype: code for code, dtype in _NAMES.items()}
    header: dict[str, Any] = {"__metadata__": {str(k): str(v) for k, v in (metadata or {}).items()}}
    arrays, offset = [], 0
    for keys, value in sorted(flat.items()):
        if any("/" in key for key in keys):
            raise CheckpointError(f"{path}: parameter name {keys} contains '/'.")
        array = np.ascontiguousarray(value).reshape(np.shape(value))
        if array.dtype not in codes:
            raise CheckpointError(f"{path}: {'/'.join(keys)} has dtype {array.dtype}.")
        header["/".join(keys)] = {
            "dtype": codes[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [offset, offset + array.nbytes],
        }
        offset += array.nbytes
        arrays.append(array)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(len(text).to_bytes(_HEADER_LENGTH_BYTES, "little") + text)
        for array in arrays:
            file.write(array.tobytes())


def load_safetensors(path: str | Path) -> tuple[Tree, dict[str, str]]:
    """Read a `.safetensors` file.

    Returns:
      (params, metadata): nested dicts of numpy arrays, and the file's strings.

    Raises:
      CheckpointError: the file is absent or damaged.
    """
    import safetensors

    path = Path(path)
    data = read_bytes(path, Budget(path).left, "the file of parameters")
    try:
        tensors = safetensors.deserialize(data)
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"{path}: not a whole .safetensors file ({error}).") from error
    flat = {}
    for name, info in tensors:
        dtype = _NAMES.get(info["dtype"])
        if dtype is None:
            raise CheckpointError(f"{path}: {name} has unsupported dtype {info['dtype']}.")
        try:
            array = np.frombuffer(info["data"], dtype).reshape(info["shape"])
        except (ValueError, OverflowError) as error:  # sizes like [0, 2**60]
            raise CheckpointError(f"{path}: {name} has shape {info['shape']} ({error}).") from error
        flat[name] = array.copy()  # writable, and free of the file's memory
    length = int.from_bytes(data[:_HEADER_LENGTH_BYTES], "little")
    header = json.loads(data[_HEADER_LENGTH_BYTES : _HEADER_LENGTH_BYTES + length])
    _check_names(flat, path)
    return flax.traverse_util.unflatten_dict(flat, sep="/"), header.get("__metadata__", {})


def _check_names(flat: Mapping[str, Any], path: Path) -> None:
    """Raise CheckpointError for names that make no tree: one below another, or far too deep."""
    for name in flat:
        parts = name.split("/")
        above = ("/".join(parts[:depth]) for depth in range(1, len(parts)))
        if len(parts) > _DEEPEST:
            raise CheckpointError(
                f"{path}: {name[:80]}… is {len(parts)} deep, expected {_DEEPEST}."
            )
        if (parent := next((each for each in above if each in flat), None)) is not None:
            raise CheckpointError(f"{path}: {name} lies below {parent}, which is an array.")
