"""NoteSequences: the notes that note-seq reads, sustains and writes are the notes musax does."""

import io

import numpy as np
import pytest

from musax.midi import from_note_sequence, load_midi, midi_to_bytes, to_note_sequence
from musax.notes import make_notes, notes_equal, sort_notes, trim_overlapping_notes

note_seq = pytest.importorskip("note_seq")


@pytest.fixture(params=range(4))
def notes(request):
    """Random music of four programs and drums, at multiples of 1 ms."""
    rng = np.random.default_rng(request.param)
    onset = np.sort(rng.integers(0, 30000, 200)) / 1000
    offset = onset + rng.integers(20, 2000, 200) / 1000
    program = rng.choice([0, 24, 40, 73], 200)
    is_drum = rng.random(200) < 0.2
    pitch, velocity = rng.integers(30, 90, 200), rng.integers(1, 128, 200)
    notes = make_notes(onset, offset, pitch, velocity, np.where(is_drum, 0, program), is_drum)
    return sort_notes(trim_overlapping_notes(notes))


def pedalled_midi(notes, seed):
    """A MIDI file of the first program in `notes`, with a pedal that moves every half second."""
    import pretty_midi

    rng = np.random.default_rng(seed)
    piece = pretty_midi.PrettyMIDI(resolution=1000)
    part = pretty_midi.Instrument(0)
    for onset, offset, pitch, velocity, *_ in notes[~notes["is_drum"]].tolist():
        part.notes.append(pretty_midi.Note(velocity, pitch, onset, offset))
    for time in np.arange(0, 30, 0.5):
        value = int(rng.choice([0, 30, 64, 127]))
        part.control_changes.append(pretty_midi.ControlChange(64, value, time + 0.0625))
    piece.instruments.append(part)
    buffer = io.BytesIO()
    piece.write(buffer)
    return buffer.getvalue()


def rows(notes, digits=4):
    """Notes in an order that rounding does not change."""
    return sorted((round(a, digits), round(b, digits), *rest) for a, b, *rest in notes.tolist())


def test_protos_survive_serialization(notes):
    proto = to_note_sequence(notes)
    back = note_seq.NoteSequence.FromString(proto.SerializeToString())
    assert notes_equal(from_note_sequence(back), notes)
    assert back.total_time == notes["offset"].max()


def test_note_seq_reads_our_midi(notes):
    proto = note_seq.midi_to_note_sequence(midi_to_bytes(notes))
    assert rows(from_note_sequence(proto)) == rows(notes)


def test_we_read_the_midi_of_note_seq(notes):
    proto = to_note_sequence(notes)
    proto.tempos.add(qpm=120)
    proto.ticks_per_quarter = 1000
    buffer = io.BytesIO()
    note_seq.note_sequence_to_pretty_midi(proto).write(buffer)
    assert rows(load_midi(buffer.getvalue()), 3) == rows(notes, 3)


@pytest.mark.parametrize("seed", range(4))
def test_the_pedal_agrees(notes, seed):
    data = pedalled_midi(notes, seed)
    proto = note_seq.midi_to_note_sequence(data)
    theirs = from_note_sequence(note_seq.apply_sustain_control_changes(proto), sustain=False)
    assert rows(from_note_sequence(proto)) == rows(theirs)
    assert rows(load_midi(data)) == rows(theirs)
    assert rows(load_midi(data, sustain=False)) != rows(theirs)
