"""Notes to tokens: musax's array code against Python loops which give the same tokens."""

import itertools

import numpy as np

from benchmarks import plain_tokenizer
from benchmarks.harness import Row, effort, time_ratio
from mt3.vocabularies import VocabularyConfig, build_codec
from musax.events.indexed import encode_and_index_events
from musax.events.spec import NOTES_WITH_TIES
from musax.events.tokenize import event_table, notes_to_tokens, segment_tokens, step_at

SEGMENT_S = 2.048
FRAMES_PER_SECOND = 125.0
GOAL = 20.0


def measure(tiny: bool = False) -> list[Row]:
    """Return how many times as fast we are, on 25 notes a second with ties."""
    seconds, count = (8.0, 60) if tiny else (120.0, 3000)
    codec = build_codec(VocabularyConfig(num_velocity_bins=1))
    notes = plain_tokenizer.random_notes(np.random.default_rng(0), count, seconds)
    rows = notes.tolist()
    starts = np.arange(0.0, seconds, SEGMENT_S)
    bounds = [step_at(t, codec.steps_per_second) for t in (*starts, starts[-1] + SEGMENT_S)]
    frame_times = np.arange(0.0, seconds, 1 / FRAMES_PER_SECOND)
    spec = NOTES_WITH_TIES

    def whole() -> list[np.ndarray]:
        table = event_table(notes, codec, spec)
        return [segment_tokens(table, a, b, codec, spec) for a, b in itertools.pairwise(bounds)]

    def one_by_one() -> list[np.ndarray]:
        return [notes_to_tokens(notes, t, t + SEGMENT_S, codec, spec) for t in starts]

    def indexed():
        return encode_and_index_events(notes, frame_times, codec, spec)

    def plain() -> list[list[int]]:
        return plain_tokenizer.segment_tokens(rows, bounds, codec)

    def plain_one_by_one() -> list[list[int]]:
        return [plain_tokenizer.one_segment(rows, t, t + SEGMENT_S, codec) for t in starts]

    def plain_indexed():
        return plain_tokenizer.encode_and_index(rows, frame_times.tolist(), codec)

    _check_equal(plain(), whole())
    _check_equal(plain_one_by_one(), one_by_one())
    cases = {
        "indexing a recording, as MT3 does first": (indexed, plain_indexed, GOAL),
        "all segments of a recording": (whole, plain, None),
        "segments one by one": (one_by_one, plain_one_by_one, None),
    }
    measure = "times as fast as a loop over events"
    return [
        Row(case, measure, time_ratio(loop, ours, **effort(tiny)), goal=goal)
        for case, (ours, loop, goal) in cases.items()
    ]


def _check_equal(expected: list[list[int]], found: list[np.ndarray]) -> None:
    """Raise unless both sides of a comparison do the same work."""
    if [list(tokens) for tokens in expected] != [tokens.tolist() for tokens in found]:
        raise AssertionError("the loop and the array code give different tokens")
