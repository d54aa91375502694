"""Records of `tf.train.Example`, read and written without TensorFlow or protobuf.

Example { Features features = 1; }        Features { map<string, Feature> feature = 1; }
Feature { oneof: BytesList = 1; FloatList = 2; Int64List = 3; }  with `repeated value = 1`
"""

from collections.abc import Mapping

import numpy as np

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_Span = tuple[int, int]  # begin and end in the data
_NOTHING: _Span = (0, 0)


def parse_example(data: bytes) -> dict[str, np.ndarray]:
    """Features of a serialized example.

    Returns:
      {name: int64 [n], float32 [n], or an object array [n] of bytes}.

    Raises:
      ValueError: when `data` is no such message.
    """
    example: dict[str, np.ndarray] = {}
    try:
        for features in _submessages(data, (0, len(data))):
            for entry in _submessages(data, features):
                fields = {number: _span(value) for number, value in _fields(data, entry)}
                begin, end = fields.get(1, _NOTHING)
                name = data[begin:end].decode("utf-8")
                example[name] = _feature(data, fields.get(2, _NOTHING))
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


def _submessages(data: bytes, message: _Span) -> list[_Span]:
    return [_span(value) for number, value in _fields(data, message) if number == 1]


def _span(value: _Span | int) -> _Span:
    if isinstance(value, int):
        raise ValueError("a field is a number, expected a message")
    return value


def _fields(data: bytes, message: _Span) -> list[tuple[int, _Span | int]]:
    """(field number, where its payload lies) of a message; varints come as numbers.

    No generator, and most varints, which have one byte, are read in place: it is called about ten
    times for a small example.
    """
    found: list[tuple[int, _Span | int]] = []
    position, end = message
    while position < end:
        key = data[position]
        position += 1
        if key >= 0x80:
            key, position = _varint(data, position - 1)
        kind = key & 7
        if kind == _BYTES:
            size = data[position]
            position += 1
            if size >= 0x80:
                size, position = _varint(data, position - 1)
            begin, position = position, position + size
            found.append((key >> 3, (begin, position)))
        elif kind == _VARINT:
            value, position = _varint(data, position)
            found.append((key >> 3, value))
        elif kind in (_FIXED64, _FIXED32):
            begin, position = position, position + (8 if kind == _FIXED64 else 4)
            found.append((key >> 3, (begin, position)))
        else:
            raise ValueError(f"unknown wire type {kind}")
    if position > end:
        raise ValueError("a field reaches beyond the end")
    return found


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise ValueError("a number has more than 64 bits")


def _feature(data: bytes, message: _Span) -> np.ndarray:
    kind, body = next(iter(_fields(data, message)), (2, _NOTHING))
    values = [value for number, value in _fields(data, _span(body)) if number == 1]
    if kind == 3:
        return _int64_values(data, values)
    parts = [data[begin:end] for begin, end in map(_span, values)]
    if kind == 1:
        array = np.empty(len(parts), object)
        array[:] = parts
        return array
    if kind == 2:
        return np.frombuffer(b"".join(parts), "<f4").astype(np.float32)
    raise ValueError(f"unknown kind of feature {kind}")


def _int64_values(data: bytes, values: list[_Span | int]) -> np.ndarray:
    """Packed (runs of varints) or unpacked (numbers) int64 values."""
    parts = [
        np.array([value], np.uint64)
        if isinstance(value, int)
        else decode_varints(data[value[0] : value[1]])
        for value in values
    ]
    if len(parts) == 1:
        return parts[0].view(np.int64)
    return np.concatenate(parts or [np.zeros(0, np.uint64)]).view(np.int64)


def decode_varints(data: bytes) -> np.ndarray:
    """A run of varints as uint64 [n]. Raises ValueError when it ends inside one."""
    raw = np.frombuffer(data, np.uint8)
    (ends,) = (raw < 0x80).nonzero()
    left = raw.size - ends.size
    if left and raw[-1] >= 0x80:
        raise ValueError("a packed list ends inside a number")
    # The last byte has the highest bits; from there backwards, all numbers at once.
    values = raw[ends].astype(np.uint64)
    longer = np.True_
    for back in range(1, 10):
        if not left:
            return values
        byte = raw[ends - back]
        longer = longer & (byte >= 0x80)
        left -= np.count_nonzero(longer)
        values = np.where(longer, values << np.uint64(7) | (byte & np.uint8(0x7F)), values)
    if left:
        raise ValueError("a number has more than 64 bits")
    return values


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
