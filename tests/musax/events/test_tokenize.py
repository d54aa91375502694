import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musax.events.codec import bin_to_velocity, num_velocity_bins, velocity_to_bin
from musax.events.decode import NoteDecoder
from musax.events.indexed import encode_and_index_events, extract_segment
from musax.events.run_length import remove_redundant_state_changes, run_length_encode_shifts
from musax.events.spec import (
    NOTES,
    NOTES_WITH_TIES,
    ONSETS,
    PIANO,
    EncodingSpec,
    map_programs,
)
from musax.events.tokenize import event_table, notes_to_tokens, segment_tokens, step_at
from musax.notes import empty_notes, make_notes, notes_equal, shift_notes, sort_notes
from tests.musax.events.cases import (
    ALL_SPECS,
    CANONICAL_SPECS,
    CONFIGS,
    golden,
    golden_notes,
    make_codec,
    note_arrays,
    spec_id,
)

CASES = golden("tokenize_cases.json")


def quantised_by_hand(notes, codec, spec):
    """The notes that canonical tokens stand for, voice by voice."""
    rate, bins = codec.steps_per_second, num_velocity_bins(codec)
    voices = {}
    for note in notes:
        program = 0 if note["is_drum"] else int(map_programs(note["program"], spec.granularity))
        voice = (bool(note["is_drum"]), program, int(note["pitch"]))
        if not spec.offsets:
            voice = (False, 0, int(note["pitch"]))
        start = round(note["onset"] * rate)
        stop = max(round(note["offset"] * rate), start + 1)
        voices.setdefault(voice, []).append((start, stop, int(note["velocity"])))
    rows = []
    for (is_drum, program, pitch), found in voices.items():
        longest = {}
        for start, stop, velocity in sorted(found):
            longest[start] = (stop, velocity)
        starts = sorted(longest)
        for start, following in zip(starts, [*starts[1:], np.inf]):
            stop, velocity = longest[start]
            stop = start + 1 if is_drum or not spec.offsets else min(stop, following)
            velocity = bin_to_velocity(velocity_to_bin(velocity, bins), bins)
            velocity = velocity if spec.offsets else 100
            end = stop / rate if not is_drum and spec.offsets else start / rate + 0.01
            rows.append((start / rate, end, pitch, velocity, program, is_drum))
    return sort_notes(make_notes(*zip(*rows))) if rows else empty_notes()


def decode_all(pieces, codec, spec, steps):
    state = NoteDecoder(codec, spec)
    for i, tokens in enumerate(pieces):
        start = i * steps / codec.steps_per_second
        limit = (i + 1) * steps / codec.steps_per_second if i + 1 < len(pieces) else None
        assert state.decode_segment(tokens, start, limit) == (0, 0)
    notes = state.flush()
    notes["onset"], notes["offset"] = notes["onset"].round(9), notes["offset"].round(9)
    return sort_notes(notes)


@pytest.mark.parametrize("spec", CANONICAL_SPECS, ids=spec_id)
@settings(max_examples=40, deadline=None)
@given(
    note_arrays(),
    st.sampled_from([100, 62.5]),
    st.sampled_from([1, 32, 127]),
    st.sampled_from([20, 204, 1000]),
)
def test_canonical_round_trip(spec, notes, rate, bins, steps):
    codec = make_codec(bins, steps_per_second=rate)
    count = 1 + 600 // steps
    bounds = [i * steps / rate for i in range(count + 1)]
    bounds[-1] = None
    pieces = [notes_to_tokens(notes, a, b, codec, spec) for a, b in itertools.pairwise(bounds)]
    decoded = decode_all(pieces, codec, spec, steps)
    assert notes_equal(decoded, quantised_by_hand(notes, codec, spec), 1e-7)


@pytest.mark.parametrize("spec", [NOTES, NOTES_WITH_TIES, ONSETS], ids=spec_id)
@settings(max_examples=40, deadline=None)
@given(note_arrays(), st.sampled_from([20, 204, 1000]))
def test_reference_order_keeps_notes_that_do_not_overlap(spec, notes, steps):
    codec = make_codec(127)
    notes = quantised_by_hand(notes, codec, EncodingSpec(offsets=spec.offsets))
    count = 1 + 600 // steps
    bounds = [*(i * steps / 100 for i in range(count)), None]
    pieces = [notes_to_tokens(notes, a, b, codec, spec) for a, b in itertools.pairwise(bounds)]
    assert notes_equal(decode_all(pieces, codec, spec, steps), notes, 1e-7)


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("name", CASES)
def test_golden_segments(name, config):
    if config not in CASES[name]["out"]:
        pytest.skip("this set has no such configuration")
    codec, spec = CONFIGS[config]
    notes, frame_times = golden_notes(CASES[name], config)
    expected = CASES[name]["out"][config]
    failures = {start: [1134, 1] for start, *_ in expected["reference_raised"]}
    for segment in expected["segments"]:
        start, end = segment["start_frame"], segment["end_frame"]
        last = frame_times[end] if end < len(frame_times) else None
        spec = dataclasses.replace(spec, granularity=segment["granularity"])
        tokens = notes_to_tokens(notes, frame_times[start], last, codec, spec)
        events = event_table(notes, codec, spec).step
        if spec.ties and step_at(frame_times[start], 100) > events[-1]:
            # The reference ties notes that have ended; nothing sounds here.
            assert (tokens + 3).tolist() == [1134]
            continue
        assert [*(tokens + 3).tolist(), 1] == segment["target_ids"]
    for start, target_ids in failures.items():
        tokens = notes_to_tokens(notes, frame_times[start], None, codec, spec)
        assert [*(tokens + 3).tolist(), 1] == target_ids


@pytest.mark.parametrize("config", CONFIGS)
@settings(max_examples=60, deadline=None)
@given(note_arrays(), st.integers(0, 900), st.integers(1, 400))
def test_agrees_with_the_indexed_form(config, notes, start, length):
    codec, spec = CONFIGS[config]
    notes = notes[notes["offset"] > notes["onset"]]  # the reference refuses others
    times = np.arange(1000) / 125
    end = min(start + length, len(times))
    indexed = encode_and_index_events(notes, times, codec, spec)
    tokens = extract_segment(indexed, start, end, codec, spec)
    low, high = codec.event_type_range("program")
    if spec.granularity == "flat":
        tokens = tokens[(tokens < low) | (tokens > high)]
    tokens = remove_redundant_state_changes(run_length_encode_shifts(tokens, codec), codec)
    last = times[end] if end < len(times) else None
    got = notes_to_tokens(notes, times[start], last, codec, spec)
    steps = event_table(notes, codec, spec).step
    if spec.ties and len(steps) and step_at(times[start], 100) > steps[-1]:
        tokens = [codec.event_type_range("tie")[0]]
    assert got.tolist() == list(tokens)


@pytest.mark.parametrize("spec", ALL_SPECS, ids=spec_id)
@settings(max_examples=30, deadline=None)
@given(note_arrays(), st.floats(0, 6), st.floats(0.05, 3))
def test_looking_only_at_near_notes_changes_nothing(spec, notes, start, length):
    codec = make_codec(127)
    table = event_table(notes, codec, spec)
    bounds = step_at(start, 100), step_at(start + length, 100)
    expected = segment_tokens(table, *bounds, codec, spec)
    tokens = notes_to_tokens(notes, start, start + length, codec, spec)
    assert tokens.tolist() == expected.tolist()
    assert tokens.dtype == np.int32


@settings(max_examples=60, deadline=None)
@given(note_arrays(), st.floats(0, 5), st.integers(0, 8).map(lambda i: ALL_SPECS[i]))
def test_segment_alignment_rounds_relative_to_the_start(notes, start, spec):
    codec = make_codec(127)
    tokens = notes_to_tokens(notes, start, start + 1.0, codec, spec, align="segment")
    moved = shift_notes(notes, 10.0 - start)
    assert tokens.tolist() == notes_to_tokens(moved, 10.0, 11.0, codec, spec).tolist()


@settings(max_examples=60, deadline=None)
@given(note_arrays(), st.randoms())
def test_canonical_tokens_do_not_depend_on_the_order_of_notes(notes, random):
    codec = make_codec(127)
    order = list(range(len(notes)))
    random.shuffle(order)
    for spec in CANONICAL_SPECS:
        tokens = notes_to_tokens(notes, 1.0, 3.0, codec, spec)
        assert tokens.tolist() == notes_to_tokens(notes[order], 1.0, 3.0, codec, spec).tolist()


def test_a_literal_piano_segment():
    codec = make_codec(127)
    notes = make_notes([0.5, 1.0, 1.0], [1.0, 1.5, 1.2], [60, 60, 64], [100, 40, 40])
    pitch, velocity = 1001, 1129
    before = notes_to_tokens(notes, 0.0, 2.0, codec, PIANO)
    expected = [50, velocity + 100, pitch + 60, 100, velocity + 40, pitch + 60, pitch + 64]
    expected += [120, velocity, pitch + 64, 150, pitch + 60]
    assert before.tolist() == expected
    after = notes_to_tokens(
        notes, 0.0, 2.0, codec, EncodingSpec(granularity="flat", canonical=True)
    )
    expected[3:5] = [100, velocity, pitch + 60, velocity + 40]
    assert after.tolist() == expected


def test_ties_declare_what_sounds_on():
    codec = make_codec(1)
    notes = make_notes([0.0, 0.0, 0.5], [3.0, 1.0, 2.5], [60, 62, 64], 100, [5, 5, 3])
    spec = EncodingSpec(ties=True, canonical=True)
    program, pitch = codec.event_type_range("program")[0], 1001
    tokens = notes_to_tokens(notes, 1.5, 2.0, codec, spec)
    assert tokens.tolist() == [program + 3, pitch + 64, program + 5, pitch + 60, 1131]


def test_unknown_options_are_refused():
    with pytest.raises(ValueError, match="granularity 'coarse'"):
        EncodingSpec(granularity="coarse")
    with pytest.raises(ValueError, match="ties need offsets"):
        EncodingSpec(offsets=False, ties=True)
    with pytest.raises(ValueError, match="align"):
        notes_to_tokens(empty_notes(), 0, 1, make_codec(), NOTES, align="frame")
