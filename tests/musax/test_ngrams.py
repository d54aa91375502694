import collections
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musax.ngrams import NGram, Unigram
from t5x.data.vocabularies import ByteVocabulary
from t5x.examples.shakespeare.plays import passages

SIZE = ByteVocabulary().vocab_size


def encode(text):
    return np.array([2, *ByteVocabulary().encode(text), 1])


@pytest.fixture(scope="module")
def texts():
    """Shakespeare in bytes: passages to count, to tune on, to test with."""
    train, held_out = ([encode(p["targets"]) for p in passages(s)] for s in ("train", "validation"))
    return train[:300], held_out[:40:2], held_out[1:40:2]


@pytest.fixture(scope="module")
def trigrams(texts):
    return NGram(texts[0], texts[1], SIZE, order=3)


def mean(nats):
    return np.concatenate(nats).mean()


def distribution(model, context):
    """Probability of every token after a context."""
    return np.exp(
        [-nats[-1] for nats in model.nats([np.array([*context, w]) for w in range(SIZE)])]
    )


def test_probabilities_sum_to_one(texts, trigrams):
    for context in (b"\x02", b"\x02the ", b"zq", b"\x02\xff\xfe"):
        tokens = [2, *(b + 3 for b in context[1:])]
        found = distribution(trigrams, tokens)
        assert (found > 0).all()
        assert found.sum() == pytest.approx(1.0)
    assert distribution(trigrams, encode("th")[:-1]).argmax() == ord("e") + 3
    assert Unigram.fit(texts[0], SIZE).probability.sum() == pytest.approx(1.0)


def test_longer_contexts_help(texts, trigrams):
    train, tune, test = texts
    costs = [mean(Unigram.fit(train, SIZE).nats(test)), mean(trigrams.nats(test))]
    costs.append(mean(NGram(train, tune, SIZE, order=5).nats(test)))
    assert costs[0] > costs[1] + 0.8 > costs[2] + 1.0
    assert [len(nats) for nats in trigrams.nats(test)] == [len(tokens) - 1 for tokens in test]


def test_tuning_makes_held_out_sequences_likelier(texts):
    train, tune, _ = texts
    costs = [mean(NGram(train, tune, SIZE, 4, steps).nats(tune)) for steps in (0, 1, 5, 30)]
    assert costs == sorted(costs, reverse=True)
    assert costs[0] - costs[-1] > 0.05


def naive(training, tokens, size, order):
    """With all weights a half: p of each target, by dictionaries."""
    counts = collections.defaultdict(collections.Counter)
    padding = [size] * (order - 1)
    for row in training:
        row = [*padding, *row]
        for i in range(order, len(row)):
            for k in range(order):
                counts[tuple(row[i - k : i])][row[i]] += 1
    row = [*padding, *tokens]
    for i in range(order, len(row)):
        p = 1 / size
        for k in range(order):
            seen = counts[tuple(row[i - k : i])]
            if seen:
                p = 0.5 * seen[row[i]] / seen.total() + 0.5 * p
        yield p


ROWS = st.lists(st.lists(st.integers(0, 3), min_size=2, max_size=12), min_size=1, max_size=4)


@settings(max_examples=60, deadline=None)
@given(ROWS, ROWS, st.integers(1, 4))
def test_as_counted_one_by_one(training, tested, order):
    training, tested = ([np.array(row) for row in rows] for rows in (training, tested))
    found = NGram(training, training, 4, order, iterations=0).nats(tested)
    for nats, tokens in zip(found, tested):
        expected = [-math.log(p) for p in naive(training, tokens, 4, order)]
        np.testing.assert_allclose(nats, expected)


def test_what_does_not_fit_is_named():
    rows = [np.array([2, 5, 1])]
    for make in (
        lambda: NGram(rows, rows, 5),
        lambda: NGram([np.array([2, 1])], rows, 5),
        lambda: Unigram.fit(rows, 5),
        lambda: Unigram.fit([np.array([2, 1])], 5).nats(rows),
    ):
        with pytest.raises(ValueError, match="expected 0 to"):
            make()
    with pytest.raises(ValueError, match="0 held-out sequences"):
        NGram(rows, [], 8)
