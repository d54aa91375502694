"""How much audio a header promises, in files made byte by byte."""

import struct

import pytest
import soundfile

from musax._audio_headers import Extent, ogg_breaks_off, sample_bytes
from tests.musax.test_audio import tones

SAMPLES = bytes(range(100))


def riff(magic=b"RIFF", order="<"):
    """WAV with a chunk of odd length, and so a byte of padding, before the samples."""
    fields = [(b"LIST", b"abc\0", 3), (b"data", SAMPLES, len(SAMPLES))]
    chunks = b"".join(name + struct.pack(order + "I", n) + body for name, body, n in fields)
    return magic + struct.pack(order + "I", 4 + len(chunks)) + b"WAVE" + chunks


def rf64():
    sizes = struct.pack("<QQQI", 0, len(SAMPLES), 0, 0)
    data = b"data" + b"\xff" * 4 + SAMPLES
    return b"RF64" + b"\xff" * 4 + b"WAVEds64" + struct.pack("<I", len(sizes)) + sizes + data


def w64():
    tail = b"\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"
    other = b"list" + tail + struct.pack("<Q", 24 + 3) + b"abc" + bytes(5)
    data = b"data" + tail + struct.pack("<Q", 24 + len(SAMPLES)) + SAMPLES
    return b"riff" + bytes(36) + other + data


def aiff():
    comment = b"ANNO" + struct.pack(">I", 3) + b"abc\0"
    sound = b"SSND" + struct.pack(">I", 8 + len(SAMPLES)) + bytes(8) + SAMPLES
    return b"FORM" + struct.pack(">I", 0) + b"AIFF" + comment + sound


def au(magic=b".snd", order=">"):
    return magic + struct.pack(order + "IIIII", 24, len(SAMPLES), 3, 8000, 1) + SAMPLES


def caf():
    info = b"info" + struct.pack(">q", 3) + b"abc"  # no padding
    data = b"data" + struct.pack(">q", 4 + len(SAMPLES)) + bytes(4) + SAMPLES
    return b"caff" + bytes(4) + info + data


FILES = {
    "wav": riff(),
    "big-endian wav": riff(b"RIFX", ">"),
    "rf64": rf64(),
    "w64": w64(),
    "aiff": aiff(),
    "au": au(),
    "little-endian au": au(b"dns.", "<"),
    "caf": caf(),
}


@pytest.mark.parametrize("data", FILES.values(), ids=FILES)
def test_samples_are_counted_to_the_byte(tmp_path, data):
    path = tmp_path / "a"
    for missing in (0, 1, 40):
        path.write_bytes(data[: len(data) - missing])
        assert sample_bytes(path) == Extent(100 - missing, 100)
    for length in range(len(data) - 100):
        path.write_bytes(data[:length])
        assert sample_bytes(path) in (None, Extent(0, 100))


def test_sizes_that_lead_beyond_every_file_end_the_search(tmp_path):
    path = tmp_path / "a"
    for size in (2**62, 2**64 - 1):
        path.write_bytes(b"riff" + bytes(36) + b"list" * 4 + struct.pack("<Q", size) + bytes(99))
        assert sample_bytes(path) is None


def test_an_ogg_file_is_whole_with_the_last_byte_of_its_last_page(tmp_path):
    path = tmp_path / "a.ogg"
    soundfile.write(path, tones(2.0), 44100, format="OGG", subtype="VORBIS")
    data = path.read_bytes()
    assert not ogg_breaks_off(path)
    last = data.rfind(b"OggS")
    for end in (len(data) - 1, last + 27, last + 5, last):
        path.write_bytes(data[:end])
        assert ogg_breaks_off(path), end
