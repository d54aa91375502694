"""Text files, and their lines as examples with random access."""

import bz2
import gzip
import lzma
import mmap
import os
from collections.abc import Mapping, Sequence

import numpy as np

from t5x.data.features import Example
from t5x.data.sources import check_split, expand_patterns

_UNPACK = {".gz": gzip.open, ".xz": lzma.open, ".bz2": bz2.open}
_NEWLINE = 10


class _Lines(Sequence):
    """Lines of several files. Offsets are found once; packed files are held in memory unpacked."""

    def __init__(self, paths: Sequence[str], key: str, skip: int):
        self._paths, self._key, self._skip = list(paths), key, skip
        self._spans: list[np.ndarray] | None = None
        self._data: list = [None] * len(self._paths)

    def __len__(self) -> int:
        return sum(len(spans) for spans in self._index())

    def __getitem__(self, index: int) -> Example:  # type: ignore[override]
        if index < 0:
            raise IndexError(index)
        line = index
        for number, spans in enumerate(self._index()):
            if line < len(spans):
                begin, end = spans[line]
                raw = bytes(self._open(number)[begin:end]).removesuffix(b"\r")
                return {self._key: self._decode(raw, number, line)}  # type: ignore[dict-item]
            line -= len(spans)
        raise IndexError(f"line {index} of {len(self)}")

    def __getstate__(self):
        return {**vars(self), "_spans": self._index(), "_data": [None] * len(self._paths)}

    def _decode(self, raw: bytes, number: int, line: int) -> str:
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as e:
            where = f"{self._paths[number]}, line {line + 1 + self._skip}"
            raise ValueError(f"{where}: not UTF-8 ({e.reason}); convert the file to UTF-8") from e

    def _open(self, number: int):
        if self._data[number] is None:
            self._data[number] = read_file(self._paths[number])
        return self._data[number]

    def _index(self) -> list[np.ndarray]:
        if self._spans is None:
            spans = (_line_spans(self._open(i)) for i in range(len(self._paths)))
            self._spans = [each[self._skip :] for each in spans]
        return self._spans


def read_file(path: str) -> bytes | mmap.mmap:
    """The bytes of a file, unpacked if it ends in .gz, .xz or .bz2; others are mapped, not read.

    Raises:
      ValueError: naming the file that cannot be unpacked.
    """
    unpack = _UNPACK.get(os.path.splitext(path)[1])
    if unpack is None:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                return b""
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    try:
        with unpack(path, "rb") as file:
            return file.read()
    except (OSError, EOFError, lzma.LZMAError) as e:
        raise ValueError(f"{path}: cannot be unpacked: {e}; copy the file again") from e


def read_text(path: str) -> str:
    """The text of a file of UTF-8, unpacked as in `read_file`.

    Raises:
      ValueError: naming the file that cannot be unpacked, or is not UTF-8.
    """
    try:
        return bytes(read_file(path)).decode("utf-8")
    except UnicodeDecodeError as e:
        raise ValueError(
            f"{path}: not UTF-8 ({e.reason}); convert the file, or use its bytes"
        ) from e


def _line_spans(data) -> np.ndarray:
    """Begin and end of each line without its newline, int64 [n, 2]."""
    ends = np.flatnonzero(np.frombuffer(data, np.uint8) == _NEWLINE)
    if len(data) and (not ends.size or ends[-1] != len(data) - 1):
        ends = np.append(ends, len(data))
    begins = np.concatenate([[0], ends[:-1] + 1]) if ends.size else ends
    return np.stack([begins, ends], axis=1).astype(np.int64)


class TextLineSource:
    """{split: file pattern or patterns} of UTF-8 text; each line is one example {key: str}.

    Files that end in .gz, .xz or .bz2 are unpacked into memory.

    Args:
      patterns: for each split glob patterns.
      key: name of the feature.
      skip_header_lines: lines to leave out at the start of every file.

    Raises (when read):
      FileNotFoundError: naming the pattern that matches no file.
      ValueError: naming the file that cannot be unpacked, or file and line that are not UTF-8.
    """

    def __init__(
        self,
        patterns: Mapping[str, str | os.PathLike | Sequence],
        key: str = "text",
        skip_header_lines: int = 0,
    ):
        self._patterns = dict(patterns)
        self._key = key
        self._skip = skip_header_lines

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self._patterns)

    def sequence(self, split: str) -> Sequence[Example]:
        check_split(split, self.splits, "the source")
        paths = expand_patterns(self._patterns[split], f"split {split!r}")
        return _Lines(paths, self._key, self._skip)
