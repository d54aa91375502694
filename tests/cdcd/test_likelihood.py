"""Likelihoods: with ideal networks they are those of the distribution."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdcd.config import NoiseRange
from cdcd.denoising import conditioning_of
from cdcd.likelihood import (
    FillInByDenoising,
    FillInByUnmasking,
    any_order_nats,
    decoding_nats,
    in_batches,
    left_to_right,
    random_orders,
    self_conditioned,
    variational_bound,
)
from cdcd.warping import Curve, noise_to_time
from t5x.losses import token_nats
from tests.cdcd.tiny import MaskedOracle, markov_joint, oracle, recorder

KEY = jax.random.key(0)
JOINT = markov_joint(3)
#: All rows of three tokens of the chain, and -log p of each.
ROWS = np.stack(np.unravel_index(np.arange(27), JOINT.shape), axis=1).astype(np.int32)
NATS = -np.log(JOINT.ravel())
EVEN = np.linspace(0.0, 1.0, 101, dtype=np.float32)
PRODUCT = np.einsum("i,j->ij", [0.2, 0.5, 0.3], [0.6, 0.1, 0.3])


def logarithmic(noise):
    """The distribution of noise levels whose logarithm is uniform."""
    time = noise_to_time(np.geomspace(noise.low, noise.high, 101), noise)
    time[[0, -1]] = 0.0, 1.0
    return Curve(time.astype(np.float32), EVEN)


# ----------------------------------------------------------------------------- variational bound


def bound(denoising, rows, copies, **options):
    """Mean bound of each row over `copies` of it, and its standard error."""
    tokens = np.repeat(rows, copies, axis=0).astype(np.int32)
    distribution = logarithmic(denoising.noise)
    if "noisy" in options:
        options["noisy"] = np.broadcast_to(options["noisy"], tokens.shape)
    found = variational_bound(denoising, {}, tokens, KEY, distribution=distribution, **options)
    found = np.asarray(found).reshape(len(rows), copies)
    return found.mean(axis=1), found.std(axis=1) / np.sqrt(copies)


def test_the_bound_of_the_ideal_denoiser_is_the_likelihood():
    found, error = bound(oracle(PRODUCT), np.argwhere(PRODUCT), 400)
    expected = -np.log(PRODUCT.ravel())
    assert np.abs((found - expected) / error).max() < 4
    assert PRODUCT.ravel() @ (found - expected) == pytest.approx(0.0, abs=0.03)
    assert error.max() < 0.1  # otherwise the above would say nothing


def test_noise_that_leaves_something_to_be_known_is_paid_for():
    """The highest level, from which sampling begins, says nothing of tokens in the model's eyes."""
    found, _ = bound(oracle(PRODUCT, NoiseRange(0.2, 4.0)), np.argwhere(PRODUCT), 100)
    excess = PRODUCT.ravel() @ (found + np.log(PRODUCT.ravel()))
    assert 0.05 < excess < 2 * 8 / (2 * 4.0**2)


@pytest.mark.slow
def test_the_bound_of_a_chain_and_of_what_is_left_of_it():
    found, _ = bound(oracle(JOINT), ROWS, 100)
    assert JOINT.ravel() @ found == pytest.approx(JOINT.ravel() @ NATS, abs=0.06)
    missing = np.array([False, True, False])  # the middle one, given both others
    found, _ = bound(oracle(JOINT), ROWS, 100, noisy=missing)
    conditional = -np.log(JOINT / JOINT.sum(axis=1, keepdims=True)).ravel()
    assert JOINT.ravel() @ found == pytest.approx(JOINT.ravel() @ conditional, abs=0.05)


def test_the_bound_of_a_denoiser_that_is_wrong_is_above():
    even = oracle(np.full(PRODUCT.shape, 1 / 9))
    found, _ = bound(even, np.argwhere(PRODUCT), 100)
    entropy = -PRODUCT.ravel() @ np.log(PRODUCT.ravel())
    assert PRODUCT.ravel() @ found == pytest.approx(np.log(9), abs=0.05)
    assert PRODUCT.ravel() @ found > entropy + 0.2


def test_the_distribution_of_the_model_is_used_if_none_is_given():
    model, params = recorder()
    tokens = np.full((2, 6), 3, np.int32)
    found, same = (
        variational_bound(model, params, tokens, KEY, levels=4, distribution=d)
        for d in (None, Curve(EVEN, EVEN))
    )
    np.testing.assert_allclose(found, same, rtol=1e-4)


def test_iterations_see_the_estimate_before():
    model, params = recorder()
    x = jax.random.normal(KEY, (2, 6, 8))
    conditioning = conditioning_of(params["table"], jnp.zeros((2, 6), int), jnp.ones((2, 6), bool))
    t = jnp.ones(2)
    logits, estimate = self_conditioned(model, params, params["table"], x, conditioning, t, 3)
    assert len(model.calls) == 3
    assert not model.calls[0]["previous"].any()
    for before, after in itertools.pairwise(model.calls):
        told = model.interpolate(before["logits"], params["table"])
        np.testing.assert_array_equal(after["previous"], told)
    np.testing.assert_array_equal(logits, model.calls[-1]["logits"])
    np.testing.assert_array_equal(estimate, model.interpolate(logits, params["table"]))


# -------------------------------------------------------------------------------- decoding orders


FILL_INS = {
    "denoising": FillInByDenoising(oracle(JOINT, NoiseRange(0.2, 1e5))),
    "unmasking": FillInByUnmasking(MaskedOracle(JOINT)),
}


@pytest.mark.parametrize("name", FILL_INS)
def test_ideal_networks_find_the_likelihood_in_any_order(name):
    fill_in = FILL_INS[name]
    for order in (left_to_right(ROWS), random_orders(KEY, ROWS)):
        nats = decoding_nats(fill_in, {}, ROWS, order, KEY)
        np.testing.assert_allclose(nats.sum(axis=1), NATS, rtol=2e-3)
    assert len(np.unique(order, axis=0)) == 6
    np.testing.assert_array_equal(np.sort(order, axis=1), left_to_right(ROWS))
    first = decoding_nats(fill_in, {}, ROWS, left_to_right(ROWS), KEY)[:, 0]
    expected = -np.log(JOINT.sum(axis=(1, 2)))[ROWS[:, 0]]
    np.testing.assert_allclose(first, expected, rtol=2e-3)


class Inconsistent:
    """Conditional probabilities that are of no joint distribution."""

    def __call__(self, params, tokens, noisy, rng):
        seen = jnp.where(noisy, 3, tokens)
        mixed = jnp.sin(1.0 + seen @ jnp.array([[1.0, 2.0, 4.0], [3.0, 1.0, 5.0], [2.0, 6.0, 1.0]]))
        return jnp.sin(mixed[..., None] * jnp.arange(1.0, 4.0) * 3)


def test_the_mean_over_all_orders_is_estimated_without_bias():
    fill_in, rows = Inconsistent(), ROWS[[5, 14, 22]]
    orders = np.array(list(itertools.permutations(range(3))))
    # Each row with each order.
    nats = decoding_nats(fill_in, {}, np.tile(rows, (6, 1)), np.repeat(orders, 3, axis=0), KEY)
    by_order = np.asarray(nats).sum(axis=1).reshape(6, 3)
    assert by_order.std(axis=0).min() > 0.02  # orders do matter
    many = np.repeat(rows, 500, axis=0)
    found = np.asarray(any_order_nats(fill_in, {}, many, KEY, passes=9)).reshape(3, 500)
    error = found.std(axis=1) / np.sqrt(500)
    assert np.abs((found.mean(axis=1) - by_order.mean(axis=0)) / error).max() < 3.5
    assert error.max() < 0.03


def test_filling_in_by_denoising_begins_with_noise_alone():
    model, params = recorder()
    tokens, noisy = jnp.asarray(ROWS[:2] + 3), jnp.array([[True, False, True]] * 2)
    logits = FillInByDenoising(model, iterations=2)(params, tokens, noisy, KEY)
    assert token_nats(logits, tokens).shape == (2, 3)
    first, second = model.calls
    assert (first["t"] == model.noise.high).all()
    noise = first["x"] / model.noise.high
    np.testing.assert_allclose(noise, jax.random.normal(KEY, (2, 3, 8)), rtol=1e-5)
    assert second["previous"].any()


def test_rows_in_batches_are_rows():
    def score(tokens, rng):
        assert tokens.shape == (4, 2)
        return tokens.sum(axis=1)

    rows = jnp.arange(20).reshape(10, 2)
    np.testing.assert_array_equal(in_batches(score, rows, KEY, 4), rows.sum(axis=1))
    keys = []
    in_batches(lambda x, rng: keys.append(rng) or x[:, 0], rows, KEY, 5)
    assert keys[0] != keys[1]


def test_what_came_before_in_an_order_is_given():
    asked = []

    def spy(params, tokens, noisy, rng):
        jax.debug.callback(lambda x: asked.append(np.asarray(x)), noisy, ordered=True)
        return jnp.zeros((*tokens.shape, 3))

    order = jnp.array([[2, 0, 1]])
    nats = functools.partial(decoding_nats, spy)({}, ROWS[:1], order, KEY)
    jax.effects_barrier()
    np.testing.assert_allclose(nats, np.log(3), rtol=1e-6)
    expected = [[True, True, True], [True, True, False], [False, True, False]]
    np.testing.assert_array_equal(np.concatenate(asked), expected)
