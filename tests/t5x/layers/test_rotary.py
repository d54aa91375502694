"""Rotary positions, by themselves and in attention with and without caches."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t5x.layers import MultiHeadDotProductAttention, make_attention_mask, make_causal_mask, rotate
from tests.t5x.networks import random_params

ROWS, LENGTH, HEADS, WIDTH = 2, 6, 3, 8
RNG = np.random.default_rng(0)
X = RNG.normal(size=(ROWS, LENGTH, HEADS, WIDTH)).astype(np.float32)
turned = jax.jit(rotate)


def test_pairs_of_channels_turn_as_complex_numbers():
    positions = np.array([0, 1, 5, 7, 30, 1000])
    frequencies = 100.0 ** (-np.arange(4) / 4)
    pairs = X[..., :4] + 1j * X[..., 4:]
    expected = pairs * np.exp(1j * positions[:, None, None] * frequencies)
    found = turned(X, positions, 100.0)
    np.testing.assert_allclose(found[..., :4], expected.real, atol=2e-4)
    np.testing.assert_allclose(found[..., 4:], expected.imag, atol=2e-4)
    np.testing.assert_array_equal(found[:, 0], X[:, 0])


def test_rows_may_have_positions_of_their_own():
    positions = np.array([np.arange(6), np.arange(6) + 3])
    found = turned(X, positions)
    for row in range(ROWS):
        np.testing.assert_allclose(found[row], turned(X, positions[row])[row], atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2000), st.integers(0, 2000), st.integers(0, 2000))
def test_products_depend_on_differences_of_positions_alone(at, other, shift):
    def product(shift):
        query = turned(X, np.full(6, at + shift))
        return np.einsum("blhd,blhd->blh", query, turned(X[:, ::-1], np.full(6, other + shift)))

    np.testing.assert_allclose(product(shift), product(0), atol=5e-3)


def test_types_and_widths():
    found = rotate(jnp.asarray(X, jnp.bfloat16), jnp.arange(6))
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(found.astype(jnp.float32), turned(X, np.arange(6)), atol=0.05)
    with pytest.raises(ValueError, match="an even width of heads, not 7"):
        rotate(X[..., :7], jnp.arange(6))


# -------------------------------------------------------------------------------- in attention

INPUTS = RNG.normal(size=(ROWS, LENGTH, 12)).astype(np.float32)
MODULE = MultiHeadDotProductAttention(HEADS, WIDTH, rotary_base=100.0)


@pytest.fixture(scope="module")
def params():
    init = functools.partial(MODULE.init, deterministic=True)
    shapes = jax.eval_shape(init, jax.random.key(0), INPUTS, INPUTS)
    return random_params(shapes["params"])


@functools.partial(jax.jit, static_argnums=0)
def attend(module, params, inputs, mask=None):
    return module.apply({"params": params}, inputs, inputs, mask, deterministic=True)


def test_attention_is_that_of_rotated_queries_and_keys(params):
    query, key, value = (
        (INPUTS @ params[name]["kernel"]).reshape(ROWS, LENGTH, HEADS, WIDTH)
        for name in ("query", "key", "value")
    )
    query, key = (np.asarray(turned(x, np.arange(LENGTH), 100.0)) for x in (query, key))
    weights = jax.nn.softmax(np.einsum("bqhd,bkhd->bhqk", query, key))
    mixed = np.einsum("bhqk,bkhd->bqhd", weights, value).reshape(ROWS, LENGTH, -1)
    found = attend(MODULE, params, INPUTS)
    np.testing.assert_allclose(found, mixed @ params["out"]["kernel"], rtol=1e-3, atol=1e-4)


def test_order_matters_only_with_rotation(params):
    for base, matters in ((None, False), (100.0, True)):
        module = MODULE.clone(rotary_base=base)
        backwards = attend(module, params, INPUTS[:, ::-1])[:, ::-1]
        difference = np.abs(backwards - attend(module, params, INPUTS)).max()
        assert (difference > 1e-2) == matters


def test_rows_may_begin_anywhere(params):
    moved = np.pad(INPUTS, ((0, 0), (3, 0), (0, 0)), constant_values=2.0)
    there = np.broadcast_to(np.arange(LENGTH + 3) >= 3, (ROWS, LENGTH + 3))
    found = attend(MODULE, params, moved, make_attention_mask(there, there))[:, 3:]
    np.testing.assert_allclose(found, attend(MODULE, params, INPUTS), rtol=1e-3, atol=1e-4)


def causal(params):
    return attend(MODULE, params, INPUTS, make_causal_mask(INPUTS[..., 0]))


@jax.jit
def decode_step(params, cache, inputs):
    options = {"decode": True, "deterministic": True, "mutable": ["cache"]}
    return MODULE.apply({"params": params, **cache}, inputs, inputs, **options)


@pytest.mark.parametrize("steps", [1, 2])
def test_decoding_with_a_cache_is_causal_attention(params, steps):
    cache = MODULE.apply({"params": params}, INPUTS, method="init_cache", mutable=["cache"])[1]
    found = []
    for i in range(0, LENGTH, steps):
        out, cache = decode_step(params, cache, INPUTS[:, i : i + steps])
        found.append(out)
    np.testing.assert_allclose(np.concatenate(found, 1), causal(params), rtol=1e-3, atol=1e-4)


def test_rows_go_on_after_prompts_of_unequal_lengths(params):
    lengths = jnp.array([2, 4])
    mask = make_causal_mask(INPUTS[..., 0])
    options = {"decode": True, "deterministic": True, "mutable": ["cache"]}
    found, cache = MODULE.apply(
        {"params": params}, INPUTS, INPUTS, mask, prefill_lengths=lengths, **options
    )
    expected = causal(params)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
    for i in range(2):
        at = lengths + i
        out, cache = decode_step(params, cache, INPUTS[jnp.arange(ROWS), at][:, None])
        np.testing.assert_allclose(out[:, 0], expected[jnp.arange(ROWS), at], rtol=1e-3, atol=1e-4)
