"""Read SF2 and SF3 soundfonts: presets, the regions that a key strikes, and samples.

After the SoundFont 2.01 specification: preset zones refer to instruments, instrument zones to
samples; generators of instruments are absolute, those of presets are added. Modulators, ROM samples
and 24-bit extensions are not read. SF3 is the same with samples in Ogg Vorbis.
"""

import dataclasses
import enum
import functools
import io
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile

from musax.rendering.soundfonts import SoundfontError

_NAME = ("name", "S20")
_RECORDS = {
    b"phdr": np.dtype([_NAME, *((f, "<u2") for f in ("program", "bank", "bag")), ("more", "V12")]),
    b"pbag": np.dtype([("gen", "<u2"), ("mod", "<u2")]),
    b"pgen": np.dtype([("oper", "<u2"), ("amount", "<i2")]),
    b"inst": np.dtype([_NAME, ("bag", "<u2")]),
    b"ibag": np.dtype([("gen", "<u2"), ("mod", "<u2")]),
    b"igen": np.dtype([("oper", "<u2"), ("amount", "<i2")]),
    b"shdr": np.dtype(
        [
            _NAME,
            *((f, "<u4") for f in ("start", "end", "loop_start", "loop_end", "rate")),
            *[("key", "u1"), ("correction", "i1"), ("link", "<u2"), ("type", "<u2")],
        ]
    ),
}
#: Bank of the presets that are drum kits.
DRUM_BANK = 128

_VORBIS, _ROM = 0x10, 0x8000  # flags of a sample's type


class Generator(enum.IntEnum):
    """The generators of the specification that are used; times in timecents, levels in cB."""

    START, END, LOOP_START, LOOP_END, START_COARSE = range(5)
    MOD_LFO_TO_PITCH, VIB_LFO_TO_PITCH, MOD_ENV_TO_PITCH = range(5, 8)
    FILTER_FC, FILTER_Q, MOD_LFO_TO_FILTER, MOD_ENV_TO_FILTER, END_COARSE = range(8, 13)
    MOD_LFO_TO_VOLUME = 13
    PAN = 17
    MOD_LFO_DELAY, MOD_LFO_FREQUENCY, VIB_LFO_DELAY, VIB_LFO_FREQUENCY = range(21, 25)
    MOD_ENV = 25  # the first of delay, attack, hold, decay, sustain, release, key to hold, to decay
    VOLUME_ENV = 33  # the same eight
    INSTRUMENT = 41
    KEY_RANGE, VELOCITY_RANGE, LOOP_START_COARSE = 43, 44, 45
    ATTENUATION = 48
    LOOP_END_COARSE, COARSE_TUNE, FINE_TUNE, SAMPLE, SAMPLE_MODES = range(50, 55)
    SCALE_TUNING, EXCLUSIVE_CLASS, ROOT_KEY = 56, 57, 58


_COUNT = 61
#: Fine and coarse offsets of a sample's addresses.
_ADDRESSES = (
    (Generator.START, Generator.START_COARSE),
    (Generator.END, Generator.END_COARSE),
    (Generator.LOOP_START, Generator.LOOP_START_COARSE),
    (Generator.LOOP_END, Generator.LOOP_END_COARSE),
)
_INSTRUMENT_ONLY = (*range(5), 12, 45, 46, 47, 50, 53, 54, 57, 58)  # presets may not change these


def _defaults() -> np.ndarray:
    values = np.zeros(_COUNT, np.int64)
    values[Generator.FILTER_FC] = 13500
    values[[21, 23, *range(25, 29), 30, *range(33, 37), 38]] = -12000
    values[[46, 47, Generator.ROOT_KEY]] = -1
    values[Generator.SCALE_TUNING] = 100
    return values


@dataclasses.dataclass(frozen=True)
class Region:
    """A zone of keys and velocities: its sample and how it is played.

    Attributes:
      keys, velocities: inclusive ranges.
      generators: int64 [61], by `Generator`.
      samples: float32 [n], full scale 1.0.
      loop: first sample and end of the loop; empty without a loop.
      rate: sample rate, Hz.
      root_key: MIDI key that plays the samples at this rate, if `tune` is 0.
      tune: semitones.
    """

    keys: tuple[int, int]
    velocities: tuple[int, int]
    generators: np.ndarray
    samples: np.ndarray
    loop: tuple[int, int]
    rate: int
    root_key: int
    tune: float


class SoundfontFile:
    """A soundfont on disk; samples are read when they are first played."""

    def __init__(self, path: str | os.PathLike[str]):
        """
        Raises:
          SoundfontError: the file is not a soundfont, or damaged.
        """
        self.path = Path(path)
        with open(path, "rb") as file:
            header = file.read(12)
            if header[:4] != b"RIFF" or header[8:12] != b"sfbk":
                raise SoundfontError(f"{path}: not a soundfont (expected a RIFF file of type sfbk)")
            self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        # Searched for, because some banks do not pad odd chunks as RIFF asks.
        tables, samples = self._data.rfind(b"pdtaphdr"), self._data.find(b"sdtasmpl")
        if tables < 0 or samples < 0:
            raise self._damaged("no samples or no presets")
        self._samples_begin = samples + 12
        self._tables = dict(self._read_tables(tables + 4))
        headers = self._table(b"phdr")[:-1]
        self._numbers = {}
        for number, (bank, program) in enumerate(zip(headers["bank"], headers["program"])):
            self._numbers.setdefault((int(bank), int(program)), number)
        self.regions = functools.cache(self._regions)
        self._samples = functools.cache(self._read_samples)

    @property
    def presets(self) -> list[tuple[int, int]]:
        """(bank, program) of every preset, in ascending order; bank 128 holds drum kits."""
        return sorted(self._numbers)

    def _damaged(self, why: object) -> SoundfontError:
        return SoundfontError(f"{self.path}: damaged soundfont ({why}); fetch it again")

    def _read_tables(self, at: int) -> Iterator[tuple[bytes, np.ndarray]]:
        while at + 8 <= len(self._data):
            name, length = self._data[at : at + 4], self._data[at + 4 : at + 8]
            size = int.from_bytes(length, "little")
            record = _RECORDS.get(name)
            if record is not None and at + 8 + size <= len(self._data):
                yield name, np.frombuffer(self._data, record, size // record.itemsize, at + 8)
            at += 8 + size + size % 2

    def _table(self, name: bytes) -> np.ndarray:
        table = self._tables.get(name)
        if table is None or not len(table):
            raise self._damaged(f"no table {name.decode()}")
        return table

    def _regions(self, bank: int, program: int) -> tuple[Region, ...]:
        """Return the regions of a preset.

        Raises:
          KeyError: the preset is missing.
          SoundfontError: the file is damaged.
        """
        number = self._numbers[bank, program]
        try:
            return tuple(self._read_regions(number))
        except (IndexError, ValueError, soundfile.SoundFileError) as error:
            raise self._damaged(error) from error

    def _read_regions(self, number: int) -> Iterator[Region]:
        for added in self._zones(b"p", b"phdr", number, Generator.INSTRUMENT):
            instrument = added[Generator.INSTRUMENT]
            for own in self._zones(b"i", b"inst", instrument, Generator.SAMPLE):
                region = self._region(own, added)
                if region is not None:
                    yield region

    def _zones(
        self, level: bytes, table: bytes, number: int, refers: Generator
    ) -> Iterator[dict[int, int]]:
        """Yield {generator: amount} of the zones of a preset or instrument.

        The first zone is global if it refers to nothing: its generators are defaults of the others.
        """
        headers, bags, generators = (
            self._table(name) for name in (table, level + b"bag", level + b"gen")
        )
        common: dict[int, int] = {}
        first, last = int(headers["bag"][number]), int(headers["bag"][number + 1])
        for bag in range(first, last):
            rows = generators[int(bags["gen"][bag]) : int(bags["gen"][bag + 1])]
            zone = dict(zip(rows["oper"].tolist(), rows["amount"].tolist()))
            if refers in zone:
                yield common | zone
            elif bag == first:
                common = zone

    def _region(self, own: dict[int, int], added: dict[int, int]) -> Region | None:
        ranges = []
        for generator in (Generator.KEY_RANGE, Generator.VELOCITY_RANGE):
            low, high = 0, 127
            for zone in (own, added):
                amount = zone.get(generator, 127 << 8) & 0xFFFF
                low, high = max(low, amount & 0xFF), min(high, amount >> 8)
            if low > high:
                return None
            ranges.append((low, high))
        header = self._table(b"shdr")[own[Generator.SAMPLE]]
        if header["type"] & _ROM:
            return None
        values = _defaults()
        for oper, amount in own.items():
            if oper < _COUNT:
                values[oper] = amount
        for oper, amount in added.items():
            if oper < _COUNT and oper not in _INSTRUMENT_ONLY:
                values[oper] += amount
        return self._with_samples(ranges, values, header, own[Generator.SAMPLE])

    def _with_samples(
        self, ranges: list[tuple[int, int]], values: np.ndarray, header: np.ndarray, number: int
    ) -> Region | None:
        samples = self._samples(number)
        offsets = {name: int(values[name] + 32768 * values[coarse]) for name, coarse in _ADDRESSES}
        begin, end = offsets[Generator.START], len(samples) + offsets[Generator.END]
        # Loops of SF3 count from the sample's beginning, those of SF2 from the bank's.
        base = 0 if header["type"] & _VORBIS else int(header["start"])
        loop_begin = int(header["loop_start"]) - base + offsets[Generator.LOOP_START]
        loop_end = int(header["loop_end"]) - base + offsets[Generator.LOOP_END]
        if not 0 <= begin < end <= len(samples) or not header["rate"]:
            return None
        looped = begin <= loop_begin < loop_end <= end and values[Generator.SAMPLE_MODES] & 1
        root = int(values[Generator.ROOT_KEY])
        if not 0 <= root <= 127:
            root = int(header["key"]) if header["key"] <= 127 else 60
        cents = int(values[Generator.FINE_TUNE]) + int(header["correction"])
        return Region(
            ranges[0],
            ranges[1],
            values,
            samples[begin:end],
            (loop_begin - begin, loop_end - begin) if looped else (0, 0),
            int(header["rate"]),
            root,
            int(values[Generator.COARSE_TUNE]) + cents / 100,
        )

    def _read_samples(self, number: int) -> np.ndarray:
        header = self._table(b"shdr")[number]
        begin, end = int(header["start"]), int(header["end"])
        if header["type"] & _VORBIS:
            stored = self._data[self._samples_begin + begin : self._samples_begin + end]
            return soundfile.read(io.BytesIO(stored), dtype="float32")[0]
        if end <= begin:
            return np.zeros(0, np.float32)
        at = self._samples_begin + 2 * begin
        return np.frombuffer(self._data, "<i2", end - begin, at).astype(np.float32) / 32768
