"""Masks: which keys a query may see.

Attention is given *steps* rather than masks: a query at step s sees the keys of steps up to s. A
key that is hidden from all queries has the step `NEVER`. A mask is then
only computed for the keys at hand, not for all T.

Letters in shapes: B batch, N latents, T inputs, Q queries, K keys.
"""

import jax
import jax.numpy as jnp
from jax import Array

#: Step of keys that are not seen.
NEVER = jnp.iinfo(jnp.int32).max


def lengths_of(tokens: Array) -> Array:
    """Return the number of tokens before the first padding (0) of each row [B, T], int32 [B]."""
    padding = tokens == 0
    length = jnp.where(padding.any(axis=1), jnp.argmax(padding, axis=1), tokens.shape[1])
    return length.astype(jnp.int32)


def latent_steps(lengths: Array, num_latents: int, counts: Array | None = None) -> Array:
    """Return input positions of the latents: the last N of each row, int32 [B, N].

    Worked example: a row of 3 tokens and N = 4 gives -1, 0, 1, 2; with a count of 2, -1, -1, 1, 2.

    Args:
      lengths: int [B].
      num_latents: N.
      counts: int [B], number of latents of each row that are used; None for all.

    Returns:
      Ascending steps; -1 for latents without a position.
    """
    index = jnp.arange(num_latents)
    steps = lengths[:, None] - num_latents + index
    if counts is not None:
        steps = jnp.where(index >= num_latents - counts[:, None], steps, -1)
    return jnp.maximum(steps, -1).astype(jnp.int32)


def input_key_steps(tokens: Array) -> Array:
    """Return steps of the inputs [B, T] as keys: their position, `NEVER` for padding."""
    return jnp.where(tokens > 0, jnp.arange(tokens.shape[1]), NEVER).astype(jnp.int32)


def latent_key_steps(steps: Array) -> Array:
    """Return steps of latents [B, N] as keys; those without a position are not seen."""
    return jnp.where(steps >= 0, steps, NEVER).astype(jnp.int32)


def drop_keys(rng: Array, key_steps: Array, rate: float) -> Array:
    """Return `key_steps` [B, K] with each key hidden with probability `rate`."""
    return jnp.where(jax.random.bernoulli(rng, rate, key_steps.shape), NEVER, key_steps)


def allowed(
    query_steps: Array, key_steps: Array, own_key: bool = False, first_key: Array | int = 0
) -> Array:
    """Return the mask of allowed keys, bool [B, 1, Q, K].

    Args:
      query_steps: int [B, Q].
      key_steps: int [B, K].
      own_key: query i also sees key i, whatever their steps.
      first_key: index of the first of these keys among all, for `own_key`.
    """
    mask = key_steps[:, None, :] <= query_steps[:, :, None]
    if own_key:
        queries, keys = query_steps.shape[1], key_steps.shape[1]
        mask |= jnp.arange(queries)[:, None] == first_key + jnp.arange(keys)
    return mask[:, None]
