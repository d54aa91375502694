import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from musax.events.run_length import (
    encode_steps,
    merge_run_length_encoded_targets,
    remove_redundant_state_changes,
    run_length_encode_shifts,
)
from tests.musax.events.cases import golden, make_codec

CODEC = make_codec(1)
SMALL = make_codec(1, max_shift_steps=4)


def run_length_by_hand(tokens, codec):
    coded, total, pending = [], 0, False
    for token in tokens:
        if codec.is_shift_event_index(token):
            total, pending = total + 1, True
            continue
        rest = total if pending else 0
        while rest:
            coded.append(min(rest, codec.max_shift_steps))
            rest -= coded[-1]
        pending = False
        coded.append(token)
    return coded


@given(st.lists(st.sampled_from([1, 1, 1, 10, 20]), max_size=60))
def test_run_length_code(tokens):
    assert run_length_encode_shifts(np.array(tokens, int), SMALL).tolist() == run_length_by_hand(
        tokens, SMALL
    )


def test_long_shifts_are_split_without_a_zero_rest():
    tokens = encode_steps(np.array([0, 4, 8, 9]), np.array([10, 11, 12, 13]), SMALL)
    assert tokens.tolist() == [10, 4, 11, 4, 4, 12, 4, 4, 1, 13]


@given(st.lists(st.integers(0, CODEC.num_classes - 1), max_size=80))
def test_redundant_state_changes(tokens):
    latest, expected = {}, []
    for token in tokens:
        kind = CODEC.decode_event_index(token).type
        if kind in ("velocity", "program"):
            if latest.get(kind) == token:
                continue
            latest[kind] = token
        expected.append(token)
    once = remove_redundant_state_changes(np.array(tokens, int), CODEC)
    assert once.tolist() == expected
    assert remove_redundant_state_changes(once, CODEC).tolist() == expected


@pytest.mark.parametrize("case", golden("merge_cases.json"))
def test_golden_merges(case):
    merged = merge_run_length_encoded_targets(np.array(case["targets"]), CODEC)
    assert merged.tolist() == case["merged"]


@st.composite
def tracks(draw):
    count = draw(st.integers(1, 4))
    rows = []
    for _ in range(count):
        steps = np.sort(draw(st.lists(st.integers(0, 13), max_size=8)))
        rows.append(encode_steps(steps, np.arange(len(steps)) + 10, SMALL))
    width = max(len(row) for row in rows) + draw(st.integers(0, 2))
    return np.array([np.pad(row, (0, width - len(row))) for row in rows])


@given(tracks())
def test_merging_keeps_every_event_at_its_time(rows):
    def timed(tokens):
        found, run = [], 0
        for is_shift, group in itertools.groupby(
            tokens[np.cumsum(tokens == 0) == 0], SMALL.is_shift_event_index
        ):
            group = list(group)
            if is_shift:
                run = sum(group)
            else:
                found += [(run, token) for token in group]
        return found

    merged = timed(merge_run_length_encoded_targets(rows, SMALL))
    assert [step for step, _ in merged] == sorted(step for step, _ in merged)
    assert sorted(merged) == sorted(pair for row in rows for pair in timed(row))


@given(tracks())
def test_merging_one_track_changes_nothing(rows):
    row = rows[0]
    end = np.flatnonzero(np.append(row, 0) == 0)[0]
    assert merge_run_length_encoded_targets(row[None], SMALL).tolist() == row[:end].tolist()


def test_tie_sections_can_be_joined():
    tie, program, pitch = (CODEC.event_type_range(t)[0] for t in ("tie", "program", "pitch"))
    rows = np.array([[program, pitch, tie, 5, pitch, 0], [program + 1, pitch, tie, 0, 0, 0]])
    merged = merge_run_length_encoded_targets(rows, CODEC, join_ties=True)
    assert merged.tolist() == [program, pitch, program + 1, pitch, tie, 5, pitch]
