"""Attention between steps as kernels for CUDA GPUs, in Pallas (lowered by Triton).

The blocks of `perceiver_ar.attention`, but no weight ever leaves the chip, and blocks of keys that
no query of a block sees are left out (FlashAttention-2: Dao 2023, arXiv 2307.08691, algorithms 1
and 2). Memory is O(queries + keys) in addition to the inputs.
They agree with the blocks when interpreted, and lower for CUDA; until they have been timed on a
GPU, a configuration has to ask for them.

cuDNN's attention (`jax.nn.dot_product_attention`) does not serve: it knows keys up to a length and
causal masks, but not hidden keys in between, which it wants as a mask of all queries and keys; and
cross-attention, whose causal part is at the end, would be two calls merged by their sums of
weights, whose gradients it leaves out.

Letters in shapes: B batch, H heads, Q queries, K keys, D head dimension, S queries or keys of a
block.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from perceiver_ar.masks import NEVER

#: The largest head dimension whose blocks fit on the chip.
MAX_WIDTH = 256

_MASKED = -1e30
_SEES_NOTHING = jnp.iinfo(jnp.int32).min
_MIN_WIDTH = 16  # of products of matrices in Triton


def forward(
    query: Array,
    key: Array,
    value: Array,
    query_steps: Array,
    key_steps: Array,
    *,
    own_key: bool = False,
    interpret: bool = False,
) -> tuple[Array, Array]:
    """Return softmax(query key^T) value over the keys of steps up to the query's.

    Args:
      query: [B, H, Q, D], already divided by sqrt(D); D at most `MAX_WIDTH`.
      key, value: [B, H, K, D].
      query_steps, key_steps, own_key: see `perceiver_ar.attention.attend`.
      interpret: run on any device, slowly, for tests.

    Returns:
      ([B, H, Q, D] in the type of `query`, logarithm of the sum of weights float32 [B, H, Q, 1]).
    """
    count, width = query.shape[2:]
    query, key, value, query_steps, key_steps = _filled_up(
        query, key, value, query_steps, key_steps
    )
    ends, _ = _seen_blocks(query_steps, key_steps, own_key, _block(query))
    out, log_total = _each_block(
        functools.partial(_forward_kernel, own_key=own_key),
        "queries",
        ends,
        (query, query_steps),
        (key, value, key_steps),
        (query, jax.ShapeDtypeStruct(query.shape[:3], jnp.float32)),
        interpret,
    )
    return out[:, :, :count, :width], log_total[:, :, :count, None]


def backward(
    query: Array,
    key: Array,
    value: Array,
    query_steps: Array,
    key_steps: Array,
    out: Array,
    log_total: Array,
    grad: Array,
    *,
    own_key: bool = False,
    interpret: bool = False,
) -> tuple[Array, Array, Array]:
    """Return gradients of query, key and value, given that of `forward`'s first result.

    Args:
      query, key, value, query_steps, key_steps, own_key, interpret: see `forward`.
      out, log_total: the results of `forward`.
      grad: [B, H, Q, D].
    """
    counts, width = [x.shape[2] for x in (query, key, value)], query.shape[3]
    sums = jnp.sum(grad.astype(jnp.float32) * out.astype(jnp.float32), axis=-1)
    query, key, value, query_steps, key_steps = _filled_up(
        query, key, value, query_steps, key_steps
    )
    log_total, sums = (_pad(x, query.shape[:3]) for x in (log_total[..., 0], sums))
    queries = (query, query_steps, log_total, sums, _pad(grad, query.shape))
    keys = (key, value, key_steps)
    ends, starts = _seen_blocks(query_steps, key_steps, own_key, _block(query))
    kernel = functools.partial(_grad_query_kernel, own_key=own_key)
    grads = _each_block(kernel, "queries", ends, queries, keys, (query,), interpret)
    kernel = functools.partial(_grad_key_kernel, own_key=own_key)
    grads += _each_block(kernel, "keys", starts, queries, keys, (key, value), interpret)
    return tuple(x[:, :, :n, :width] for x, n in zip(grads, counts))  # type: ignore[return-value]


# ---------------------------------------------------------------------------------------- kernels


def _forward_kernel(end, query, query_steps, key, value, key_steps, out, log_total, *, own_key):
    """Compute one block of queries; the parameters are references."""
    size, width = query.shape
    q, steps, i = query[...], query_steps[...], pl.program_id(0)

    def body(j: Array, state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        largest, total, values = state
        at = pl.ds(j * size, size)
        mask = _mask(steps, key_steps[at], i, j, own_key)
        logits = jnp.where(mask, _dot(q, key[at, :], (1, 1)), _MASKED)
        new_largest = jnp.maximum(largest, jnp.max(logits, axis=1))
        # While all was masked, the largest logit is _MASKED too and the difference is 0.
        weights = jnp.where(mask, jnp.exp(logits - new_largest[:, None]), 0.0)
        decay = jnp.exp(largest - new_largest)
        new_values = _dot(weights.astype(value.dtype), value[at, :], (1, 0))
        total = total * decay + jnp.sum(weights, axis=1)
        return new_largest, total, values * decay[:, None] + new_values

    state = (
        jnp.full((size,), _MASKED, jnp.float32),
        jnp.zeros((size,), jnp.float32),
        jnp.zeros((size, width), jnp.float32),
    )
    largest, total, values = lax.fori_loop(0, end[0], body, state)
    total = jnp.where(total > 0, total, 1.0)
    out[...] = (values / total[:, None]).astype(out.dtype)
    log_total[...] = largest + jnp.log(total)


def _grad_query_kernel(
    end, query, query_steps, log_total, sums, grad, key, value, key_steps, grad_query, *, own_key
):
    """Compute the gradient of one block of queries."""
    size = query.shape[0]
    mine = (query[...], log_total[...], sums[...], grad[...])
    steps, i = query_steps[...], pl.program_id(0)

    def body(j: Array, total: Array) -> Array:
        at = pl.ds(j * size, size)
        mask = _mask(steps, key_steps[at], i, j, own_key)
        k = key[at, :]
        _, grad_logits = _weights_and_grads(mine, k, value[at, :], mask)
        return total + _dot(grad_logits.astype(k.dtype), k, (1, 0))

    total = lax.fori_loop(0, end[0], body, jnp.zeros(query.shape, jnp.float32))
    grad_query[...] = total.astype(grad_query.dtype)


def _grad_key_kernel(
    start, query, query_steps, log_total, sums, grad, key, value, key_steps, grad_key, grad_value,
    *, own_key,
):  # fmt: skip
    """Compute the gradients of one block of keys and values."""
    size = key.shape[0]
    k, v, steps, j = key[...], value[...], key_steps[...], pl.program_id(0)

    def body(i: Array, totals: tuple[Array, Array]) -> tuple[Array, Array]:
        at = pl.ds(i * size, size)
        mask = _mask(query_steps[at], steps, i, j, own_key)
        q, g = query[at, :], grad[at, :]
        weights, grad_logits = _weights_and_grads((q, log_total[at], sums[at], g), k, v, mask)
        for_key, for_value = totals
        for_key += _dot(grad_logits.astype(q.dtype), q, (0, 0))
        return for_key, for_value + _dot(weights.astype(g.dtype), g, (0, 0))

    totals = (jnp.zeros(key.shape, jnp.float32), jnp.zeros(value.shape, jnp.float32))
    for_key, for_value = lax.fori_loop(start[0], query.shape[0] // size, body, totals)
    grad_key[...] = for_key.astype(grad_key.dtype)
    grad_value[...] = for_value.astype(grad_value.dtype)


def _weights_and_grads(
    queries: tuple[Array, Array, Array, Array], key: Array, value: Array, mask: Array
) -> tuple[Array, Array]:
    """Return weights, and gradients of logits, float32 [S, S].

    Of queries: themselves [S, D], logarithm of the sum of weights [S], sum of out * grad [S],
    grad [S, D].
    """
    query, log_total, sums, grad = queries
    # Where nothing is seen, the difference may be large; it is not to reach exp.
    difference = jnp.where(mask, _dot(query, key, (1, 1)) - log_total[:, None], _MASKED)
    weights = jnp.exp(difference)
    return weights, weights * (_dot(grad, value, (1, 1)) - sums[:, None])


def _mask(
    query_steps: Array, key_steps: Array, query_block: Any, key_block: Any, own_key: bool
) -> Array:
    """Return which keys [S] of a block each query [S] of a block sees, bool [S, S]."""
    mask = key_steps[None, :] <= query_steps[:, None]
    if own_key:
        size = query_steps.shape[0]
        queries = query_block * size + lax.broadcasted_iota(jnp.int32, (size, size), 0)
        keys = key_block * size + lax.broadcasted_iota(jnp.int32, (size, size), 1)
        mask |= queries == keys
    return mask


def _dot(a: Array, b: Array, contract: tuple[int, int]) -> Array:
    dimensions = (((contract[0],), (contract[1],)), ((), ()))
    return lax.dot_general(a, b, dimensions, preferred_element_type=jnp.float32)


# ----------------------------------------------------------------------------------------- blocks


def _block(query: Array) -> int:
    """Return S, the block size that fits on the chip, for padded queries [B, H, L, D]."""
    return 64 if query.dtype.itemsize * query.shape[3] <= 256 else 32


def _filled_up(
    query: Array, key: Array, value: Array, query_steps: Array, key_steps: Array
) -> tuple[Array, ...]:
    """Pad arrays to whole blocks of queries and keys, and a width that is a power of two.

    Padding is not seen and sees nothing except its own key.
    """
    rows, heads, count, width = query.shape
    width = max(_MIN_WIDTH, 1 << (width - 1).bit_length())
    query = _pad(query, (rows, heads, count, width))
    size = _block(query)
    queries, keys = (-(-n // size) * size for n in (count, key.shape[2]))
    return (
        _pad(query, (rows, heads, queries, width)),
        _pad(key, (rows, heads, keys, width)),
        _pad(value, (rows, heads, keys, width)),
        _pad(query_steps, (rows, queries), _SEES_NOTHING),
        _pad(key_steps, (rows, keys), NEVER),
    )


def _pad(x: Array, shape: tuple[int, ...], fill: int = 0) -> Array:
    widths = [(0, wanted - size) for wanted, size in zip(shape, x.shape)]
    return jnp.pad(x, widths, constant_values=fill)


def _seen_blocks(
    query_steps: Array, key_steps: Array, own_key: bool, size: int
) -> tuple[Array, Array]:
    """Return which blocks of keys and of queries see each other.

    Returns:
      (for each block of queries, the end of the blocks of keys it sees, int32 [B, Q / S]; for each
      block of keys, the first block of queries that sees it, int32 [B, K / S]).
    """
    rows = len(query_steps)
    newest = query_steps.reshape(rows, -1, size).max(axis=2)
    oldest = key_steps.reshape(rows, -1, size).min(axis=2)
    seen = oldest[:, None, :] <= newest[:, :, None]
    queries, keys = seen.shape[1:]
    if own_key:
        seen |= jnp.eye(queries, dtype=bool)
    ends = jnp.where(seen, jnp.arange(1, keys + 1, dtype=jnp.int32), 0).max(axis=2)
    number = jnp.arange(queries, dtype=jnp.int32)[:, None]
    return ends, jnp.where(seen, number, queries).min(axis=1)


def _each_block(
    kernel: Callable[..., None],
    of: str,
    bounds: Array,
    queries: Sequence[Array],
    keys: Sequence[Array],
    out_shapes: Sequence[Any],
    interpret: bool,
) -> list[Array]:
    """Run a program for each block `of` queries or keys, with all blocks of the others.

    Args:
      kernel: takes references to a bound, queries, keys and results.
      of: "queries" or "keys".
      bounds: int [B, blocks].
      queries, keys: arrays [B, H, L, D], [B, H, L] or [B, L]; the first has D.
      out_shapes: of results with a block for each program.
      interpret: see `forward`.
    """
    size = _block(queries[0])
    block = functools.partial(_spec, size=size)
    of_queries, of_keys = (block, _spec) if of == "queries" else (_spec, block)
    rows, heads = queries[0].shape[:2]
    return pl.pallas_call(
        kernel,
        # Neighbours read the same head.
        grid=(bounds.shape[1], rows, heads),
        in_specs=[_spec(bounds, size=1), *map(of_queries, queries), *map(of_keys, keys)],
        out_specs=[block(x) for x in out_shapes],
        out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype) for x in out_shapes],
        compiler_params=triton.CompilerParams(num_warps=4, num_stages=2),
        interpret=interpret,
    )(bounds, *queries, *keys)


def _spec(x: Any, size: int | None = None) -> pl.BlockSpec:
    """Return the spec of a program's block, or all of its row and head.

    Arrays are [B, H, L, D], [B, H, L] or [B, L].
    """

    def block(i: Array) -> Array | int:
        return 0 if size is None else i

    length = x.shape[1 if x.ndim == 2 else 2] if size is None else size
    if x.ndim == 2:
        return pl.BlockSpec((None, length), lambda i, b, h: (b, block(i)))
    if x.ndim == 3:
        return pl.BlockSpec((None, None, length), lambda i, b, h: (b, h, block(i)))
    return pl.BlockSpec((None, None, length, x.shape[3]), lambda i, b, h: (b, h, block(i), 0))
