"""Records of `tf.train.Example`, read and written without TensorFlow or protobuf.

Example { Features features = 1; }        Features { map<string, Feature> feature = 1; }
Feature { oneof: BytesList = 1; FloatList = 2; Int64List = 3; }  with `repeated value = 1`
"""

from collections.abc import Iterator, Mapping

import numpy as np

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def parse_example(data: bytes) -> dict[str, np.ndarray]:
    """Features of a serialized example.

    Returns:
      {name: int64 [n], float32 [n], or an object array [n] of bytes}.

    Raises:
      ValueError: when `data` is no such message.
    """
    view = memoryview(data)
    example: dict[str, np.ndarray] = {}
    try:
        for features in _submessages(view):
            for entry in _submessages(features):
                fields = dict(_fields(entry))
                name = bytes(fields.get(1, b"")).decode("utf-8")
                example[name] = _feature(fields.get(2, memoryview(b"")))
    except (IndexError, TypeError, ValueError) as e:
        raise ValueError(f"not a tf.train.Example ({len(data)} bytes): {e}") from e
    return example


def serialize_example(example: Mapping[str, object]) -> bytes:
    """The message of a dict of numbers, str, bytes, and arrays or lists of them (flattened).

    Raises:
      ValueError: for a value of another type, naming its feature.
    """
    entries = []
    for name, value in sorted(example.items()):
        key = _field(1, name.encode("utf-8"))
        entries.append(_field(1, key + _field(2, _serialize_feature(name, value))))
    return _field(1, b"".join(entries))


def _submessages(view: memoryview) -> Iterator[memoryview]:
    for number, value in _fields(view):
        if number == 1:
            if not isinstance(value, memoryview):
                raise ValueError("field 1 is a number, expected a message")
            yield value


def _fields(view: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """(field number, payload) of a message; varints come as numbers."""
    position = 0
    while position < len(view):
        key, position = _varint(view, position)
        kind = key & 7
        if kind == _VARINT:
            value, position = _varint(view, position)
            yield key >> 3, value
            continue
        if kind == _BYTES:
            size, position = _varint(view, position)
        elif kind in (_FIXED64, _FIXED32):
            size = 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"unknown wire type {kind}")
        if position + size > len(view):
            raise ValueError("a field reaches beyond the end")
        yield key >> 3, view[position : position + size]
        position += size


def _varint(view: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = view[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise ValueError("a number has more than 64 bits")


def _feature(view) -> np.ndarray:
    kind, body = next(iter(_fields(view)), (2, memoryview(b"")))
    values = [value for number, value in _fields(body) if number == 1]  # type: ignore[arg-type]
    if kind == 1:
        array = np.empty(len(values), object)
        array[:] = [bytes(value) for value in values]  # type: ignore[arg-type]
        return array
    if kind == 2:
        return np.frombuffer(b"".join(values), "<f4").astype(np.float32)  # type: ignore[arg-type]
    if kind == 3:
        return _int64_values(values)
    raise ValueError(f"unknown kind of feature {kind}")


def _int64_values(values: list) -> np.ndarray:
    """Packed (memoryviews of varints) or unpacked (numbers) int64 values."""
    parts = [
        np.array([value], np.uint64) if isinstance(value, int) else decode_varints(value)
        for value in values
    ]
    return np.concatenate(parts or [np.zeros(0, np.uint64)]).view(np.int64)


def decode_varints(data: memoryview | bytes) -> np.ndarray:
    """A run of varints as uint64 [n]. Raises ValueError when it ends inside one."""
    raw = np.frombuffer(data, np.uint8)
    if not raw.size:
        return np.zeros(0, np.uint64)
    ends = np.flatnonzero(raw < 0x80)
    if not ends.size or ends[-1] != raw.size - 1:
        raise ValueError("a packed list ends inside a number")
    starts = np.concatenate([[0], ends[:-1] + 1])
    place = np.arange(raw.size) - np.repeat(starts, ends - starts + 1)
    if place.max() > 9:
        raise ValueError("a number has more than 64 bits")
    parts = (raw & 0x7F).astype(np.uint64) << (7 * place).astype(np.uint64)
    return np.add.reduceat(parts, starts)


def _encode_varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _field(number: int, payload: bytes) -> bytes:
    return _encode_varint(number << 3 | _BYTES) + _encode_varint(len(payload)) + payload


def _serialize_feature(name: str, value) -> bytes:
    if isinstance(value, str | bytes):
        value = [value]
    # Not through an array of bytes: NumPy drops the zeros at their ends.
    items = list(value) if isinstance(value, list | tuple) else np.ravel(value).tolist()
    if items and all(isinstance(item, str | bytes) for item in items):
        encoded = [item.encode("utf-8") if isinstance(item, str) else item for item in items]
        return _field(1, b"".join(_field(1, item) for item in encoded))
    array = np.ravel(value)
    if array.dtype.kind in "biu":
        packed = b"".join(_encode_varint(int(v) & (2**64 - 1)) for v in array)
        return _field(3, _field(1, packed))
    if array.dtype.kind == "f":
        return _field(2, _field(1, array.astype("<f4").tobytes()))
    raise ValueError(
        f"feature {name!r}: cannot store dtype {array.dtype}; expected numbers, str or bytes"
    )
