"""Standard MIDI files as tables of events, read and written without third-party parsers.

`parse` keeps what notes need: channel messages and tempo changes. It follows the file format's
rules for running status, system-exclusive data and unknown chunks, and reports the byte at which a
file is damaged.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

NOTE_OFF, NOTE_ON, CONTROL, PROGRAM = 0x8, 0x9, 0xB, 0xC
DEFAULT_TEMPO_US = 500_000
_DATA_BYTES = {0x8: 2, 0x9: 2, 0xA: 2, 0xB: 2, 0xC: 1, 0xD: 1, 0xE: 2}


class MidiError(ValueError):
    """A MIDI file that cannot be read; the message names the file and what is wrong."""


@dataclasses.dataclass(frozen=True)
class MidiFile:
    """The contents of a Standard MIDI file.

    Attributes:
      tracks: per track an int64 array [N, 5] of tick, kind (status >> 4), channel, data 1, data 2.
      tempo_ticks, tempo_us: int64 [M], microseconds per quarter note from each tick on; the first
        tick is 0.
      ticks_per_quarter: resolution; for SMPTE time, ticks per half second (with a constant tempo).
      track_names: one string a track, empty if unnamed.
    """

    tracks: list[np.ndarray]
    tempo_ticks: np.ndarray
    tempo_us: np.ndarray
    ticks_per_quarter: float
    track_names: list[str]

    def seconds(self, ticks: np.ndarray) -> np.ndarray:
        """Return float64 seconds of each tick under the tempo map."""
        scale = self.tempo_us / (1e6 * self.ticks_per_quarter)
        starts = np.concatenate([[0.0], np.cumsum(np.diff(self.tempo_ticks) * scale[:-1])])
        at = np.searchsorted(self.tempo_ticks, ticks, side="right") - 1
        return starts[at] + (ticks - self.tempo_ticks[at]) * scale[at]


def parse(data: bytes, source: str = "MIDI data") -> MidiFile:
    """Parse a Standard MIDI file of format 0, 1 or 2.

    Raises MidiError naming `source` and the byte where the data stops making sense.
    """
    if data[:4] == b"RIFF" and data[8:12] == b"RMID":
        data = data[20:]
    if data[:4] != b"MThd":
        raise MidiError(f"{source}: not a MIDI file: it does not start with 'MThd'")
    if len(data) < 14:
        raise MidiError(f"{source}: the header needs 14 bytes, the file has {len(data)}")
    header_length = int.from_bytes(data[4:8])
    if header_length < 6:
        raise MidiError(f"{source}: header length {header_length}, expected at least 6")
    resolution, smpte = _resolution(data[12:14], source)
    tracks, names, tempos = [], [], []
    for start, end in _track_chunks(data, 8 + header_length, source):
        events, name = _parse_track(data, start, end, tempos, source)
        tracks.append(np.array(events, np.int64).reshape(-1, 5))
        names.append(name)
    if not tracks:
        raise MidiError(f"{source}: no track chunk")
    ticks, tempo = _tempo_map([] if smpte else tempos)
    return MidiFile(tracks, ticks, tempo, resolution, names)


def _resolution(division: bytes, source: str) -> tuple[float, bool]:
    """Return (ticks per quarter note, whether it stands for SMPTE time)."""
    value = int.from_bytes(division)
    if value & 0x8000:
        frames, ticks = 256 - division[0], division[1]
        rate = (30000 / 1001 if frames == 29 else frames) * ticks
        value, smpte = rate * DEFAULT_TEMPO_US / 1e6, True
    else:
        smpte = False
    if not value:
        raise MidiError(f"{source}: the time division is 0 ticks")
    return value, smpte


def _track_chunks(data: bytes, position: int, source: str) -> list[tuple[int, int]]:
    """Return the byte ranges of the track chunks' contents; other chunks are skipped."""
    chunks = []
    while position + 8 <= len(data):
        kind, length = (
            data[position : position + 4],
            int.from_bytes(data[position + 4 : position + 8]),
        )
        end = position + 8 + length
        if kind == b"MTrk":
            if end > len(data):
                raise MidiError(
                    f"{source}: the track at byte {position} claims {length} bytes, "
                    f"{len(data) - position - 8} are left; the file is cut off"
                )
            chunks.append((position + 8, end))
        position = end
    return chunks


def _parse_track(
    data: bytes, position: int, end: int, tempos: list[tuple[int, int]], source: str
) -> tuple[list[tuple[int, int, int, int, int]], str]:
    """Return events and name of one track; append its tempo changes to `tempos`."""
    events, name, tick, status = [], "", 0, 0
    try:
        while position < end:
            delta = data[position]
            position += 1
            if delta & 0x80:
                delta, position = _variable_length(data, position - 1)
            tick += delta
            first = data[position]
            if first & 0x80:
                status = first
                position += 1
            elif status < 0x80:
                raise MidiError(f"{source}: byte {position}: data without a status byte")
            if status < 0xF0:
                kind = status >> 4
                size = _DATA_BYTES[kind]
                second = data[position + 1] if size == 2 else 0
                if (data[position] | second) & 0x80:
                    raise MidiError(f"{source}: byte {position}: a data byte above 127")
                events.append((tick, kind, status & 15, data[position], second))
                position += size
                continue
            position, meta, body = _skip_long_event(data, position, status)
            if meta == 0x51 and len(body) == 3:
                tempos.append((tick, int.from_bytes(body)))
            elif meta == 0x03 and not name:
                name = body.decode("latin-1")
            elif meta == 0x2F:
                break
            status = 0
        if position > end:
            raise IndexError
    except IndexError:
        raise MidiError(
            f"{source}: an event runs past the end of its track at byte {end}"
        ) from None
    return events, name


def _skip_long_event(data: bytes, position: int, status: int) -> tuple[int, int, bytes]:
    """Return (next position, meta type or -1, body) of a meta, system-exclusive or system event."""
    if status in (0xF0, 0xF7, 0xFF):
        meta = -1
        if status == 0xFF:
            meta = data[position]
            position += 1
        length, position = _variable_length(data, position)
        if position + length > len(data):
            raise IndexError
        return position + length, meta, data[position : position + length]
    return position + {0xF1: 1, 0xF2: 2, 0xF3: 1}.get(status, 0), -1, b""


def _variable_length(data: bytes, position: int) -> tuple[int, int]:
    """Return (value, next position) of a variable-length quantity of at most 4 bytes."""
    value = 0
    for _ in range(4):
        byte = data[position]
        position += 1
        value = value << 7 | byte & 0x7F
        if not byte & 0x80:
            return value, position
    raise IndexError


def _tempo_map(tempos: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """Return ascending ticks and tempi; of changes at one tick the last in the file counts."""
    latest = {0: DEFAULT_TEMPO_US}
    latest.update((tick, tempo) for tick, tempo in tempos if tempo > 0)
    ticks = np.array(sorted(latest), np.int64)
    return ticks, np.array([latest[tick] for tick in ticks.tolist()], np.int64)


def serialize(
    tracks: list[np.ndarray],
    track_names: list[str],
    ticks_per_quarter: int,
    tempi_us: Sequence[tuple[int, int]],
) -> bytes:
    """Return a format-1 file; `tracks` as in `MidiFile`, each sorted by tick.

    `tempi_us` are (tick, microseconds of a quarter), by tick.
    """
    body = b"\x00\xff\x58\x04\x04\x02\x18\x08"  # 4/4
    previous = 0
    for tick, tempo_us in tempi_us:
        body += _encode_length(tick - previous) + b"\xff\x51\x03" + tempo_us.to_bytes(3)
        previous = tick
    chunks = [_chunk(body)]
    for events, name in zip(tracks, track_names):
        title = name.encode("latin-1", "replace")
        body = bytearray(b"\x00\xff\x03" + _encode_length(len(title)) + title)
        previous = 0
        for tick, kind, channel, first, second in events.tolist():
            body += _encode_length(tick - previous)
            body += bytes((kind << 4 | channel, first, second)[: 1 + _DATA_BYTES[kind]])
            previous = tick
        chunks.append(_chunk(bytes(body)))
    header = b"MThd" + (6).to_bytes(4) + (1).to_bytes(2) + len(chunks).to_bytes(2)
    return header + ticks_per_quarter.to_bytes(2) + b"".join(chunks)


def _chunk(body: bytes) -> bytes:
    body += b"\x00\xff\x2f\x00"
    return b"MTrk" + len(body).to_bytes(4) + body


def _encode_length(value: int) -> bytes:
    groups = [value & 0x7F]
    while value := value >> 7:
        groups.append(value & 0x7F | 0x80)
    return bytes(reversed(groups))
