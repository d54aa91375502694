import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax

from cdcd.likelihood import any_order_nats
from cdcd.scoring import estimates_of, side_by_side, window_nats
from tests.tiny_cdcd import LENGTH, tiny_config, tiny_params

KEY = jax.random.key(0)
#: Enough for the mean over both orders of two tokens, and the same for all, which is one program.
PASSES = 2000


@pytest.fixture(scope="module")
def models():
    found = {}
    for kind in ("cdcd", "mdlm", "ar"):
        config = tiny_config(kind=kind)
        found[kind] = (config.model(), tiny_params(config))
    return found


def rows(count, length, seed=0):
    return np.random.default_rng(seed).integers(3, 30, (count, length)).astype(np.int32)


def test_windows_lie_side_by_side():
    tokens = np.arange(3, 13)
    np.testing.assert_array_equal(
        side_by_side(tokens, 4), [[3, 4, 5, 6], [7, 8, 9, 10], [11, 12, 0, 0]]
    )
    assert side_by_side(tokens, 5).shape == (2, 5)


@pytest.mark.slow
def test_the_bound_of_masked_diffusion_is_the_mean_over_orders(models):
    model, params = models["mdlm"]
    windows = rows(2, LENGTH)
    assert estimates_of(model) == ("any_order", "left_to_right", "bound")
    bound, any_order = (
        window_nats(model, params, windows, estimate, KEY, passes=1000)
        for estimate in ("bound", "any_order")
    )
    np.testing.assert_allclose(bound, any_order, rtol=0.03)


@pytest.mark.slow
def test_an_autoregressive_window_ends_where_its_tokens_do(models):
    model, params = models["ar"]
    tokens = rows(1, LENGTH)[0]
    prefixes = np.stack([np.where(np.arange(LENGTH) < n, tokens, 0) for n in range(1, LENGTH + 1)])
    nats = window_nats(model, params, prefixes, "exact", KEY)
    inputs = jnp.pad(jnp.asarray(tokens[None, :-1]), ((0, 0), (1, 0)))
    batch = {"decoder_input_tokens": inputs, "decoder_target_tokens": jnp.asarray(tokens[None])}
    each = model.target_nats(params, batch)[0][0]
    np.testing.assert_allclose(nats, np.cumsum(each), rtol=1e-4)


def nats_of(models, tokens, masked, i):
    """-log p of token i of a row [1, L] by masked diffusion."""
    model, params = models["mdlm"]
    logits = jitted_logits(model)(params, tokens, masked[None])
    return -log_softmax(np.asarray(logits)[0, i])[tokens[0, i]]


@functools.cache
def jitted_logits(model):
    return jax.jit(model.logits)


def test_from_left_to_right_what_follows_is_unknown(models):
    model, params = models["mdlm"]
    tokens = np.pad(rows(1, 3), ((0, 0), (0, LENGTH - 3)))
    expected = sum(nats_of(models, tokens, np.arange(LENGTH) >= i, i) for i in range(3))
    nats = window_nats(model, params, tokens, "left_to_right", KEY)
    np.testing.assert_allclose(nats, expected, rtol=1e-5)


def test_of_one_token_there_is_one_order(models):
    model, params = models["mdlm"]
    token = np.pad(rows(1, 1), ((0, 0), (0, LENGTH - 1)))
    any_order, ordered = (
        window_nats(model, params, token, estimate, KEY, PASSES)
        for estimate in ("any_order", "left_to_right")
    )
    np.testing.assert_allclose(any_order, ordered, rtol=1e-3)  # but for the rounding of the sum


def test_the_mean_over_orders_is_that_of_both_orders_of_two_tokens(models):
    model, params = models["mdlm"]
    pair = np.pad(rows(1, 2), ((0, 0), (0, LENGTH - 2)))

    def nats(given, i):
        return nats_of(models, pair, ~np.isin(np.arange(LENGTH), given), i)

    both = [nats([], 0) + nats([0], 1), nats([], 1) + nats([1], 0)]
    found = window_nats(model, params, pair, "any_order", KEY, PASSES)
    np.testing.assert_allclose(found, np.mean(both), rtol=0.01)


def test_tokens_that_are_not_scored_count_for_nothing():
    logits = log_softmax(np.arange(5.0)).astype(np.float32)

    def independent(params, tokens, noisy, rng):
        return jnp.broadcast_to(logits, (*tokens.shape, 5))

    tokens = np.array([[0, 1, 2, 3], [4, 4, 0, 1]])
    scored = np.array([[True, True, False, True], [False, True, False, False]])
    expected = -np.sum(np.where(scored, logits[tokens], 0.0), axis=1)
    found = any_order_nats(independent, None, tokens, KEY, passes=3000, scored=scored)
    np.testing.assert_allclose(found, expected, rtol=0.03)
    # Of one token every pass is exact, but for the rounding of their sum.
    assert found[1] == pytest.approx(expected[1], rel=1e-3)


def test_the_bound_of_continuous_diffusion_counts_all_windows(models):
    model, params = models["cdcd"]
    windows = rows(18, LENGTH)  # more than a batch
    nats = window_nats(model, params, windows, "bound", KEY, passes=4)
    assert nats.shape == (18,)
    assert (nats > 0).all()
    again = window_nats(model, params, windows[:16], "bound", KEY, passes=4)
    np.testing.assert_allclose(nats[:16], again, rtol=1e-5)
