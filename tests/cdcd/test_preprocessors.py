import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdcd.preprocessors import Parts, check_length, crop_stretches, random_crop, side_by_side

SIZES, LENGTHS, MULTIPLES = st.integers(0, 400), st.integers(1, 50), st.integers(1, 20)


@given(SIZES, LENGTHS, MULTIPLES)
def test_every_place_is_in_one_stretch(size, length, multiple):
    stretches = crop_stretches(size, length, multiple)
    if size <= length:
        assert stretches.tolist() == ([[0, size]] if size else [])
        return
    places = [list(range(begin, end - length + 1, multiple)) for begin, end in stretches]
    assert sum(places, []) == list(range(0, size - length + 1, multiple))  # noqa: RUF017
    counts = [len(each) for each in places]
    assert 1 <= min(counts) <= max(counts) <= min(counts) + 1
    assert max(counts) <= max(length // multiple, 1)
    assert stretches.max() <= size


@given(SIZES, LENGTHS, MULTIPLES, st.integers(0, 2**32))
def test_crops_are_parts_that_begin_at_multiples(size, length, multiple, seed):
    rng = np.random.default_rng(seed)
    sequence = np.arange(size)
    parts = Parts([sequence], [crop_stretches(size, length, multiple)])
    for i in range(len(parts)):
        tokens = random_crop(parts[i], rng, length, multiple)["targets"]
        assert tokens[0] % multiple == 0
        assert tokens.dtype == np.int32
        assert tokens.tolist() == list(range(tokens[0], tokens[0] + min(size, length)))


def test_all_tokens_but_those_near_the_ends_are_as_likely():
    size, length, epochs = 205, 20, 2000
    rng = np.random.default_rng(0)
    parts = Parts([np.arange(size)], [crop_stretches(size, length)])
    seen = np.zeros(size)
    for _ in range(epochs):
        for i in range(len(parts)):
            seen[random_crop(parts[i], rng, length)["targets"]] += 1
    seen /= epochs
    assert abs(seen.mean() - 1) < 0.05  # an epoch is about as long as the data
    inside = seen[length - 1 : 1 - length]
    np.testing.assert_allclose(inside, length * len(parts) / (size - length + 1), rtol=0.06)
    assert 0 < seen.min() < 0.2 > seen[-1] > 0


@given(SIZES, LENGTHS)
def test_windows_lie_side_by_side(size, length):
    parts = Parts([np.arange(size)], [side_by_side(size, length)])
    windows = [parts[i]["targets"] for i in range(len(parts))]
    assert all(len(window) == length for window in windows)
    covered = np.concatenate([np.zeros(0, int), *windows])
    np.testing.assert_array_equal(covered, np.arange(size // length * length))


def test_parts_of_several_sequences():
    sequences = [np.arange(5), np.zeros(0), np.arange(10, 13, dtype=np.uint8)]
    parts = pickle.loads(
        pickle.dumps(Parts(sequences, [side_by_side(len(s), 2) for s in sequences]))
    )
    assert [part["targets"].tolist() for part in parts] == [[0, 1], [2, 3], [10, 11]]
    assert len(Parts([], [])) == 0


def test_other_lengths_are_refused():
    example = {"targets": np.zeros(4, np.int32)}
    for lengths in (None, {}, {"targets": 4}):
        assert check_length(example, lengths, 4) is example
    with pytest.raises(ValueError, match=r"\['targets'\]=8.*length=4"):
        check_length(example, {"targets": 8}, 4)
