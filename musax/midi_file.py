"""Standard MIDI files as tables of events, read and written without third-party parsers.

`parse` keeps what notes need: channel messages, tempo and time signatures. It follows the file
format's rules for running status, system-exclusive data and unknown chunks. Of a damaged file it
reads what can be read, and says in one warning what was skipped.
"""

import dataclasses
import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

NOTE_OFF, NOTE_ON, CONTROL, PROGRAM = 0x8, 0x9, 0xB, 0xC
DEFAULT_TEMPO_US = 500_000
_DATA_BYTES = {0x8: 2, 0x9: 2, 0xA: 2, 0xB: 2, 0xC: 1, 0xD: 1, 0xE: 2}
#: Longest time between events that fits the four bytes which readers accept, ticks.
LONGEST_DELTA = (1 << 28) - 1
_SHOWN_PROBLEMS = 3


class MidiError(ValueError):
    """A MIDI file that cannot be read; the message names the file and what is wrong."""


class MidiWarning(UserWarning):
    """A MIDI file of which a part was skipped; the message names the file and the part."""


@dataclasses.dataclass(frozen=True)
class TempoMap:
    """Tempo changes of a track or file.

    Attributes:
      ticks, us: int64 [M], microseconds per quarter note from each tick on; the first tick is 0.
      ticks_per_quarter: resolution; for SMPTE time, ticks per half second (with a constant tempo).
    """

    ticks: np.ndarray
    us: np.ndarray
    ticks_per_quarter: float

    def seconds(self, ticks: np.ndarray) -> np.ndarray:
        """Return float64 seconds of each tick."""
        scale, starts = self._segments()
        at = np.searchsorted(self.ticks, ticks, side="right") - 1
        return starts[at] + (ticks - self.ticks[at]) * scale[at]

    def ticks_at(self, seconds: np.ndarray) -> np.ndarray:
        """Return float64 ticks at each time, s; the inverse of `seconds`."""
        scale, starts = self._segments()
        at = np.maximum(np.searchsorted(starts, seconds, side="right") - 1, 0)
        return self.ticks[at] + (seconds - starts[at]) / scale[at]

    def _segments(self) -> tuple[np.ndarray, np.ndarray]:
        """Return seconds per tick and the start in seconds of each tempo."""
        scale = self.us / (1e6 * self.ticks_per_quarter)
        starts = np.concatenate([[0.0], np.cumsum(np.diff(self.ticks) * scale[:-1])])
        return scale, starts


@dataclasses.dataclass(frozen=True)
class MidiFile:
    """The contents of a Standard MIDI file.

    Attributes:
      tracks: per track an int64 array [N, 5] of tick, kind (status >> 4), channel, data 1, data 2.
      tempo_maps: one a track; in format 2 its own, otherwise the same for all.
      signatures: int64 [S, 3], tick, numerator and denominator of each time signature; the first
        tick is 0, by default with 4/4. In format 2 those of the first track.
      track_names: one string a track, empty if unnamed.
      format: 0, 1, or 2, whose tracks are pieces of their own.
    """

    tracks: list[np.ndarray]
    tempo_maps: list[TempoMap]
    signatures: np.ndarray
    track_names: list[str]
    format: int


def read_source(source: str | os.PathLike | bytes) -> tuple[bytes, str]:
    """Return the bytes of a path, or those given, and what messages call them."""
    if isinstance(source, bytes):
        return source, "MIDI data"
    return Path(source).read_bytes(), os.fspath(source)


def _is_audio(data: bytes) -> bool:
    """Return whether a file begins as WAV, FLAC, Ogg, MP3 or AIFF does."""
    return data[8:12] in (b"WAVE", b"AIFF", b"AIFC") or data.startswith(
        (b"fLaC", b"OggS", b"ID3", b"\xff\xfb")
    )


def parse(data: bytes, source: str = "MIDI data", *, strict: bool = False) -> MidiFile:
    """Parse a Standard MIDI file of format 0, 1 or 2.

    Args:
      data: the file.
      source: its name, for messages.
      strict: refuse what is not according to the format, instead of skipping it with a
        `MidiWarning`.

    Raises:
      MidiError: naming `source` and the byte where the data stops making sense; without `strict`,
        only where nothing can be read.
    """
    problems = _Problems(source, strict)
    data = _content_of_riff(data, problems)
    if data[:4] != b"MThd":
        start = data[:_MOST_BYTES_BEFORE].find(b"MThd")
        if start < 0:
            hint = "; it is audio: musax transcribe makes MIDI of it" if _is_audio(data) else ""
            raise MidiError(f"{source}: not a MIDI file: it does not start with 'MThd'{hint}")
        problems.add(0, f"{start} bytes before the header")
        data = data[start:]
    if len(data) < 14:
        raise MidiError(f"{source}: the header needs 14 bytes, the file has {len(data)}")
    header_length = int.from_bytes(data[4:8])
    if header_length < 6:
        raise MidiError(f"{source}: header length {header_length}, expected at least 6")
    resolution, smpte = _resolution(data[12:14], source)
    kind = int.from_bytes(data[8:10])
    tracks = _read_tracks(data, 8 + header_length, problems)
    if not tracks:
        raise MidiError(f"{source}: no track chunk")
    problems.report(any(track.events for track in tracks))
    if kind == 2:
        tempos = [track.tempos for track in tracks]
    else:
        tempos = [[tempo for track in tracks for tempo in track.tempos]] * len(tracks)
    signed = tracks[:1] if kind == 2 else tracks
    return MidiFile(
        [np.array(track.events, np.int64).reshape(-1, 5) for track in tracks],
        [_tempo_map([] if smpte else changes, resolution) for changes in tempos],
        _signatures([change for track in signed for change in track.signatures]),
        [track.name for track in tracks],
        kind,
    )


_MOST_BYTES_BEFORE = 4096


class _Problems:
    """What is skipped in a damaged file."""

    def __init__(self, source: str, strict: bool):
        self._source, self.strict = source, strict
        self._found: list[str] = []

    def add(self, position: int, what: str) -> None:
        """Note what is skipped; raise MidiError instead if nothing may be."""
        if self.strict:
            raise MidiError(f"{self._source}: byte {position}: {what}")
        self._found.append(f"byte {position}: {what}")

    def report(self, anything_left: bool) -> None:
        """Warn once of all; raise MidiError if nothing was read but damage."""
        if not self._found:
            return
        if not anything_left:
            raise MidiError(f"{self._source}: damaged: {self._found[0]}; nothing else can be read")
        shown = "; ".join(self._found[:_SHOWN_PROBLEMS])
        more = len(self._found) - _SHOWN_PROBLEMS
        warnings.warn(
            f"{self._source}: damaged; skipped: {shown}" + (f"; {more} more" if more > 0 else ""),
            MidiWarning,
            stacklevel=4,
        )


@dataclasses.dataclass
class _Track:
    """What a track chunk holds; ticks are absolute."""

    events: list[tuple[int, int, int, int, int]] = dataclasses.field(default_factory=list)
    tempos: list[tuple[int, int]] = dataclasses.field(default_factory=list)
    signatures: list[tuple[int, int, int]] = dataclasses.field(default_factory=list)
    name: str = ""


def _content_of_riff(data: bytes, problems: _Problems) -> bytes:
    """Return the MIDI file in a RIFF file of type RMID, or the data of any other."""
    if data[:4] != b"RIFF" or data[8:12] != b"RMID":
        return data
    position = 12
    while position + 8 <= len(data):
        length = int.from_bytes(data[position + 4 : position + 8], "little")
        if data[position : position + 4] == b"data":
            if position + 8 + length > len(data):
                problems.add(position, "a chunk that is longer than the file")
            return data[position + 8 : position + 8 + length]
        position += 8 + length + length % 2
    return data[20:]


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


def _read_tracks(data: bytes, position: int, problems: _Problems) -> list[_Track]:
    """Return the tracks from `position` on; other chunks are skipped."""
    tracks = []
    while position + 8 <= len(data):
        length = int.from_bytes(data[position + 4 : position + 8])
        end = position + 8 + length
        if data[position : position + 4] == b"MTrk":
            track, position = _parse_track(data, position + 8, end, problems)
            tracks.append(track)
        elif end <= len(data):
            position = end
        else:
            # No chunk begins here, or a longer one than the file: a track may come later.
            found = data.find(b"MTrk", position + 1)
            problems.add(position, "no chunk")
            position = found if found >= 0 else len(data)
    return tracks


def _parse_track(data: bytes, position: int, end: int, problems: _Problems) -> tuple[_Track, int]:
    """Return a track and where the next chunk begins; `end` is where its header says it ends."""
    if end > len(data):
        problems.add(position - 8, f"the end of a track of {end - position} bytes; it is cut off")
    wrong_length = end < len(data) and not data[end : end + 4].isalnum()  # no chunk begins there
    track, tick, status = _Track(), 0, 0
    while position < min(end, len(data)) or (wrong_length and position < len(data)):
        try:
            delta, position = _variable_length(data, position)
            tick += delta
            first = data[position]
            if first & 0x80:
                position += 1
                if first >= 0xF0:
                    position, meta, body = _skip_long_event(data, position, first)
                    if meta == 0x2F:
                        break
                    _keep_meta(track, tick, meta, body)
                    if problems.strict and first in (0xF0, 0xF7, 0xFF):
                        status = 0  # ends running status, though many programs go on with it
                    continue
                status = first
            elif not status:
                problems.add(position, "the rest of a track, data without a status byte")
                return track, _next_track(data, position, end)
            size = _DATA_BYTES[status >> 4]
            values = data[position : position + size]
            position += size
            if len(values) < size:
                raise IndexError
        except IndexError:
            problems.add(len(data), "an event that runs past the end of the file")
            return track, len(data)
        if max(values) & 0x80:
            problems.add(position - size, "an event with a data byte above 127")
            continue
        second = values[1] if size == 2 else 0
        track.events.append((tick, status >> 4, status & 15, values[0], second))
    if position == end or end > len(data):
        return track, position
    following = _next_track(data, position, end)
    if following != end:
        problems.add(
            position, f"the length of a track; it ends {end - position:+d} bytes from there"
        )
    return track, following


def _next_track(data: bytes, position: int, end: int) -> int:
    """Return where the next chunk begins after a track that ended at `position`, or at `end`."""
    if data[position : position + 4] == b"MTrk":
        return position
    if end >= len(data) or data[end : end + 4] == b"MTrk":
        return end
    found = data.find(b"MTrk", position)
    return found if found >= 0 else max(position, end)


def _keep_meta(track: _Track, tick: int, meta: int, body: bytes) -> None:
    """Add what a meta event says to a track."""
    if meta == 0x51 and len(body) == 3:
        track.tempos.append((tick, int.from_bytes(body)))
    elif meta == 0x58 and len(body) >= 2 and body[0] and body[1] < 8:
        track.signatures.append((tick, body[0], 1 << body[1]))
    elif meta == 0x03 and not track.name:
        track.name = body.decode("latin-1")


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
    """Return (value, next position) of a variable-length quantity of at most 5 bytes."""
    value = 0
    for _ in range(5):
        byte = data[position]
        position += 1
        value = value << 7 | byte & 0x7F
        if not byte & 0x80:
            return value, position
    raise IndexError


def _tempo_map(tempos: list[tuple[int, int]], resolution: float) -> TempoMap:
    """Return ascending tempo changes; of changes at one tick the last in the file counts."""
    latest = {0: DEFAULT_TEMPO_US}
    latest.update((tick, tempo) for tick, tempo in tempos if tempo > 0)
    ticks = np.array(sorted(latest), np.int64)
    us = np.array([latest[tick] for tick in ticks.tolist()], np.int64)
    return TempoMap(ticks, us, resolution)


def _signatures(changes: list[tuple[int, int, int]]) -> np.ndarray:
    """Return ascending time signatures; of changes at one tick the last in the file counts."""
    latest = {0: (4, 4)} | {tick: (over, under) for tick, over, under in changes}
    return np.array([(tick, *latest[tick]) for tick in sorted(latest)], np.int64)


def serialize(
    tracks: list[np.ndarray],
    track_names: list[str],
    ticks_per_quarter: int,
    tempi_us: Sequence[tuple[int, int]],
) -> bytes:
    """Return a format-1 file in 4/4; `tracks` as in `MidiFile`, each sorted by tick.

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
            while tick - previous > LONGEST_DELTA:  # an empty text breaks a longer pause
                body += _encode_length(LONGEST_DELTA) + b"\xff\x01\x00"
                previous += LONGEST_DELTA
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
