"""The state a decoding step reads, and how caches follow their sequences.

A cache is a pytree whose arrays have the batch at axis `offset` (1 for scanned layers, else 0).
Scalars, such as a running position, are shared by all rows. Leaves whose names begin with
`cross_` hold projected encoder outputs, one row for each input whatever the number of its decodes.
"""

from collections.abc import Callable, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jax import Array

from t5x.layers import chunked_cache

Cache = Any


class DecodingState(flax.struct.PyTreeNode):
    """What `tokens_to_logits` sees.

    Attributes:
      cur_index: int32 [B], position of `cur_token` in its row of `sequences`.
      sequences: int32 [B, L + 1], position 0 is BOS (0).
      cur_token: int32 [B, 1], the token to feed.
      cache: the caches of the model.
    """

    cur_index: Array
    sequences: Array
    cur_token: Array
    cache: Cache


TokensToLogits = Callable[[DecodingState], tuple[Array, Cache]]


def flat_batch_beam_expand(x: Array, beam_size: int, offset: int = 0) -> Array:
    """Repeat each row in place: a, b -> a, a, b, b along axis `offset`."""
    return x if beam_size == 1 else jnp.repeat(x, beam_size, axis=offset)


def cache_map(
    fn: Callable[[Array], Array], cache: Cache, offset: int = 0, *, cross: bool = True
) -> Cache:
    """Apply `fn` to every array with a batch axis; with cross=False not to `cross_*`."""

    def apply(path, x):
        shared = not cross and _is_cross(path)
        return x if shared or x.ndim <= offset else fn(x)

    return jax.tree_util.tree_map_with_path(apply, cache)


def _is_cross(path: Sequence[Any]) -> bool:
    """Whether a leaf holds projected encoder outputs."""
    return str(getattr(path[-1], "key", "")).startswith("cross_")


def cache_expand(cache: Cache, beam_size: int, offset: int = 0) -> Cache:
    """The cache of `beam_size` decodes of every row."""
    return cache_map(
        lambda x: flat_batch_beam_expand(x, beam_size, offset), cache, offset, cross=False
    )


def cache_take(cache: Cache, rows: Array, used: Array, offset: int = 0) -> Cache:
    """The cache whose row r is row `rows[r]`, which must be a decode of the same input.

    Only the first `used` (int32 scalar) positions are asked for.
    """

    def take(path, x):
        if _is_cross(path):
            return x
        if isinstance(x, chunked_cache.Chunks):
            return chunked_cache.take_rows(x, rows, used, offset)
        return x if x.ndim <= offset else chunked_cache.take(x, rows, offset)

    return jax.tree_util.tree_map_with_path(
        take, cache, is_leaf=lambda x: isinstance(x, chunked_cache.Chunks)
    )


def right_align_prompts(prompts: Array) -> Array:
    """Move the trailing zeros of each row [B, L] to its front: 0 4 5 0 -> 0 0 4 5."""
    length = prompts.shape[1]
    used = jnp.max(jnp.where(prompts != 0, jnp.arange(1, length + 1), 0), axis=1)
    return _roll(prompts, jnp.where(used > 0, length - used, 0))


def left_align_prompts(prompts: Array) -> Array:
    """Move the leading zeros of each row [B, L] to its end: 0 0 4 5 -> 4 5 0 0."""
    present = prompts != 0
    first = jnp.where(present.any(axis=1), jnp.argmax(present, axis=1), 0)
    return _roll(prompts, -first)


def _roll(x: Array, shifts: Array) -> Array:
    return jax.vmap(jnp.roll)(x, shifts)
