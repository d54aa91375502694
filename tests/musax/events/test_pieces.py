import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from musax.events.pieces import MULTITRACK, PERFORMANCE, MultitrackEncoding, absolute_steps
from musax.midi import load_midi
from musax.notes import empty_notes, make_notes

ENCODINGS = (PERFORMANCE, MULTITRACK, MultitrackEncoding(num_velocity_bins=1))


def names(encoding, tokens):
    events = [encoding.codec.decode_event_index(int(token)) for token in tokens]
    return [f"{event.type} {event.value}" for event in events]


def test_performance_events_as_written():
    notes = make_notes([0.0, 0.0, 2.5], [1.0, 2.5, 3.0], [60, 64, 64], [64, 64, 127])
    assert names(PERFORMANCE, PERFORMANCE.encode(notes)) == [
        "velocity 17",
        "onset 60",
        "onset 64",
        "shift 100",
        "offset 60",
        "shift 100",
        "shift 50",
        "offset 64",
        "velocity 32",
        "onset 64",
        "shift 50",
        "offset 64",
    ]


def test_a_vocabulary_of_388_events():
    codec = PERFORMANCE.codec
    used = {
        name: high - low + 1
        for name in codec.event_types
        for low, high in [codec.event_type_range(name)]
    }
    assert used == {"shift": 101, "onset": 128, "offset": 128, "velocity": 32}  # no shift of 0


def test_shifts_count_from_the_event_before():
    notes = make_notes([1.0, 15.0], [14.0, 15.5], [60, 36], 127, [33, 0], [False, True])
    assert names(MULTITRACK, MULTITRACK.encode(notes)) == [
        "shift 100",
        "program 33",
        "velocity 127",
        "pitch 60",
        "shift 1000",
        "shift 300",
        "velocity 0",
        "pitch 60",
        "shift 100",
        "velocity 127",
        "drum 36",
    ]


@st.composite
def quantised_notes(draw):
    size = draw(st.integers(0, 30))

    def column(low, high):
        return draw(st.lists(st.integers(low, high), min_size=size, max_size=size))

    onset = np.array(column(0, 3000), float)
    length = np.array(column(1, 2500), float)
    drums = np.array(column(0, 1), bool) & (np.array(column(0, 3)) == 0)
    programs = np.where(drums, 0, column(0, 127))
    velocity = np.array(column(1, 127), int)
    return make_notes(
        onset / 100, (onset + length) / 100, column(0, 127), velocity, programs, drums
    )


@given(quantised_notes())
def test_encoding_is_the_inverse_of_decoding(notes):
    for encoding in ENCODINGS:
        tokens = encoding.encode(notes)
        decoded = encoding.decode(tokens)
        assert decoded.invalid_events == 0
        np.testing.assert_array_equal(encoding.encode(decoded.notes), tokens)


@given(st.lists(st.integers(0, PERFORMANCE.codec.num_classes - 1), max_size=60))
def test_any_performance_tokens_have_a_meaning(tokens):
    decoded = PERFORMANCE.decode(np.array(tokens, int))
    onsets = sum(name.startswith("onset") for name in names(PERFORMANCE, tokens))
    assert len(decoded.notes) == onsets
    assert (decoded.notes["offset"] >= decoded.notes["onset"]).all()
    # Rewriting is stable: what the notes say is all there is.
    again = PERFORMANCE.encode(decoded.notes)
    np.testing.assert_array_equal(PERFORMANCE.encode(PERFORMANCE.decode(again).notes), again)


def test_a_real_piece_keeps_its_notes():
    notes = load_midi("examples/rendering.mid")
    decoded = MULTITRACK.decode(MULTITRACK.encode(notes))
    np.testing.assert_array_equal(np.sort(decoded.notes["pitch"]), np.sort(notes["pitch"]))
    for name in ("onset", "offset"):
        found, told = np.sort(decoded.notes[name]), np.sort(notes[name])
        np.testing.assert_allclose(found, told, atol=0.0101)
    piano = notes[~notes["is_drum"]]
    piano["program"] = 0
    decoded = PERFORMANCE.decode(PERFORMANCE.encode(piano)).notes
    assert set(decoded["pitch"]) == set(piano["pitch"])
    assert decoded["offset"].max() == pytest.approx(piano["offset"].max(), abs=0.011)


def test_the_empty_piece_and_tokens_of_no_codec():
    for encoding in ENCODINGS:
        assert not len(encoding.encode(empty_notes()))
        assert not len(encoding.decode(np.zeros(0, int)).notes)
        with pytest.raises(ValueError, match=r"token 5000 is not in 0\.\."):
            encoding.decode(np.array([5000]))
    steps, events = absolute_steps(np.array([0, 3, 200, 7, 201]), PERFORMANCE.codec)
    assert steps.tolist() == [3, 10]
    assert events.tolist() == [200, 201]
