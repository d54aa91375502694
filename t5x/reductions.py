"""Reductions which XLA's CPU backend does not vectorise as JAX writes them."""

import jax
import jax.numpy as jnp
from jax import Array, lax


def argmax(x: Array) -> Array:
    """int32 index of the first maximum along the last axis, as `jnp.argmax`.

    On CPU by the maximum and then the first place that equals it, which is several times faster
    than one reduction of pairs.
    """
    if jax.default_backend() != "cpu":
        return jnp.argmax(x, axis=-1).astype(jnp.int32)
    largest = (x == jnp.max(x, axis=-1, keepdims=True)) | jnp.isnan(x)
    # Float32 holds places exactly up to 2^24, and has a vectorised minimum.
    places = lax.broadcasted_iota(jnp.float32, x.shape, x.ndim - 1)
    return jnp.min(jnp.where(largest, places, jnp.inf), axis=-1).astype(jnp.int32)
