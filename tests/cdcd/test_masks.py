"""Masks of training: what they look like, and how often."""

import jax
import numpy as np
import pytest
import scipy.stats

from cdcd.masks import MaskMixture, prefix_masks, random_masks

ROWS, LENGTH = 6000, 5


def drawn(make):
    return np.asarray(make(jax.random.key(0), (ROWS, LENGTH)))


def is_prefix(noisy):
    """Rows whose given positions come first."""
    return (np.diff(noisy.astype(int), axis=1) >= 0).all(axis=1)


def p_value(counts, share=None):
    expected = None if share is None else np.asarray(share) * np.sum(counts)
    return scipy.stats.chisquare(counts, expected).pvalue


@pytest.mark.parametrize("make", [prefix_masks, random_masks])
def test_any_number_but_all_of_the_positions_is_given(make):
    counts = np.bincount(drawn(make).sum(axis=1), minlength=LENGTH + 1)
    assert counts[0] == 0
    assert p_value(counts[1:]) > 0.01


def test_prefixes_come_first_and_others_anywhere():
    assert is_prefix(drawn(prefix_masks)).all()
    noisy = drawn(random_masks)
    pairs = noisy[noisy.sum(axis=1) == 2] @ 2 ** np.arange(LENGTH)
    _, counts = np.unique(pairs, return_counts=True)
    assert len(counts) == 10
    assert p_value(counts) > 0.01


@pytest.mark.parametrize("prefix", [0.0, 0.3, 1.0])
def test_a_mixture_has_its_shares(prefix):
    # Of random masks those with 0 to 4 given are prefixes by chance.
    by_chance = np.mean([1, 1 / 5, 1 / 10, 1 / 10, 1 / 5])
    share = is_prefix(drawn(MaskMixture(prefix=prefix).sample)).mean()
    assert share == pytest.approx(prefix + (1 - prefix) * by_chance, abs=0.02)


def test_rows_without_conditions_are_all_noisy():
    noisy = drawn(MaskMixture(conditioned=0.25).sample)
    assert noisy.all(axis=1).mean() == pytest.approx(0.75 + 0.25 / LENGTH, abs=0.02)
    assert noisy.any(axis=1).all()
    assert drawn(MaskMixture(conditioned=0.0).sample).all()


@pytest.mark.parametrize("name", ["prefix", "conditioned"])
def test_what_is_no_probability_is_named(name):
    with pytest.raises(ValueError, match=f"masks: {name}=1.5: expected a probability"):
        MaskMixture(**{name: 1.5})
