"""How much audio a file's header promises: libsndfile says only how much there is."""

import os
import struct
from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple

#: Sizes from here on stand for "unknown", as in files written to a pipe.
_UNKNOWN_SIZE = 0x7FFFF000
_MOST_CHUNKS = 4096
_TAIL_BYTES = 1 << 17
_W64_DATA = b"data\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"


class Extent(NamedTuple):
    """Bytes of samples in a file.

    Attributes:
      present: in the file.
      declared: by the header.
    """

    present: int
    declared: int


def sample_bytes(path: str | os.PathLike) -> Extent | None:
    """Return how many bytes of samples a file has and should have.

    WAV, RF64, W64, AIFF, AU and CAF; None for other formats, and where the header does not say.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        magic = file.read(12)
        find = next((find for start, find in _FINDERS if magic.startswith(start)), None)
        try:
            found = find(file, magic) if find else None
        except struct.error:  # the header itself is cut
            return None
    if found is None:
        return None
    start, declared = found
    if declared <= 0 or start > size:
        return None
    return Extent(min(declared, size - start), declared)


def ogg_breaks_off(path: str | os.PathLike) -> bool:
    """Return whether an Ogg file lacks the page that ends its stream, or part of that page."""
    with open(path, "rb") as file:
        if file.read(4) != b"OggS":  # another format
            return False
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _TAIL_BYTES))
        tail = file.read()
    start = tail.rfind(b"OggS")
    if start < 0 or len(tail) < start + 27:
        return True
    segments = tail[start + 26]
    lacing = tail[start + 27 : start + 27 + segments]
    whole = len(lacing) == segments and len(tail) >= start + 27 + segments + sum(lacing)
    return not (whole and tail[start + 5] & 4)


# Each finder returns (offset, declared bytes) of the samples, or None.


def _riff(file: BinaryIO, magic: bytes) -> tuple[int, int] | None:
    order = ">" if magic.startswith(b"RIFX") else "<"
    long_size = None
    for name, start, size in _chunks(file, 12, 4, order + "I"):
        if name == b"ds64":
            file.seek(start + 8)
            (long_size,) = struct.unpack("<Q", file.read(8))
        if name == b"data":
            if size < _UNKNOWN_SIZE:
                return start, size
            return None if long_size is None else (start, long_size)
    return None


def _w64(file: BinaryIO, magic: bytes) -> tuple[int, int] | None:
    for name, start, size in _chunks(file, 40, 16, "<Q", header_in_size=24, align=8):
        if name == _W64_DATA:
            return start, size
    return None


def _aiff(file: BinaryIO, magic: bytes) -> tuple[int, int] | None:
    for name, start, size in _chunks(file, 12, 4, ">I"):
        if name == b"SSND" and size < _UNKNOWN_SIZE:
            return start + 8, size - 8
    return None


def _au(file: BinaryIO, magic: bytes) -> tuple[int, int] | None:
    start, size = struct.unpack(">II" if magic.startswith(b".snd") else "<II", magic[4:12])
    return (start, size) if size < _UNKNOWN_SIZE else None


def _caf(file: BinaryIO, magic: bytes) -> tuple[int, int] | None:
    for name, start, size in _chunks(file, 8, 4, ">q", align=1):
        if name == b"data":
            return start + 4, size - 4  # an edit count comes before the samples
    return None


def _chunks(
    file: BinaryIO,
    at: int,
    name_bytes: int,
    size_format: str,
    header_in_size: int = 0,
    align: int = 2,
) -> Iterator[tuple[bytes, int, int]]:
    """Yield (name, offset of the content, its declared size) of the chunks from `at` on."""
    header = name_bytes + struct.calcsize(size_format)
    end = os.fstat(file.fileno()).st_size
    for _ in range(_MOST_CHUNKS):
        if at >= end:
            return
        file.seek(at)
        name, size_field = file.read(name_bytes), file.read(header - name_bytes)
        (size,) = struct.unpack(size_format, size_field)
        content = size - header_in_size
        yield name, at + header, content
        if content < 0:
            return
        at += header + content + -content % align


_FINDERS: tuple[tuple[bytes, Callable[[BinaryIO, bytes], tuple[int, int] | None]], ...] = (
    (b"RIFF", _riff),
    (b"RIFX", _riff),
    (b"RF64", _riff),
    (b"riff", _w64),
    (b"FORM", _aiff),
    (b".snd", _au),
    (b"dns.", _au),
    (b"caff", _caf),
)
