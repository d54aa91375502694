"""Chunked caches do what one array with a mask does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t5x.decoding import cache as decode_cache
from t5x.layers import attention, chunked_cache

attend = jax.jit(chunked_cache.attend, static_argnames="dtype")
write_steps = jax.jit(chunked_cache.write_steps)


def random_rows(length, steps=1):
    rng = np.random.default_rng(0)
    q = jnp.asarray(rng.normal(size=(2, 3, steps, 4)), jnp.float32)
    k, v = jnp.asarray(rng.normal(size=(2, 2, 3, length, 4)), jnp.float32)
    return q, k, v


def chunked(x):
    """[B, H, L, D] in chunks."""
    ends = np.cumsum(chunked_cache.chunk_lengths(x.shape[2]))
    return chunked_cache.Chunks(jnp.split(x, ends[:-1], axis=2))


@pytest.mark.parametrize(
    ("length", "expected"),
    [(5, (5,)), (64, (64,)), (100, (64, 36)), (128, (64, 64)), (1024, (64, 64, 128, 256, 512))],
)
def test_chunks_double(length, expected):
    assert chunked_cache.chunk_lengths(length) == expected


@pytest.mark.parametrize("length", [5, 300])
@pytest.mark.parametrize("used", [1, 64, 65, 300])
def test_reading_the_filled_chunks_is_reading_the_masked_cache(length, used):
    used = min(used, length)
    q, k, v = random_rows(length)
    bias = jnp.where(jnp.arange(length) < used, 0.0, -1e10)[None, None, None]
    expected = attention._cached_attention(q, k, v, bias, jnp.float32, False)
    # What lies beyond the filled part must not matter, whatever it is.
    k = jnp.where(jnp.arange(length)[:, None] < used, k, 1e6)
    ours = attend(q, chunked(k), chunked(v), bias, jnp.int32(used), dtype=jnp.float32)
    np.testing.assert_allclose(ours, expected, atol=2e-6)


@pytest.mark.parametrize("length", [5, 300])
@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("index", [0, 63, 127, 297, [64, 190]])
def test_steps_are_written_where_they_belong(length, steps, index):
    index = np.minimum(index, length - steps)
    _, old, _ = random_rows(length)
    new = jnp.asarray(np.random.default_rng(1).normal(size=(2, 3, steps, 4)), jnp.float32)
    expected = np.array(old)
    for row, start in enumerate(np.broadcast_to(index, 2)):
        expected[row, :, start : start + steps] = new[row]
    written = write_steps(chunked(old), new, jnp.asarray(index, jnp.int32))
    assert [x.shape[2] for x in written] == list(chunked_cache.chunk_lengths(length))
    np.testing.assert_array_equal(jnp.concatenate(written, axis=2), expected)


@pytest.mark.parametrize("used", [1, 64, 65, 300])
@pytest.mark.parametrize("axis", [0, 1])
def test_rows_are_taken_of_what_is_used(used, axis):
    _, x, _ = random_rows(300)
    x = jnp.moveaxis(x, 0, axis)[..., None] if axis else x
    ends = np.cumsum(chunked_cache.chunk_lengths(300))
    chunks = chunked_cache.Chunks(jnp.split(x, ends[:-1], axis=axis + 2))
    taken = chunked_cache.take_rows(chunks, jnp.asarray([1, 1]), jnp.int32(used), axis)
    whole = jnp.concatenate(taken, axis=axis + 2)
    expected = jnp.take(x, jnp.asarray([1, 1]), axis=axis)
    seen = (slice(None),) * (axis + 2) + (slice(0, used),)
    np.testing.assert_array_equal(whole[seen], expected[seen])


def test_caches_follow_their_beams():
    _, x, y = random_rows(100)
    cache = {
        "layer": {"cached_key": chunked(x), "cross_key": y, "cache_index": jnp.int32(7)},
        "pairs": [(x, y)],  # no chunks, though a tuple
    }
    rows = jnp.asarray([1, 1])
    taken = decode_cache.cache_take(cache, rows, jnp.int32(65))
    np.testing.assert_array_equal(jnp.concatenate(taken["layer"]["cached_key"], 2), x[rows])
    np.testing.assert_array_equal(taken["layer"]["cross_key"], y)
    assert taken["layer"]["cache_index"] == 7
    first = decode_cache.cache_take(cache, rows, jnp.int32(1))
    for ours, whole in zip(first["pairs"][0], (x, y)):
        np.testing.assert_array_equal(ours, whole[rows])
