"""Read arrays of zarr v2, as TensorStore writes them: `.zarray` and one file a chunk.

Needs TensorStore only for compressors other than gzip and zlib.
"""

import itertools
import json
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from t5x.checkpoints.errors import CheckpointError
from t5x.checkpoints.sizes import Budget, check_dtype, check_shape, inside, read_bytes

_LARGEST_HEADER = 2**20
_WINDOW_BITS = {"gzip": 31, "zlib": 15}
_ZSTD_BLOCK = 2**17
_FILLS = {"NaN": np.nan, "Infinity": np.inf, "-Infinity": -np.inf}


class Header(NamedTuple):
    """The content of `.zarray`: `fill` is None without a value for chunks that are absent."""

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: np.dtype
    codec: str | None
    fill: Any
    separator: str
    is_plain: bool

    @property
    def grid(self) -> list[range]:
        """The indices of the chunks along each axis."""
        return [range(-(-size // chunk)) for size, chunk in zip(self.shape, self.chunks)]

    @property
    def size_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def chunk_bytes(self) -> int:
        return math.prod(self.chunks) * self.dtype.itemsize


def read_zarr(folder: Path, name: str, budget: Budget | None = None) -> np.ndarray:
    """Read a zarr v2 array, of any number of chunks, compressed with gzip, zlib, zstd or not.

    Args:
      folder: has `.zarray`.
      name: of the array, for messages.
      budget: of the checkpoint; None is that of `folder` alone.

    Raises:
      CheckpointError: naming the array and the file that is absent, damaged or too large.
    """
    budget = budget or Budget(folder)
    header = _read_header(folder, name)
    where = f"{folder / '.zarray'}: array {name}"
    budget.take(header.shape, header.dtype, where)
    budget.take(header.chunks, header.dtype, f"{where}: chunks")
    found = dict(_chunk_files(folder, header, name))
    _check_complete(folder, header, found, name)
    if not header.is_plain:
        for file in found.values():
            _check_unpacked_size(file, header, name)
        return _read_with_tensorstore(folder, name)
    result = np.full(header.shape, 0 if header.fill is None else header.fill, header.dtype)
    for index, file in found.items():
        block = _read_chunk(file, header, name)
        start = [i * chunk for i, chunk in zip(index, header.chunks)]
        place = tuple(
            slice(a, min(a + c, n)) for a, c, n in zip(start, header.chunks, header.shape)
        )
        result[place] = block[tuple(slice(0, p.stop - p.start) for p in place)]
    return result


def _read_header(folder: Path, name: str) -> Header:
    path = folder / ".zarray"
    data = read_bytes(path, _LARGEST_HEADER, f"the header of array {name}")
    return parse_header(data, f"{path}: array {name}")


def parse_header(data: bytes, where: str) -> Header:
    """Parse the content of `.zarray`.

    Raises:
      CheckpointError: a field is missing or none of zarr v2; begins with `where`.
    """
    try:
        meta = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{where}: its header is not JSON: {error}") from error
    if not isinstance(meta, Mapping):
        raise CheckpointError(f"{where}: its header is no JSON object.")
    what = f"{where}: "
    shape = check_shape(meta.get("shape"), f"{what}shape")
    chunks = check_shape(meta.get("chunks"), f"{what}chunks", smallest=1)
    if len(chunks) != len(shape):
        raise CheckpointError(f"{what}chunks={chunks}: expected {len(shape)} numbers.")
    dtype = check_dtype(meta.get("dtype"), f"{what}dtype")
    compressor = meta.get("compressor")
    if compressor is not None and not (
        isinstance(compressor, Mapping) and isinstance(compressor.get("id"), str)
    ):
        raise CheckpointError(f"{what}compressor={compressor!r}: expected null or an object.")
    codec = compressor["id"] if compressor else None
    separator = meta.get("dimension_separator", ".")
    if separator not in (".", "/"):
        raise CheckpointError(f"{what}dimension_separator={separator!r}: expected '.' or '/'.")
    plain = codec in (None, *_WINDOW_BITS) and not meta.get("filters")
    plain = plain and meta.get("order", "C") == "C"
    fill = _fill_value(meta.get("fill_value"), dtype, what)
    return Header(shape, chunks, dtype, codec, fill, separator, plain)


def _fill_value(value: Any, dtype: np.dtype, what: str) -> Any:
    if value is None:
        return None
    try:
        number = _FILLS.get(value, np.nan) if isinstance(value, str) else value
        if not isinstance(number, int | float):
            raise TypeError
        return np.asarray(number).astype(dtype)[()]
    except (TypeError, ValueError, OverflowError) as error:
        raise CheckpointError(f"{what}fill_value={value!r}: expected a number.") from error


def _chunk_files(folder: Path, header: Header, name: str) -> Iterator[tuple[tuple[int, ...], Path]]:
    """Yield (index, file) of each chunk on the disk, however many the header claims."""
    grid = header.grid
    depth = "/".join("*" * max(len(grid), 1)) if header.separator == "/" else "*"
    for file in folder.glob(depth):
        text = file.relative_to(folder).as_posix()
        parts = text.split(header.separator) if grid else []
        if not all(part.isascii() and part.isdigit() for part in parts) or len(parts) != len(grid):
            continue
        index = tuple(map(int, parts))
        canonical = header.separator.join(map(str, index)) or "0"
        if text == canonical and all(i in along for i, along in zip(index, grid)):
            yield index, inside(folder, file, f"{file}: this part of array {name}")


def _check_complete(folder: Path, header: Header, found: Mapping, name: str) -> None:
    counts = [len(along) for along in header.grid]
    if header.fill is not None or len(found) == math.prod(counts):
        return
    number = next(n for n in itertools.count() if _index_of(n, counts) not in found)
    missing = _index_of(number, counts)
    file = folder / (header.separator.join(map(str, missing)) or "0")
    raise CheckpointError(f"{file}: this part of array {name} is missing.")


def _index_of(number: int, counts: Sequence[int]) -> tuple[int, ...]:
    """The index of a chunk, in the order of the last axis first; lists of all are too long."""
    return tuple(int(i) for i in np.unravel_index(number, counts)) if counts else ()


def _read_chunk(file: Path, header: Header, name: str) -> np.ndarray:
    expected = header.chunk_bytes
    packed = read_bytes(file, expected + expected // 64 + 4096, f"this part of array {name}")
    try:
        data = _unpack(packed, header.codec, expected)
    except (EOFError, zlib.error) as error:
        raise CheckpointError(f"{file}: this part of array {name} is damaged: {error}") from error
    if len(data) != expected:
        count = f"more than {expected}" if len(data) > expected else str(len(data))
        raise CheckpointError(
            f"{file}: this part of array {name} has {count} bytes, expected {expected} for "
            f"{header.chunks} of {header.dtype}."
        )
    return np.frombuffer(data, header.dtype).reshape(header.chunks)


def _unpack(data: bytes, codec: str | None, expected: int) -> bytes:
    """Unpack all members of gzip or zlib, until there are more bytes than expected."""
    if codec is None:
        return data
    parts, left = [], expected + 1
    while data and left > 0:
        member = zlib.decompressobj(_WINDOW_BITS[codec])
        parts.append(member.decompress(data, left))
        left -= len(parts[-1])
        if not member.eof and left > 0:
            raise EOFError("it ends too early")
        data = member.unused_data
    return b"".join(parts)


def _check_unpacked_size(file: Path, header: Header, name: str) -> None:
    """Raise CheckpointError for a chunk that claims to unpack to much more than a chunk is."""
    expected = header.chunk_bytes
    data = read_bytes(file, expected + expected // 64 + 4096, f"this part of array {name}")
    size = 0
    if header.codec == "blosc":
        size = int.from_bytes(data[4:8], "little")
    elif header.codec == "zstd":
        size = _zstd_bound(data)
    if size > 64 * expected + _ZSTD_BLOCK * 8:
        raise CheckpointError(
            f"{file}: this part of array {name} unpacks to {size} bytes, expected {expected}."
        )


def _zstd_bound(data: bytes) -> int:
    """An upper bound of what a frame of zstd (RFC 8878) unpacks to, by its blocks' headers."""
    if data[:4] != b"\x28\xb5\x2f\xfd" or len(data) < 6:
        return 0  # damaged, as TensorStore will say
    flags = data[4]
    single, checks = flags >> 5 & 1, (0, 1, 2, 4)[flags & 3]
    content = (single, 2, 4, 8)[flags >> 6]
    at, bound, last = 5 + (1 - single) + checks + content, 0, 0
    while not last and at + 3 <= len(data):
        block = int.from_bytes(data[at : at + 3], "little")
        last, kind, size = block & 1, block >> 1 & 3, block >> 3
        bound += _ZSTD_BLOCK if kind == 2 else size
        at += 3 + (1 if kind == 1 else size)
    return bound


def _read_with_tensorstore(folder: Path, name: str) -> np.ndarray:
    import tensorstore

    spec = {"driver": "zarr", "kvstore": {"driver": "file", "path": str(folder.resolve())}}
    try:
        store = tensorstore.open(spec, read=True, open=True).result()
        return np.asarray(store.read().result())
    except (ValueError, OSError) as error:
        raise CheckpointError(f"{folder}: array {name} cannot be read: {error}") from error
