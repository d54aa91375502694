"""MIDI files for tests, as bytes."""

import io
from collections.abc import Iterable

import mido

Event = tuple[int, mido.Message | mido.MetaMessage]


def midi_file(*tracks: Iterable[Event], kind: int = 1, ticks_per_beat: int = 480) -> bytes:
    """Return a file of tracks of (tick, message), each in the order of its ticks."""
    file = mido.MidiFile(type=kind, ticks_per_beat=ticks_per_beat)
    for events in tracks:
        track, now = mido.MidiTrack(), 0
        for tick, message in events:
            track.append(message.copy(time=tick - now))
            now = tick
        file.tracks.append(track)
    buffer = io.BytesIO()
    file.save(file=buffer)
    return buffer.getvalue()


def tempo(bpm: float) -> mido.MetaMessage:
    """Return a change to a tempo, quarter notes per minute."""
    return mido.MetaMessage("set_tempo", tempo=round(6e7 / bpm))


def metre(over: int, under: int) -> mido.MetaMessage:
    """Return a time signature."""
    return mido.MetaMessage("time_signature", numerator=over, denominator=under)
