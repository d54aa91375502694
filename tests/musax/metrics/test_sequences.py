import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musax.metrics import sequences
from musax.metrics.sequences import copied_share, longest_copies, ngram_entropy


def test_entropies_of_known_rows():
    rng = np.random.default_rng(0)
    coins = rng.integers(0, 2, (200, 100))
    assert ngram_entropy(coins) == pytest.approx(math.log(2), abs=0.01)
    assert ngram_entropy(coins, 2) == pytest.approx(math.log(2), abs=0.01)
    turns = np.tile([3, 4], (10, 50))
    assert ngram_entropy(turns) == pytest.approx(math.log(2))
    assert ngram_entropy(turns, 2) == pytest.approx(0.0, abs=0.02)
    with pytest.raises(ValueError, match="10 rows: expected 3 tokens or more"):
        ngram_entropy(turns[:, :2], 3)


def test_copies_of_known_rows():
    training = [np.arange(20), np.arange(5)]
    rows = np.stack([np.arange(10), np.arange(10)[::-1]])
    assert copied_share(rows, training, 4) == 0.5
    assert copied_share(rows, training, 1) == 1.0
    assert copied_share(rows, [np.arange(3)], 4) == 0.0
    assert copied_share(rows, [], 4) == 0.0
    assert math.isnan(copied_share(rows, training, 11))
    assert longest_copies([*rows, np.zeros(0, int)], training) == [10, 1, 0]
    assert longest_copies(rows, []) == [0, 0]
    with pytest.raises(ValueError, match="length=0"):
        copied_share(rows, training, 0)


ROWS = st.lists(st.lists(st.integers(0, 3), max_size=20).map(np.array), max_size=6)


@settings(max_examples=80, deadline=None)
@given(ROWS, ROWS, st.integers(1, 5), st.integers(1, 40))
def test_copies_are_those_found_one_by_one(rows, training, length, part_tokens):
    def ngrams(row):
        return [tuple(row[i : i + length]) for i in range(len(row) - length + 1)]

    known = {ngram for row in training for ngram in ngrams(row)}
    ours = [ngram in known for row in rows for ngram in ngrams(row)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sequences, "_PART_TOKENS", part_tokens)
        share = copied_share(rows, training, length)
        longest = longest_copies(rows, training)
    assert math.isnan(share) if not ours else share == pytest.approx(np.mean(ours))
    copied = [any(ngram in known for ngram in ngrams(row)) for row in rows]
    assert [size >= length for size in longest] == copied
