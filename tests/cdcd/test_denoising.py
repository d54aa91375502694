"""Score interpolation, and tasks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdcd.denoising import Denoising, conditioning_of, embed
from cdcd.network import Denoiser
from tests.cdcd.tiny import NOISE, oracle, params_of, tiny_config, tiny_model

PRIOR = np.array([0.2, 0.5, 0.3], np.float32)
TOKENS = jnp.array([[0, 2, 1, 1], [1, 1, 0, 2]])
NOISY = jnp.array([[False, True, True, False], [True, False, False, True]])


@pytest.mark.parametrize("level", [0.5, 2.0, 20.0])
def test_interpolation_of_the_posterior_is_the_score(level):
    """(x_0 - x) / t^2 is the gradient of log sum_i p(i) N(x; e_i, t^2)."""
    ideal = oracle(PRIOR)
    table = ideal.table({})
    x = jnp.asarray(np.random.default_rng(0).normal(size=(6, 1, 8)) * (1 + level), jnp.float32)
    conditioning = conditioning_of(table, jnp.zeros((6, 1), int), jnp.ones((6, 1), bool))
    logits = ideal.logits({}, x, conditioning, x, jnp.full(6, level))
    score = (ideal.interpolate(logits, table) - x) / level**2

    def log_density(x):
        squares = jnp.sum((x - table) ** 2, axis=-1)
        return jax.nn.logsumexp(jnp.log(PRIOR) - squares / (2 * level**2))

    expected = jax.vmap(jax.grad(log_density))(x[:, 0])
    np.testing.assert_allclose(score[:, 0], expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("bfloat16", 0.05)])
def test_interpolation_is_the_mean_embedding(dtype, tolerance):
    denoising = Denoising(Denoiser(tiny_config(dtype=dtype)), NOISE)
    rng = np.random.default_rng(1)
    logits, table = jnp.asarray(rng.normal(size=(2, 3, 6))), jnp.asarray(rng.normal(size=(6, 8)))
    found = denoising.interpolate(logits, table)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, jax.nn.softmax(logits) @ table, atol=tolerance)


def test_tasks_tell_what_is_given_and_no_more():
    table = jnp.asarray(np.random.default_rng(2).normal(size=(3, 8)), jnp.float32)
    conditioning = conditioning_of(table, TOKENS, NOISY)
    np.testing.assert_array_equal(conditioning.given[~NOISY], table[TOKENS[~NOISY]])
    assert not conditioning.given[NOISY].any()
    absent = NOISY.at[0, 0].set(True)
    np.testing.assert_array_equal(conditioning_of(table, TOKENS, NOISY, ~absent).given[0, 0], 0)


def test_hidden_conditions_are_zeros_where_it_is_known_that_something_is_given():
    table = jnp.asarray(np.random.default_rng(2).normal(size=(3, 8)), jnp.float32)
    conditioning = conditioning_of(table, TOKENS, NOISY, conditioned=jnp.array([False, True]))
    assert not conditioning.given[0].any()
    np.testing.assert_array_equal(
        conditioning.given[1], conditioning_of(table, TOKENS, NOISY).given[1]
    )
    np.testing.assert_array_equal(conditioning.noisy, NOISY)


def test_a_network_has_the_table_that_its_logits_are_made_with():
    model = tiny_model()
    params = params_of(model)
    table = model.denoising.table(params)
    assert table.shape == (6, 8)
    np.testing.assert_array_equal(embed(table, TOKENS)[0, 1], table[2])
    norms = np.linalg.norm(table, axis=1)
    np.testing.assert_allclose(norms, np.sqrt(8), rtol=1e-5)
