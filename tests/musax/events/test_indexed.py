import numpy as np
import pytest

from musax.events.indexed import encode_and_index_events, extract_segment
from musax.events.run_length import remove_redundant_state_changes, run_length_encode_shifts
from musax.events.spec import NOTES_WITH_TIES
from musax.notes import empty_notes
from tests.musax.events.cases import CONFIGS, golden, golden_notes
from tests.vectors import golden_dir

CASES = golden("tokenize_cases.json")


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("name", CASES)
def test_golden_arrays(name, config):
    codec, spec = CONFIGS[config]
    notes, frame_times = golden_notes(CASES[name], config)
    indexed = encode_and_index_events(notes, frame_times, codec, spec)
    arrays = np.load(golden_dir("mt3") / "tokenize_arrays.npz")
    for field, value in vars(indexed).items():
        np.testing.assert_array_equal(value, arrays[f"{name}/{config}/{field}"], field)
        assert value.dtype == np.int32


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("name", CASES)
def test_golden_segments(name, config):
    codec, spec = CONFIGS[config]
    notes, frame_times = golden_notes(CASES[name], config)
    expected = CASES[name]["out"][config]
    assert len(frame_times) == expected["num_frames"]
    indexed = encode_and_index_events(notes, frame_times, codec, spec)
    low, high = codec.event_type_range("program")
    for segment in expected["segments"]:
        start, end = segment["start_frame"], segment["end_frame"]
        tokens = extract_segment(indexed, start, end, codec, spec)
        if segment["granularity"] == "flat":
            tokens = tokens[(tokens < low) | (tokens > high)]
        tokens = run_length_encode_shifts(tokens, codec)
        assert tokens.tolist() == segment["rle_tokens"]
        tokens = remove_redundant_state_changes(tokens, codec)
        assert [*(tokens + 3).tolist(), 1] == segment["target_ids"]


def test_no_notes_with_ties_is_a_lone_tie():
    codec, _ = CONFIGS["mt3"]
    times = np.arange(100) / 125
    indexed = encode_and_index_events(empty_notes(), times, codec, NOTES_WITH_TIES)
    tokens = extract_segment(indexed, 20, 60, codec, NOTES_WITH_TIES)
    assert run_length_encode_shifts(tokens, codec).tolist() == [1131]
