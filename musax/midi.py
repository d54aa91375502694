"""Notes to and from MIDI files, pretty_midi objects and NoteSequences.

A note-off ends every sounding note of its pitch and channel, except one struck at the same tick
(pretty_midi's rule); a note never ended is dropped. The sustain pedal (CC64) of a channel, in
whichever track it stands, lengthens that channel's notes as in `musax.notes.apply_sustain`. A track
without program changes of a channel has those of the other tracks.
"""

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from musax import midi_file
from musax.general_midi import PROGRAM_NAMES
from musax.midi_file import MidiError, MidiWarning, read_source
from musax.notes import (
    DRUM_INSTRUMENT,
    apply_sustain,
    assign_instruments,
    empty_notes,
    make_controls,
    make_notes,
    sort_notes,
    validate_notes,
    voice_keys,
)
from musax.timeline import load_timeline
from t5x.files import write_bytes

__all__ = [
    "MidiError",
    "MidiWarning",
    "from_note_sequence",
    "from_pretty_midi",
    "load_midi",
    "midi_tempo",
    "midi_to_bytes",
    "save_midi",
    "to_note_sequence",
    "to_pretty_midi",
]

_NUM_CHANNELS = 16
_FASTEST_LEAD = 960.0  # quarters per minute


def load_midi(
    source: str | os.PathLike | bytes, *, sustain: bool = True, strict: bool = False
) -> np.ndarray:
    """Return the notes of a Standard MIDI file, by onset, times in s under its tempo map.

    Args:
      source: a path, or the bytes of a file.
      sustain: whether the sustain pedal lengthens notes.
      strict: refuse a damaged file; otherwise what can be read is, with a `MidiWarning` that says
        what was skipped.

    Raises:
      MidiError: naming the file, where it cannot be read as MIDI.
      OSError: where the file cannot be opened.
    """
    contents = midi_file.parse(*read_source(source), strict=strict)
    tables, seconds = [], []
    for index, tempo_map in enumerate(contents.tempo_maps):
        tables.append(_channel_notes(_with_programs(contents, index), index))
        seconds.append(tempo_map.seconds(tables[-1][:, :2]))
    _, _, pitch, velocity, program, channel, instrument = np.concatenate(tables).T
    onset, offset = np.concatenate(seconds).T
    notes = make_notes(onset, offset, pitch, velocity, program, channel == DRUM_INSTRUMENT)
    if sustain and len(notes):
        notes = apply_sustain(notes, _controls(contents), instrument)
    return sort_notes(notes)


def midi_tempo(source: str | os.PathLike | bytes) -> float:
    """Return the tempo that lasts longest while a MIDI file's notes sound, quarters per minute.

    Raises:
      MidiError, OSError: see `load_midi`.
    """
    notes = load_midi(source)
    begin, end = (notes["onset"].min(), notes["offset"].max()) if len(notes) else (0.0, 0.0)
    return load_timeline(source).tempo_between(float(begin), float(end))


def _with_programs(contents: midi_file.MidiFile, index: int) -> np.ndarray:
    """Return a track with the program changes of channels for which it has none itself.

    In a file of one piece a channel is an instrument, whichever track sets it up; but tracks that
    share a channel for want of a seventeenth each begin with their own program.
    """
    track = contents.tracks[index]
    if contents.format == 2 or len(contents.tracks) == 1:
        return track
    own = np.unique(track[track[:, 1] == midi_file.PROGRAM, 2])
    others = np.concatenate([t for i, t in enumerate(contents.tracks) if i != index])
    used = np.unique(track[track[:, 1] == midi_file.NOTE_ON, 2])
    others = others[
        (others[:, 1] == midi_file.PROGRAM) & np.isin(others[:, 2], np.setdiff1d(used, own))
    ]
    if not len(others):
        return track
    # Changes of a tick come before its notes.
    merged = np.concatenate([others, track])
    return merged[np.argsort(merged[:, 0], kind="stable")]


def _channel_notes(track: np.ndarray, track_index: int) -> np.ndarray:
    """Return int64 [N, 7]: start and end tick, pitch, velocity, program, channel, instrument."""
    program = [0] * _NUM_CHANNELS
    sounding: dict[tuple[int, int], list[tuple[int, int, int]]] = {}
    found = []
    wanted = np.isin(track[:, 1], (midi_file.NOTE_OFF, midi_file.NOTE_ON, midi_file.PROGRAM))
    for tick, kind, channel, first, second in track[wanted].tolist():
        if kind == midi_file.PROGRAM:
            program[channel] = first
            continue
        voice = (channel, first)
        if kind == midi_file.NOTE_ON and second:
            sounding.setdefault(voice, []).append((tick, second, program[channel]))
            continue
        struck = sounding.pop(voice, [])
        ended = [note for note in struck if note[0] != tick]
        instrument = track_index * _NUM_CHANNELS + channel
        for start, velocity, its_program in ended:
            found.append((start, tick, first, velocity, its_program, channel, instrument))
        if 0 < len(ended) < len(struck):
            sounding[voice] = [note for note in struck if note[0] == tick]
    return np.array(found, np.int64).reshape(-1, 7)


def _controls(contents: midi_file.MidiFile) -> np.ndarray:
    """Return the control changes of each track, and of the others on the channels that it plays."""
    tables = [track[track[:, 1] == midi_file.CONTROL] for track in contents.tracks]
    found = []
    for index, (track, table) in enumerate(zip(contents.tracks, tables)):
        if contents.format != 2:
            played = np.unique(track[track[:, 1] == midi_file.NOTE_ON, 2])
            others = [other for i, other in enumerate(tables) if i != index]
            shared = [other[np.isin(other[:, 2], played)] for other in others]
            table = np.concatenate([table, *shared])
        tick, _, channel, number, value = table.T
        seconds = contents.tempo_maps[index].seconds(tick)
        found.append(make_controls(seconds, number, value, index * _NUM_CHANNELS + channel))
    controls = np.concatenate(found)
    return controls[np.argsort(controls["time"], kind="stable")]


def save_midi(
    path: str | os.PathLike,
    notes: np.ndarray,
    *,
    tempo: float = 120.0,
    ticks_per_quarter: int = 1000,
    first_beat: float = 0.0,
) -> None:
    """Write notes as a format-1 MIDI file with one named track per program; complete or not at all.

    Args:
      path: the file to write.
      notes: note array [N].
      tempo: quarter notes per minute; it sets where bar lines fall, not the times of notes.
      ticks_per_quarter: resolution, 1 to 32767; times are rounded to
        60 / (tempo * ticks_per_quarter) s (0.5 ms by default).
      first_beat: when the first quarter ends that the file counts, s; it gets a tempo of its own,
        so that later beats fall on the grid of a sequencer while notes keep their times. 0 for
        the same tempo from the beginning. Where that tempo would be above 960, which sequencers
        do not take, the first quarter ends a beat later.

    A note lasts at least one tick and ends where its pitch is next struck, so that a reader
    finds the same notes again.
    """
    path = Path(path)
    data = midi_to_bytes(
        notes,
        tempo=tempo,
        ticks_per_quarter=ticks_per_quarter,
        first_beat=first_beat,
        source=str(path),
    )
    write_bytes(path, data)


def midi_to_bytes(
    notes: np.ndarray,
    *,
    tempo: float = 120.0,
    ticks_per_quarter: int = 1000,
    first_beat: float = 0.0,
    source: str = "notes",
) -> bytes:
    """Return the bytes that `save_midi` writes; raise ValueError for bad notes, tempo or beat."""
    validate_notes(notes, source)
    tempo_us = round(6e7 / tempo) if tempo > 0 else 0
    if not 0 < tempo_us < 1 << 24:
        raise ValueError(f"tempo {tempo} quarter notes per minute cannot be written (3.6 to 6e7)")
    if 0 < first_beat < 60.0 / _FASTEST_LEAD:
        first_beat += 60.0 / tempo
    lead_us = round(first_beat * 1e6)
    if not 0 <= lead_us < 1 << 24:
        raise ValueError(f"first_beat={first_beat} s cannot be written (0 to 16.7 s)")
    if not 0 < ticks_per_quarter < 1 << 15:
        raise ValueError(f"ticks_per_quarter {ticks_per_quarter} is not in 1..32767")
    tempi = [(0, lead_us), (ticks_per_quarter, tempo_us)] if lead_us else [(0, tempo_us)]
    clock = functools.partial(
        _ticks, ticks_per_quarter=ticks_per_quarter, lead_us=lead_us, tempo_us=tempo_us
    )
    instruments = assign_instruments(notes)
    tracks, names = [], []
    for instrument in np.unique(instruments):
        part = notes[instruments == instrument]
        channel, name = DRUM_INSTRUMENT, "Drums"
        if not part["is_drum"].all():
            # 15 melodic channels; beyond those, tracks share channels.
            channel = [c for c in range(_NUM_CHANNELS) if c != DRUM_INSTRUMENT][
                int(instrument - (instrument > DRUM_INSTRUMENT)) % (_NUM_CHANNELS - 1)
            ]
            name = PROGRAM_NAMES[part["program"][0]]
        tracks.append(_track_events(part, clock, channel))
        names.append(name)
    return midi_file.serialize(tracks, names, ticks_per_quarter, tempi)


def _ticks(
    seconds: np.ndarray, *, ticks_per_quarter: int, lead_us: int, tempo_us: int
) -> np.ndarray:
    """Convert times to ticks, int64; the first quarter lasts `lead_us`, if that is not 0."""
    after = ticks_per_quarter * (seconds * 1e6 - lead_us) / tempo_us
    if lead_us:
        after = np.where(
            seconds * 1e6 < lead_us,
            ticks_per_quarter * seconds * 1e6 / lead_us,
            ticks_per_quarter + after,
        )
    return np.rint(after).astype(np.int64)


def _track_events(
    notes: np.ndarray, clock: Callable[[np.ndarray], np.ndarray], channel: int
) -> np.ndarray:
    """Return int64 [E, 5]: one instrument's track, program change first; `clock`: s to ticks."""
    start = clock(notes["onset"])
    end = np.maximum(clock(notes["offset"]), start + 1)
    keys = voice_keys(notes)
    order = np.lexsort((start, keys))
    following = np.append(order[1:], 0)
    restruck = np.append(keys[order[1:]] == keys[order[:-1]], False)
    end[order] = np.where(restruck, np.minimum(end[order], start[following]), end[order])
    kept = end > start
    start, end, part = start[kept], end[kept], notes[kept]
    constant = np.full(len(part), channel)
    offs = np.c_[end, constant * 0 + midi_file.NOTE_OFF, constant, part["pitch"], constant * 0]
    ons = np.c_[start, constant * 0 + midi_file.NOTE_ON, constant, part["pitch"], part["velocity"]]
    events = np.concatenate([offs, ons])
    events = events[np.lexsort((events[:, 1], events[:, 0]))]
    program = int(notes["program"][0]) if len(notes) else 0
    return np.concatenate([[[0, midi_file.PROGRAM, channel, program, 0]], events])


def to_pretty_midi(notes: np.ndarray, *, tempo: float = 120.0) -> Any:
    """Return a `pretty_midi.PrettyMIDI` with one instrument per program, times in seconds."""
    import pretty_midi

    piece = pretty_midi.PrettyMIDI(initial_tempo=tempo)
    instruments = assign_instruments(notes)
    for number in np.unique(instruments):
        part = notes[instruments == number]
        program, is_drum = int(part["program"][0]), bool(part["is_drum"][0])
        name = "Drums" if is_drum else PROGRAM_NAMES[program]
        instrument = pretty_midi.Instrument(program, is_drum, name)
        instrument.notes = [
            pretty_midi.Note(velocity, pitch, onset, offset)
            for onset, offset, pitch, velocity, _, _ in part.tolist()
        ]
        piece.instruments.append(instrument)
    return piece


def from_pretty_midi(piece: Any, *, sustain: bool = True) -> np.ndarray:
    """Return the notes of a `pretty_midi.PrettyMIDI`, by onset; its CC64 lengthens notes."""
    notes, numbers, controls = [], [], []
    for number, instrument in enumerate(piece.instruments):
        for note in instrument.notes:
            row = (note.start, note.end, note.pitch, note.velocity)
            notes.append((*row, instrument.program, instrument.is_drum))
            numbers.append(number)
        controls += [(c.time, c.number, c.value, number) for c in instrument.control_changes]
    return _assemble(notes, numbers, controls, sustain, "PrettyMIDI")


def from_note_sequence(sequence: Any, *, sustain: bool = True) -> np.ndarray:
    """Return the notes of a `note_seq.NoteSequence`, by onset; its CC64 lengthens notes."""
    notes = [
        (n.start_time, n.end_time, n.pitch, n.velocity, n.program, n.is_drum)
        for n in sequence.notes
    ]
    numbers = [n.instrument for n in sequence.notes]
    controls = [
        (c.time, c.control_number, c.control_value, c.instrument) for c in sequence.control_changes
    ]
    return _assemble(notes, numbers, controls, sustain, "NoteSequence")


def to_note_sequence(notes: np.ndarray) -> Any:
    """Return a `note_seq.NoteSequence` of the notes, instruments as `assign_instruments`.

    Needs the note-seq package (its protocol buffers).
    """
    from note_seq.protobuf import music_pb2

    sequence = music_pb2.NoteSequence(ticks_per_quarter=220)
    for row, instrument in zip(notes.tolist(), assign_instruments(notes).tolist()):
        onset, offset, pitch, velocity, program, is_drum = row
        sequence.notes.add(
            start_time=onset,
            end_time=offset,
            pitch=pitch,
            velocity=velocity,
            program=program,
            is_drum=is_drum,
            instrument=instrument,
        )
    sequence.total_time = float(notes["offset"].max()) if len(notes) else 0.0
    return sequence


def _assemble(
    rows: list[tuple], numbers: list[int], controls: list[tuple], sustain: bool, source: str
) -> np.ndarray:
    if not rows:
        return empty_notes()
    notes = validate_notes(make_notes(*zip(*rows)), source)
    if sustain and controls:
        notes = apply_sustain(notes, make_controls(*zip(*controls)), np.array(numbers))
    return sort_notes(notes)
