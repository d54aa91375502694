"""Masks of dropout: their rate, independence, and that they depend on nothing but key and place."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t5x.layers.dropout import Dropout, dropout_rngs, keep_scale

RATE = 0.1


def key(seed=0):
    return dropout_rngs(jax.random.PRNGKey(seed))["dropout"]


@jax.jit
def masks(keys, shape=(64, 256)):
    """One mask a key, 1.0 where elements are dropped."""
    return jax.vmap(
        lambda k: (keep_scale(k, RATE, (64, 256), jnp.float32) == 0).astype(jnp.float32)
    )(keys)


def families():
    """64 keys each: as layers, steps, scanned layers and seeds have them."""
    numbers = np.arange(64)
    return {
        "folded in": jax.vmap(lambda n: jax.random.fold_in(key(), n))(numbers),
        "split": jax.random.split(key(), 64),
        "steps": jax.vmap(
            lambda n: dropout_rngs(jax.random.fold_in(jax.random.PRNGKey(0), n))["dropout"]
        )(numbers),
        "neighbouring words": jax.vmap(
            lambda n: dropout_rngs(jnp.stack([n % 8, n // 8]).astype(jnp.uint32))["dropout"]
        )(numbers),
    }


@pytest.mark.parametrize("name", ["folded in", "split", "steps", "neighbouring words"])
def test_masks_are_of_the_rate_and_independent(name):
    dropped = np.asarray(masks(families()[name])).reshape(64, -1)
    sizes = dropped.shape[1]
    centred = (dropped - RATE) / np.sqrt(RATE * (1 - RATE))
    # Each sum below is of that many independent terms of variance 1: 5 standard deviations.
    assert np.abs(centred.mean(axis=1)).max() < 5 / np.sqrt(sizes)
    assert abs(centred.mean()) < 5 / np.sqrt(dropped.size)
    between = centred @ centred.T / sizes
    assert np.abs(between - np.diag(np.diag(between))).max() < 5.5 / np.sqrt(sizes)
    for lag in (1, 2, 16, 256):
        assert abs((centred[:, lag:] * centred[:, :-lag]).mean()) < 5 / np.sqrt(dropped.size)
    rows = centred.reshape(64, 64, 256)
    for axis in (1, 2):
        expected = 1 / np.sqrt(rows.shape[3 - axis])
        assert abs(rows.mean(axis=3 - axis).std() / expected - 1) < 0.1


def test_words_are_uniform():
    words = np.asarray(jax.random.bits(key(), (1 << 16,)))
    counts = np.bincount(words >> 24, minlength=256)
    chi_squared = np.sum((counts - 256) ** 2 / 256)
    assert 255 - 5 * np.sqrt(510) < chi_squared < 255 + 5 * np.sqrt(510)
    bits = (words[:, None] >> np.arange(32)) & 1
    assert np.abs(bits.mean(axis=0) - 0.5).max() < 5 * 0.5 / np.sqrt(len(words))
    normal = np.asarray(jax.random.normal(key(1), (1 << 16,)))
    assert abs(normal.mean()) < 5 / 256
    assert abs(normal.std() - 1) < 5 / 256


def test_words_of_64_bits_are_refused():
    with jax.enable_x64(True), pytest.raises(ValueError, match="at most 32 bits"):
        jax.random.bits(key(), (2,), jnp.uint64)


def test_kept_elements_are_scaled_up_and_shared_axes_live_or_die_together():
    x = jnp.ones((4, 8, 16))
    apply = Dropout(0.25, shared=(-2,)).apply
    y = np.asarray(apply({}, x, rngs=dropout_rngs(jax.random.PRNGKey(0))))
    assert set(np.unique(y)) == {np.float32(0), np.float32(1 / 0.75)}
    assert (y == y[:, :1]).all()
    assert len(np.unique(y[:, 0], axis=0)) == 4
    np.testing.assert_array_equal(apply({}, x, deterministic=True), x)


def test_any_kind_of_key_will_do():
    for rng in (jax.random.key(3), jax.random.PRNGKey(3), jax.random.key(3, impl="rbg")):
        (found,) = dropout_rngs(rng).values()
        assert jax.random.bits(found, (4,)).shape == (4,)
    same = [
        jax.random.bits(dropout_rngs(k)["dropout"])
        for k in (jax.random.key(3), jax.random.PRNGKey(3))
    ]
    assert same[0] == same[1]
    assert dropout_rngs(None) is None


@pytest.mark.parametrize("rate", [1.0, 1.5, -0.1])
def test_rates_that_are_no_probabilities_are_refused(rate):
    with pytest.raises(ValueError, match=f"dropout rate {rate}"):
        Dropout(rate).apply({}, jnp.ones(3), rngs=dropout_rngs(jax.random.PRNGKey(0)))
