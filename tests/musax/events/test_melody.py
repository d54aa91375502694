import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from musax.events.melody import (
    MelodyVocabulary,
    melody_to_notes,
    notes_to_melody,
    transpose_melody,
    transpositions,
)
from musax.midi import load_midi, midi_to_bytes
from musax.notes import empty_notes, make_notes, notes_equal

RATE = 8.0  # steps a second
TOKENS = st.lists(st.integers(0, 89) | st.integers(0, 2), max_size=64).map(
    lambda tokens: np.array(tokens, np.int32)
)


def without_silent_ends(tokens):
    """Tokens in which every note-off ends a note."""
    kept, sounding = [], False
    for token in tokens.tolist():
        kept.append(token if token != 1 or sounding else 0)
        sounding = token > 1 or (sounding and token == 0)
    return kept


@given(TOKENS)
def test_tokens_round_trip(tokens):
    notes = melody_to_notes(tokens, RATE)
    again = notes_to_melody(notes, len(tokens), RATE)
    assert again.dtype == np.int32
    assert again.tolist() == without_silent_ends(tokens)
    np.testing.assert_array_equal(melody_to_notes(again, RATE), notes)


@given(TOKENS, st.integers(0, 2**32))
def test_notes_survive_a_file_and_a_little_rubato(tokens, seed):
    notes = melody_to_notes(tokens, RATE)
    read = load_midi(midi_to_bytes(notes))
    assert notes_equal(read, notes, tolerance=1e-3)
    rng = np.random.default_rng(seed)
    for name in ("onset", "offset"):
        read[name] = np.maximum(read[name] + rng.uniform(-0.49, 0.49, len(read)) / RATE, 0)
    wanted = notes_to_melody(notes, len(tokens), RATE)
    np.testing.assert_array_equal(notes_to_melody(read, len(tokens), RATE), wanted)


def test_what_each_token_means():
    notes = make_notes([0, 2, 3, 6], [1, 3, 5, 7], [60, 62, 62, 108])
    tokens = notes_to_melody(notes, 8, steps_per_second=1)
    assert tokens.tolist() == [41, 1, 43, 43, 0, 1, 89, 1]
    assert MelodyVocabulary().vocab_size == 93
    assert MelodyVocabulary().encode(tokens)[:2] == [44, 4]


def test_a_note_ends_the_one_before_and_the_highest_of_a_chord_counts():
    notes = make_notes([0, 0, 0, 2], [8, 3, 9, 4], [60, 67, 64, 50])
    tokens = notes_to_melody(notes, 8, 1)
    assert tokens.tolist() == [67 - 19, 0, 50 - 19, 0, 1, 0, 0, 0]
    np.testing.assert_array_equal(notes_to_melody(notes[::-1], 8, 1), tokens)


def test_short_notes_last_a_step():
    notes = make_notes([1.4, 3.0], [1.45, 3.1], 60)
    assert notes_to_melody(notes, 6, 1).tolist() == [0, 41, 1, 41, 1, 0]


def test_what_is_not_a_melody_is_left_out():
    notes = np.concatenate(
        [
            make_notes([0.0], [1.0], [40], is_drum=True),
            make_notes([0, 0, 4, 9], [1, 1, 5, 10], [20, 109, 60, 60]),
        ]
    )
    assert notes_to_melody(notes, 5, 1).tolist() == [0, 0, 0, 0, 41]
    assert notes_to_melody(empty_notes(), 3, 1).tolist() == [0, 0, 0]
    assert len(melody_to_notes([0, 1, 0, 1], 1)) == 0


@given(TOKENS)
def test_transposed_melodies_are_transposed_notes(tokens):
    low, high = transpositions(tokens)
    assert low <= 0 <= high
    notes = melody_to_notes(tokens, RATE)
    for semitones in {low, 0, high}:
        moved = transpose_melody(tokens, semitones)
        found = melody_to_notes(moved, RATE)
        np.testing.assert_array_equal(found["pitch"], notes["pitch"] + semitones)
        np.testing.assert_array_equal(found["onset"], notes["onset"])
        np.testing.assert_array_equal(transpose_melody(moved, -semitones), tokens)
    if len(notes):
        pitches = notes["pitch"]
        assert (pitches.min() + low, pitches.max() + high) == (21, 108)
    with pytest.raises(ValueError, match=f"expected {low} to {high}"):
        transpose_melody(tokens, high + 1)


def test_other_tokens_are_refused():
    for use in (lambda t: melody_to_notes(t, RATE), transpositions):
        with pytest.raises(ValueError, match="tokens 3 to 90: expected 0 to 89"):
            use(np.array([3, 90]))
