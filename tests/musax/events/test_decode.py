import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musax.events.decode import NoteDecoder, decode_segments, segment_start_time
from musax.events.spec import EncodingSpec
from musax.notes import assign_instruments, notes_equal
from tests.musax.events.cases import ALL_SPECS, CONFIGS, golden, make_codec, spec_id

CASES = golden("decode_cases.json")


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_golden_cases(case):
    codec, spec = CONFIGS[case["config"]]
    segments = [(s["start_time"], s["tokens"]) for s in case["segments"]]
    notes, invalid, dropped = decode_segments(segments, codec, spec)
    assert (invalid, dropped) == (case["invalid"], case["dropped"])
    rows = [[*row, i] for row, i in zip(notes.tolist(), assign_instruments(notes).tolist())]
    assert len(rows) == len(case["notes"])
    for row, expected in zip(rows, case["notes"]):
        np.testing.assert_allclose(row[:2], expected[:2], atol=1e-9)
        assert row[2:] == expected[2:]
    total = max((row[1] for row in rows), default=0.0)
    np.testing.assert_allclose(total, case["total_time"], atol=1e-9)


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_golden_start_times(case):
    for segment in case["segments"]:
        if "frame_time" in segment:
            start = segment_start_time(segment["frame_time"], 100)
            assert start == pytest.approx(segment["start_time"], abs=1e-9)


@pytest.mark.parametrize("spec", ALL_SPECS, ids=spec_id)
@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(-3, 1600), max_size=60), max_size=5))
def test_any_numbers_decode_to_sound_notes(spec, segments):
    codec = make_codec(127)
    notes, invalid, dropped = decode_segments(enumerate(segments), codec, spec)
    assert (notes["offset"] - notes["onset"] >= 0.01 - 1e-12).all()
    assert (notes["velocity"] > 0).all()
    assert invalid + dropped + len(notes) <= 2 * sum(map(len, segments))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(0, 1387), max_size=60), min_size=1, max_size=5))
def test_taking_notes_early_finds_the_same_notes(segments):
    codec, spec = CONFIGS["mt3"]
    whole, invalid, dropped = decode_segments(enumerate(segments), codec, spec)
    state, parts = NoteDecoder(codec, spec), []
    for i, tokens in enumerate(segments):
        state.decode_segment(tokens, i, i + 1 if i + 1 < len(segments) else None)
        parts.append(state.take_notes())
    parts.append(state.flush())
    assert notes_equal(np.concatenate(parts), whole)
    assert (state.invalid_events, state.dropped_events) == (invalid, dropped)


def test_memory_holds_only_what_sounds():
    codec, spec = CONFIGS["mt3"]
    state = NoteDecoder(codec, spec)
    for i in range(50):
        state.decode_segment([1131, 1, 1132, 1130, 1061, 2, 1129, 1061], float(i), i + 1.0)
        assert len(state.take_notes()) == 1
        assert state.active_voices() == []


def test_onsets_first_keeps_a_restruck_note():
    codec = make_codec(127)
    tokens = [10, 1229, 1061, 20, 1061, 1129, 1061, 30, 1061]
    spec = EncodingSpec(granularity="flat", onsets_before_offsets=True)
    notes, invalid, _ = decode_segments([(0.0, tokens)], codec, spec)
    np.testing.assert_allclose(notes["onset"], [0.1, 0.2])
    np.testing.assert_allclose(notes["offset"], [0.2, 0.3])
    assert invalid == 0
