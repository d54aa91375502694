"""The sampler of masked diffusion: with ideal networks it draws from the distribution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdcd.baselines import MaskedDiffusionModel
from cdcd.masked_sampler import sample_masked
from cdcd.sampler import NotFiniteError, Rows, rows_from_nothing
from tests.cdcd.tiny import (
    MaskedOracle,
    bigram_divergence,
    markov_joint,
    markov_rows,
    masked_network,
    params_of,
)

KEY = jax.random.key(0)
IDEAL = MaskedOracle(markov_joint(4))


def draw(rows, model=IDEAL, params=None, **options):
    return np.asarray(sample_masked(model, params or {}, rows, KEY, **({"never": ()} | options)))


@pytest.mark.slow
def test_bigrams_are_those_of_the_chain_if_tokens_come_one_by_one():
    rows = rows_from_nothing(4000, 4)
    assert bigram_divergence(draw(rows, steps=100) + 3) < 0.003
    assert bigram_divergence(draw(rows, steps=1) + 3) > 0.1  # all at once: independent ones


def test_given_tokens_stay_and_the_others_are_not_read():
    tokens = jnp.asarray(markov_rows(0, 1000, 4)) - 3
    noisy = jnp.broadcast_to(jnp.array([False, True, True, False]), tokens.shape)
    made = draw(Rows(tokens, noisy), steps=50)
    np.testing.assert_array_equal(made[:, [0, 3]], tokens[:, [0, 3]])
    assert bigram_divergence(made + 3) < 0.006
    other = Rows(jnp.where(noisy, 77, tokens), noisy)
    np.testing.assert_array_equal(draw(other, steps=50), made)
    given = Rows(tokens, jnp.zeros_like(noisy))
    np.testing.assert_array_equal(draw(given, steps=50), tokens)


def test_temperature_and_tokens_that_are_never_made():
    rows = rows_from_nothing(1000, 4)
    cold = draw(rows, steps=50, temperature=0.01)
    assert (cold == np.array([1, 2, 0, 1])).mean() > (draw(rows, steps=50) == [1, 2, 0, 1]).mean()
    assert len(np.unique(cold, axis=0)) < 12
    assert set(np.unique(draw(rows, steps=50, never=[1]))) == {0, 2}


def test_what_does_not_fit_is_named():
    rows = rows_from_nothing(1, 4)
    for options in ({"steps": 0}, {"temperature": 0.0}):
        with pytest.raises(ValueError, match="expected positive numbers"):
            draw(rows, **options)
    with pytest.raises(ValueError, match="given token 3 is outside the vocabulary, 0 to 2"):
        draw(Rows(jnp.full((1, 4), 3), jnp.arange(4)[None] > 0))


def test_a_network_that_diverged_is_told():
    model = MaskedDiffusionModel(masked_network(), None, None)
    broken = jax.tree.map(lambda x: x * jnp.nan, params_of(model))
    with pytest.raises(NotFiniteError, match="not finite"):
        draw(rows_from_nothing(2, 4), model, broken, steps=2)
