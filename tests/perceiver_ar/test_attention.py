import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perceiver_ar.attention import AttentionOptions, attend, attend_filled
from perceiver_ar.masks import NEVER
from tests.cases import slow_but


def example(queries, keys, seed=0, rows=2, heads=4, width=6):
    """Queries, keys, values and their steps, NumPy arrays."""
    rng = np.random.default_rng(seed)
    shapes = ((rows, heads, n, width) for n in (queries, keys, keys))
    q, k, v = (3 * rng.normal(size=s).astype(np.float32) for s in shapes)
    query_steps = np.tile(np.arange(keys - queries, keys, dtype=np.int32), (rows, 1))
    key_steps = np.tile(np.arange(keys), (rows, 1))
    key_steps[0, -keys // 3 :] = NEVER
    key_steps[1, rng.integers(keys)] = NEVER
    return q, k, v, query_steps, key_steps.astype(np.int32)


def by_hand(q, k, v, query_steps, key_steps, own_key=False):
    logits = np.einsum("bhqd,bhkd->bhqk", q, k) / np.sqrt(q.shape[-1])
    mask = np.asarray(key_steps)[:, None, None, :] <= np.asarray(query_steps)[:, None, :, None]
    if own_key:
        mask = mask | np.eye(q.shape[2], dtype=bool)
    weights = np.where(mask, np.exp(logits - logits.max(-1, keepdims=True)), 0)
    total = weights.sum(-1, keepdims=True)
    return np.einsum("bhqk,bhkd->bhqd", weights / np.where(total > 0, total, 1), v)


AT_ONCE = AttentionOptions()


@functools.partial(jax.jit, static_argnames=("own_key", "options"))
def out_and_grads(q, k, v, query_steps, key_steps, *, own_key=False, options=AT_ONCE):
    def total(q, k, v):
        out = attend(q, k, v, query_steps, key_steps, own_key=own_key, options=options)
        # Weights which differ from one entry to the next.
        return jnp.sum(jnp.sin(jnp.arange(out.size)).reshape(out.shape) * out), out

    grads, out = jax.grad(total, (0, 1, 2), has_aux=True)(q, k, v)
    return out, grads


SHAPES = [(5, 5, True), (5, 5, False), (3, 17, False), (7, 16, False)]
OPTIONS = [(4, None), (3, 2), (None, 1), (100, None)]


@pytest.mark.parametrize(
    "case",
    slow_but(
        # Blocks of groups for every shape; blocks that divide the keys, groups, and a block of all.
        [f"{shape}-(3, 2)" for shape in SHAPES]
        + ["(7, 16, False)-(4, None)", "(5, 5, True)-(None, 1)", "(3, 17, False)-(100, None)"],
        {f"{shape}-{options}": (shape, options) for shape in SHAPES for options in OPTIONS},
    ),
)
def test_blocks_and_groups_change_nothing(case):
    (queries, keys, own_key), options = case
    given = example(queries, keys)
    out, grads = out_and_grads(*given, own_key=own_key, options=AttentionOptions(*options))
    plain, plain_grads = out_and_grads(*given, own_key=own_key)
    expected = by_hand(*given, own_key)
    np.testing.assert_allclose(out, expected, atol=1e-5)
    np.testing.assert_allclose(out, plain, atol=1e-5)
    for a, b in zip(grads, plain_grads):
        np.testing.assert_allclose(a, b, atol=2e-5)


def test_a_query_that_sees_nothing_gets_zeros_and_no_gradient():
    q, k, v, query_steps, key_steps = example(3, 9)
    nothing = np.full_like(key_steps, NEVER)
    for block in (None, 4):
        options = AttentionOptions(block)
        out, grads = out_and_grads(q, k, v, query_steps, nothing, options=options)
        assert not np.any(out)
        assert all(not np.any(g) for g in grads)


_attend_filled = jax.jit(attend_filled, static_argnums=6)


@pytest.mark.parametrize("filled", [1, 4, 5, 11, 13])
@pytest.mark.parametrize("block", [4, 5, 13, 64])
def test_only_what_is_filled_is_read(filled, block):
    q, k, v, _, _ = example(2, 13)
    key_steps = np.tile(np.where(np.arange(13) < filled, np.arange(13), NEVER), (2, 1))
    query_steps = np.full((2, 2), 20)
    seen = _attend_filled(q, k, v, query_steps, key_steps, np.int32(filled), block)
    expected = by_hand(q, k, v, query_steps, key_steps)
    np.testing.assert_allclose(seen, expected, atol=1e-5)


def test_memory_does_not_grow_with_keys_times_queries():
    def bytes_needed(options):
        q = jax.ShapeDtypeStruct((1, 2, 128, 8), jnp.float32)
        k = jax.ShapeDtypeStruct((1, 2, 8192, 8), jnp.float32)
        steps = [jax.ShapeDtypeStruct((1, n), jnp.int32) for n in (128, 8192)]

        def total(q, k, v, a, b):
            return attend(q, k, v, a, b, options=options).sum()

        compiled = jax.jit(jax.grad(total, (0, 1, 2))).lower(q, k, k, *steps).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert bytes_needed(AttentionOptions(128)) < bytes_needed(AttentionOptions()) / 4


def test_half_precision_is_close():
    q, k, v, query_steps, key_steps = example(4, 10)
    half = [x.astype(jnp.bfloat16) for x in (q, k, v)]
    for block in (None, 3):
        out, _ = out_and_grads(*half, query_steps, key_steps, options=AttentionOptions(block))
        assert out.dtype == jnp.bfloat16
        expected = by_hand(*(np.asarray(x, np.float32) for x in half), query_steps, key_steps)
        np.testing.assert_allclose(np.asarray(out, np.float32), expected, atol=0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [((0, None), "attention_block=0"), ((None, 3), "head_group_size=3 does not divide 4")],
)
def test_impossible_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        attend(*example(2, 5), options=AttentionOptions(*options))
