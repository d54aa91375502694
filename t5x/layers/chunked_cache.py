"""The keys and values of cached self-attention, in chunks of growing length.

On CPU a decoding step takes as long as what it reads, so it should read the filled part of a cache
and nothing else; and a part of an array is copied before it is multiplied. Hence several arrays, of
which a step multiplies those that are not empty: at most about twice what is filled. Elsewhere one
array holds everything, since there fewer operations are worth more than less to read.

Letters in shapes: B batch, H heads, Q new steps, L length of the cache, C length of a chunk,
D head dim.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

#: The shortest chunk.
FIRST_CHUNK = 64


@jax.tree_util.register_pytree_node_class
class Chunks(tuple[Array, ...]):
    """Arrays [B, H, C, D], one position after the other; a type of its own, for caches have tuples
    that mean something else."""

    def tree_flatten(self) -> tuple[tuple[Array, ...], None]:
        return tuple(self), None

    @classmethod
    def tree_unflatten(cls, _: None, arrays: Iterable[Array]) -> "Chunks":
        return cls(arrays)


def chunk_lengths(length: int) -> tuple[int, ...]:
    """Lengths of the chunks of a cache of `length` positions: each as long as all before it."""
    if jax.default_backend() != "cpu":
        return (length,)
    lengths = [min(FIRST_CHUNK, length)]
    while sum(lengths) < length:
        lengths.append(min(sum(lengths), length - sum(lengths)))
    return tuple(lengths)


def empty_chunks(batch: int, heads: int, length: int, head_dim: int, dtype: Any) -> Chunks:
    """Chunks of zeros."""
    return Chunks(jnp.zeros((batch, heads, n, head_dim), dtype) for n in chunk_lengths(length))


def write_steps(chunks: Chunks, new: Array, index: Array) -> Chunks:
    """`chunks` with `new` [B, H, Q, D] from position `index`, int32 scalar or [B]."""
    if len(chunks) > 1 and new.shape[2] > 1:  # a prompt: once, and across chunks
        whole = _write(jnp.concatenate(chunks, axis=2), new, index)
        return Chunks(jnp.split(whole, _ends(chunks)[:-1], axis=2))
    if len(chunks) == 1:
        return Chunks([_write(chunks[0], new, index)])
    starts = [0, *_ends(chunks)[:-1]]
    return Chunks(_write_inside(chunk, new, index - start) for chunk, start in zip(chunks, starts))


def attend(
    query: Array,
    keys: Chunks,
    values: Chunks,
    bias: Array,
    used: Array,
    dtype: Any,
    float32_logits: bool = False,
) -> Array:
    """softmax(query key^T + bias) value over the chunks that begin before position `used`.

    Args:
      query: [B, H, Q, D].
      keys: chunks.
      values: chunks.
      bias: [1 or B, 1 or H, Q, L]; must mask the positions which are not filled.
      used: int32 scalar >= 1.
      dtype: type of the weights and of the result.
      float32_logits: logits and softmax in float32.

    Returns:
      [B, H, Q, D] in `dtype`.
    """
    ends = _ends(keys)

    def over(count: int) -> Array:
        filled = bias[..., : ends[count - 1]]
        return _attend(query, keys[:count], values[:count], filled, dtype, float32_logits)

    if len(keys) == 1:
        return over(1)
    needed = jnp.sum(used > jnp.asarray(ends[:-1]))
    return lax.switch(needed, [lambda n=n: over(n) for n in range(1, len(keys) + 1)])


def take_rows(chunks: Chunks, rows: Array, used: Array, axis: int = 0) -> Chunks:
    """`take` of every chunk; what begins after `used` positions stays as it is."""
    starts = [0, *np.cumsum([chunk.shape[axis + 2] for chunk in chunks])[:-1].tolist()]
    return Chunks(
        lax.cond(used > start, lambda x: take(x, rows, axis), lambda x: x, chunk)
        if start
        else take(chunk, rows, axis)
        for chunk, start in zip(chunks, starts)
    )


def take(x: Array, rows: Array, axis: int = 0) -> Array:
    """The rows [R] of an array whose batch is at `axis`; they must exist."""
    # Without a mode what was taken is compared with the bounds, element by element.
    return jnp.take(x, rows, axis=axis, mode="clip")


def _attend(
    query: Array,
    keys: Sequence[Array],
    values: Sequence[Array],
    bias: Array,
    dtype: Any,
    float32_logits: bool,
) -> Array:
    if float32_logits:
        query, keys = query.astype(jnp.float32), [key.astype(jnp.float32) for key in keys]
    logits = [jnp.einsum("bhqd,bhkd->bhqk", query, key) for key in keys]
    logits = jnp.concatenate(logits, axis=-1) + bias.astype(logits[0].dtype)
    weights = jax.nn.softmax(logits).astype(dtype)
    parts = jnp.split(weights, _ends(keys)[:-1], axis=-1)
    sums = [jnp.einsum("bhqk,bhkd->bhqd", part, value) for part, value in zip(parts, values)]
    return sum(sums[1:], sums[0])


def _ends(chunks: Sequence[Array]) -> list[int]:
    """The position after the last of each chunk."""
    return np.cumsum([chunk.shape[2] for chunk in chunks]).tolist()


def _write(chunk: Array, new: Array, index: Array) -> Array:
    """`chunk` [B, H, C, D] with `new` [B, H, Q, D] from position `index`, scalar or [B]."""

    def write(chunk: Array, new: Array, index: Array) -> Array:
        return lax.dynamic_update_slice_in_dim(chunk, new, index, axis=-2)

    return jax.vmap(write)(chunk, new, index) if index.ndim else write(chunk, new, index)


def _write_inside(chunk: Array, new: Array, index: Array) -> Array:
    """`_write` of one step, which is dropped where `index` lies outside of the chunk."""
    length = chunk.shape[2]
    if index.ndim:
        # A negative index would count from the end.
        index = jnp.where(index < 0, length, index)
        rows = jnp.arange(chunk.shape[0])
        return chunk.at[rows, :, index].set(new[:, :, 0], mode="drop")
    at = jnp.clip(index, 0, length - 1)
    old = lax.dynamic_slice_in_dim(chunk, at, 1, axis=2)
    return lax.dynamic_update_slice_in_dim(chunk, jnp.where(at == index, new, old), at, axis=2)
