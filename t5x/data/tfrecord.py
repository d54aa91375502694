"""TFRecord files without TensorFlow: framing, checksums, and random access by an index.

A record is uint64 length, uint32 masked CRC-32C of the length, the bytes, uint32 masked CRC-32C of
the bytes; all little-endian.
"""

import bisect
import itertools
import mmap
import os
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from t5x.data import tf_example
from t5x.data.crc32c import masked_crc32c
from t5x.data.features import Example
from t5x.data.sources import check_split, expand_patterns
from t5x.files import atomic_path

_HEADER = struct.Struct("<QI")
_FOOTER = struct.Struct("<I")


class TFRecordFile:
    """One file: `len()` and `[i]`, bytes of record i. It may be sent to another process.

    The offsets of all records are found once, by walking over the lengths, when the file is first
    used. The checksum of a record is tested when it is read.

    Raises:
      ValueError: naming file and record: the file is cut off, damaged, compressed, or no TFRecord.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = os.fspath(path)
        self._offsets: np.ndarray | None = None
        self._map: mmap.mmap | bytes | None = None

    def __len__(self) -> int:
        return len(self._index())

    def __getitem__(self, number: int) -> bytes:
        offset = int(self._index()[number])
        data = self._open()
        length, _ = _HEADER.unpack_from(data, offset)
        begin = offset + _HEADER.size
        record = data[begin : begin + length]
        (crc,) = _FOOTER.unpack_from(data, begin + length)
        if masked_crc32c(record) != crc:
            raise ValueError(self._damaged(number, "its checksum does not match its bytes"))
        return record

    def __getstate__(self):
        return {"path": self.path, "_offsets": self._index(), "_map": None}

    def _open(self) -> mmap.mmap | bytes:
        if self._map is None:
            with open(self.path, "rb") as file:
                empty = os.fstat(file.fileno()).st_size == 0
                self._map = b"" if empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return self._map

    def _index(self) -> np.ndarray:
        if self._offsets is None:
            self._offsets = np.fromiter(self._walk(), np.int64)
        return self._offsets

    def _walk(self) -> Iterator[int]:
        data = self._open()
        size, offset, number = len(data), 0, 0
        while offset < size:
            if offset + _HEADER.size > size:
                raise ValueError(self._damaged(number, "the file ends inside its header"))
            length, crc = _HEADER.unpack_from(data, offset)
            if masked_crc32c(data[offset : offset + 8]) != crc:
                raise ValueError(self._damaged(number, _NO_HEADER))
            end = offset + _HEADER.size + length + _FOOTER.size
            if end > size:
                raise ValueError(self._damaged(number, "the file ends inside it"))
            yield offset
            offset, number = end, number + 1

    def _damaged(self, number: int, what: str) -> str:
        return f"{self.path}: record {number} is damaged: {what}; write or copy the file again"


_NO_HEADER = (
    "the checksum of its length does not match (no TFRecord file, or a compressed one, which has "
    "to be unpacked first)"
)


class _TFExamples(Sequence):
    """Parsed examples of several files, one after the other."""

    def __init__(self, paths: Sequence[str], shapes: Mapping[str, Sequence[int]]):
        self._files = [TFRecordFile(path) for path in paths]
        self._shapes = dict(shapes)
        self._ends: list[int] | None = None

    def __len__(self) -> int:
        return self._starts()[-1]

    def _starts(self) -> list[int]:
        if self._ends is None:
            self._ends = list(itertools.accumulate(map(len, self._files), initial=0))
        return self._ends

    def __getitem__(self, index: int) -> Example:  # type: ignore[override]
        starts = self._starts()
        if not 0 <= index < starts[-1]:
            raise IndexError(f"example {index} of {starts[-1]}")
        which = bisect.bisect_right(starts, index) - 1
        number = index - starts[which]
        file = self._files[which]
        try:
            return self._shaped(tf_example.parse_example(file[number]))
        except ValueError as e:
            if str(e).startswith(file.path):
                raise
            raise ValueError(f"{file.path}: record {number}: {e}") from e

    def _shaped(self, example: dict[str, np.ndarray]) -> Example:
        """Single bytes become scalars, other features get the shape that they shall have."""
        for name, value in example.items():
            if name not in self._shapes and value.dtype == object and len(value) == 1:
                example[name] = value[0]
        for name, shape in self._shapes.items():
            if name not in example:
                raise ValueError(f"no feature {name!r}; there are {sorted(example)}")
            shaped = example[name].reshape(tuple(shape))
            example[name] = shaped if shaped.ndim else shaped[()]
        return example


class TFExampleSource:
    """{split: file pattern or patterns} of TFRecord files of `tf.train.Example`.

    Features come as int64 [n], float32 [n], one as bytes, several as an object array of bytes.

    Args:
      patterns: for each split glob patterns.
      shapes: {feature: shape} to give; () makes a scalar, one -1 is whatever is left. An example
        without a feature named here, or of another size, is an error.
    """

    def __init__(
        self,
        patterns: Mapping[str, str | os.PathLike | Sequence],
        shapes: Mapping[str, Sequence[int]] | None = None,
    ):
        self._patterns = dict(patterns)
        self._shapes = dict(shapes or {})

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self._patterns)

    def sequence(self, split: str) -> Sequence[Example]:
        check_split(split, self.splits, "the source")
        paths = expand_patterns(self._patterns[split], f"split {split!r}")
        return _TFExamples(paths, self._shapes)


def write_tfrecord(path: str | os.PathLike, records: Iterable[bytes]) -> int:
    """Write records to one file, which appears when it is complete; return how many."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        for record in records:
            length = struct.pack("<Q", len(record))
            file.write(length + _FOOTER.pack(masked_crc32c(length)))
            file.write(record + _FOOTER.pack(masked_crc32c(record)))
            count += 1
    return count
