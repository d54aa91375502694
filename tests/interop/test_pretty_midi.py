"""pretty_midi objects and files; reading the same bytes is tested in tests/musax/test_midi.py."""

import io

import numpy as np
import pretty_midi
import pytest

from musax.midi import from_pretty_midi, load_midi, midi_to_bytes, to_pretty_midi
from musax.notes import make_notes, sort_notes, trim_overlapping_notes


@pytest.fixture
def notes():
    rng = np.random.default_rng(7)
    onset = np.sort(rng.integers(0, 16000, 120)) / 1000
    is_drum = rng.random(120) < 0.25
    notes = make_notes(
        onset,
        onset + rng.integers(30, 900, 120) / 1000,
        rng.integers(35, 80, 120),
        rng.integers(1, 128, 120),
        np.where(is_drum, 0, rng.choice([0, 33, 61], 120)),
        is_drum,
    )
    return sort_notes(trim_overlapping_notes(notes))


def rows(notes):
    return sorted((round(a, 4), round(b, 4), *rest) for a, b, *rest in notes.tolist())


def test_files_go_both_ways(notes):
    read = from_pretty_midi(pretty_midi.PrettyMIDI(io.BytesIO(midi_to_bytes(notes))))
    assert rows(read) == rows(notes)
    buffer = io.BytesIO()
    to_pretty_midi(notes).write(buffer)
    back = load_midi(buffer.getvalue())
    voices = ["program", "is_drum", "pitch", "onset"]
    back, notes = np.sort(back, order=voices), np.sort(notes, order=voices)
    for name in ("pitch", "velocity", "program", "is_drum"):
        np.testing.assert_array_equal(back[name], notes[name])
    half_a_tick = 0.5 / 220 / 2  # pretty_midi writes 220 ticks in a quarter note of 0.5 s
    np.testing.assert_allclose(back["onset"], notes["onset"], atol=half_a_tick + 1e-6)
    np.testing.assert_allclose(back["offset"], notes["offset"], atol=half_a_tick + 1e-6)


def test_instruments_are_those_of_the_notes(notes):
    piece = to_pretty_midi(notes)
    found = {(i.program, i.is_drum): len(i.notes) for i in piece.instruments}
    pairs = list(zip(notes["program"].tolist(), notes["is_drum"].tolist()))
    assert found == {pair: pairs.count(pair) for pair in set(pairs)}
    assert piece.get_end_time() == pytest.approx(notes["offset"].max())


def test_the_pedal_of_an_object_lengthens_its_notes():
    piece = pretty_midi.PrettyMIDI()
    part = pretty_midi.Instrument(0)
    part.notes = [pretty_midi.Note(80, 60, 0.0, 0.5), pretty_midi.Note(80, 64, 2.0, 2.5)]
    part.control_changes = [
        pretty_midi.ControlChange(64, 127, 0.25),
        pretty_midi.ControlChange(64, 0, 1.0),
    ]
    piece.instruments.append(part)
    assert from_pretty_midi(piece)["offset"].tolist() == [1.0, 2.5]
    assert from_pretty_midi(piece, sustain=False)["offset"].tolist() == [0.5, 2.5]
