"""Examples as bytes (msgpack, never pickle) and as ArrayRecord shards."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgpack
import numpy as np

from t5x.data.features import Example
from t5x.files import atomic_path

_DTYPE, _SHAPE, _DATA = "d", "s", "b"


def serialize_example(example: dict) -> bytes:
    """Encode a dict of arrays, numbers, strings and bytes.

    Raises:
      ValueError: for a value of another type, naming its feature.
    """
    packed = {name: _encode(name, value) for name, value in example.items()}
    return msgpack.Packer().pack(packed)


def deserialize_example(data: bytes) -> Example:
    """The inverse of `serialize_example`: numbers come back as arrays, str and bytes as they are.

    Raises:
      ValueError: when `data` is not such a record.
    """
    try:
        record = msgpack.unpackb(data)
        return {name: _decode(value) for name, value in record.items()}
    except (msgpack.UnpackException, ValueError, TypeError, KeyError, AttributeError) as e:
        raise ValueError(
            f"not an example written by serialize_example ({len(data)} bytes): {e}"
        ) from e


def _encode(name: str, value):
    if isinstance(value, str | bytes):
        return value
    array = np.asarray(value)
    if array.dtype.kind not in "biufc":
        raise ValueError(
            f"feature {name!r}: cannot store dtype {array.dtype}; expected numbers, str or bytes"
        )
    array = array.astype(array.dtype.newbyteorder("<"), copy=False)
    data = np.ascontiguousarray(array).tobytes()
    return {_DTYPE: array.dtype.str, _SHAPE: list(array.shape), _DATA: data}


def _decode(value):
    if not isinstance(value, dict):
        return value
    return np.frombuffer(value[_DATA], np.dtype(value[_DTYPE])).reshape(value[_SHAPE])


def write_array_record(path: str | os.PathLike, examples: Iterable[dict]) -> int:
    """Write `examples` to one ArrayRecord file; return how many.

    Groups hold one example, so that each can be read by itself. The file appears under its name
    only when it is complete.
    """
    from array_record.python.array_record_module import ArrayRecordWriter

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with atomic_path(path) as temporary:
        writer = ArrayRecordWriter(str(temporary), "group_size:1")
        for example in examples:
            writer.write(serialize_example(example))
            count += 1
        writer.close()
    return count


def write_shards(
    prefix: str | os.PathLike, examples: Sequence[dict] | Iterable[dict], num_shards: int = 1
) -> list[Path]:
    """Write `<prefix>-00000-of-0000N` files, example i to shard i % num_shards.

    The examples are kept in memory for more than one shard; large datasets are written shard by
    shard with `write_array_record`.
    """
    paths = [Path(f"{prefix}-{i:05d}-of-{num_shards:05d}") for i in range(num_shards)]
    if num_shards == 1:
        write_array_record(paths[0], examples)
        return paths
    everything = list(examples)
    for i, path in enumerate(paths):
        write_array_record(path, everything[i::num_shards])
    return paths


def read_array_record(path: str | os.PathLike) -> Iterator[Example]:
    """All examples of one file, in order.

    Raises:
      ValueError: the file is damaged; names it and the record.
    """
    source = ArrayRecordFile(path)
    return map(source.__getitem__, range(len(source)))


class ArrayRecordFile:
    """The examples of one file: `len()` and `[i]`.

    Raises:
      ValueError: the file is damaged, or a record is; names it.
    """

    def __init__(self, path: str | os.PathLike):
        from array_record.python.array_record_data_source import ArrayRecordDataSource

        self._path = os.fspath(path)
        self._source = self._told("", lambda: ArrayRecordDataSource([self._path]))
        self._size = self._told("", lambda: len(self._source))

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, number: int) -> Example:
        return self._told(f"record {number}: ", lambda: deserialize_example(self._source[number]))

    def _told(self, where: str, read: Callable[[], Any]) -> Any:
        try:
            return read()
        except (RuntimeError, ValueError) as error:  # of the library, whose messages name no file
            what = " ".join(str(error).split())
            raise ValueError(
                f"{self._path}: {where}damaged or no ArrayRecord file ({what}); run its "
                "preparation again with the same arguments, which makes this file again and keeps "
                "the others"
            ) from error
