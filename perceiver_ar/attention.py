"""Softmax attention between steps: all keys at once, or block by block in O(queries * block).

Blocks are a scan or, if asked for and on a CUDA GPU, the kernels of
`perceiver_ar.fused_attention`.

Letters in shapes: B batch, H heads, Q queries, K keys, D head dimension, S keys of a block.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from perceiver_ar import fused_attention
from perceiver_ar.masks import NEVER, allowed
from t5x.partitioning import per_device

#: Implementations: JAX (`blocks`), or in programs for a CUDA GPU the fused kernels (`fused`).
KERNELS = ("blocks", "fused")

_MASKED = -1e30
_DEFAULT_BLOCK = 512


class AttentionOptions(NamedTuple):
    """How attention is computed; the options do not change the result.

    Attributes:
      block: S, keys per block; None for one block of all.
      head_group_size: heads computed together, one group after the other; None for all.
      kernel: one of `KERNELS`. The fused kernels have blocks of their own.
    """

    block: int | None = None
    head_group_size: int | None = None
    kernel: str = "blocks"

    def fused(self, width: int) -> bool:
        """Return whether heads of a width use the fused kernels where the program runs on a GPU.

        Raises:
          ValueError: the heads are too wide for the kernels.
        """
        if self.kernel == "fused" and width > fused_attention.MAX_WIDTH:
            raise ValueError(
                f"attention_kernel='fused' is for heads of at most {fused_attention.MAX_WIDTH} "
                f"channels, and these have {width}: use 'blocks', or more heads"
            )
        return self.kernel == "fused"


_ALL_AT_ONCE = AttentionOptions()


def attend(
    query: Array,
    key: Array,
    value: Array,
    query_steps: Array,
    key_steps: Array,
    *,
    own_key: bool = False,
    options: AttentionOptions = _ALL_AT_ONCE,
) -> Array:
    """Return softmax(query key^T / sqrt(D)) value over the keys of steps up to the query's.

    A query that sees no key gets zeros. Logits and softmax are float32.

    Args:
      query: [B, H, Q, D].
      key: [B, H, K, D].
      value: [B, H, K, D].
      query_steps: int [B, Q].
      key_steps: int [B, K], `masks.NEVER` for keys that are not seen.
      own_key: query i also sees key i; then Q = K.
      options: see `AttentionOptions`.

    Returns:
      [B, H, Q, D] in the type of `query`.

    Raises:
      ValueError: `head_group_size` does not divide H, or a block that is not positive.
    """
    block, group, _ = options
    if block is not None and block < 1:
        raise ValueError(f"attention_block={block}: expected a positive number of keys, or None")
    fused = options.fused(query.shape[-1])
    if not fused and (block is None or block >= key.shape[2]):
        run = functools.partial(_attend_at_once, own_key=own_key)
    else:
        block = min(block or _DEFAULT_BLOCK, key.shape[2])
        run = functools.partial(_attend_in_blocks, own_key=own_key, block=block, fused=fused)
    query = query * jnp.asarray(1 / math.sqrt(query.shape[-1]), query.dtype)
    if group is None or group >= query.shape[1]:
        return run(query, key, value, query_steps, key_steps)
    return _by_groups(run, group, query, key, value, query_steps, key_steps)


def _by_groups(run: Any, size: int, query: Array, key: Array, value: Array, *steps: Array) -> Array:
    """Apply `run` to `size` heads at a time, recomputing for gradients."""
    heads = query.shape[1]
    if size < 1 or heads % size:
        raise ValueError(
            f"head_group_size={size} does not divide {heads} heads: give a divisor, or None"
        )

    def split(x: Array) -> Array:
        x = x.reshape(x.shape[0], heads // size, size, *x.shape[2:])
        return jnp.moveaxis(x, 1, 0)

    run_group = jax.checkpoint(lambda qkv: run(*qkv, *steps))
    out = lax.map(run_group, (split(query), split(key), split(value)))
    return jnp.moveaxis(out, 0, 1).reshape(query.shape[:-1] + value.shape[-1:])


def _logits(query: Array, key: Array) -> Array:
    return jnp.einsum("bhqd,bhkd->bhqk", query, key, preferred_element_type=jnp.float32)


def _attend_at_once(
    query: Array,
    key: Array,
    value: Array,
    query_steps: Array,
    key_steps: Array,
    own_key: bool,
) -> Array:
    mask = allowed(query_steps, key_steps, own_key)
    weights = jax.nn.softmax(jnp.where(mask, _logits(query, key), _MASKED))
    weights = jnp.where(mask, weights, 0.0).astype(value.dtype)
    return jnp.einsum("bhqk,bhkd->bhqd", weights, value).astype(query.dtype)


# ------------------------------------------------------------------------------- block by block


class _Block(NamedTuple):
    """Keys [B, H, S, D], values [B, H, S, D], steps [B, S], index of the first key."""

    key: Array
    value: Array
    steps: Array
    first: Array


def _blocks(key: Array, value: Array, key_steps: Array, size: int) -> _Block:
    """Return all blocks along a new first axis; the padding of the last one is not seen."""
    missing = -key.shape[2] % size
    pad = ((0, 0), (0, 0), (0, missing), (0, 0))
    steps = jnp.pad(key_steps, ((0, 0), (0, missing)), constant_values=NEVER)
    count = steps.shape[1] // size

    def split(x: Array, axis: int) -> Array:
        x = x.reshape(*x.shape[:axis], count, size, *x.shape[axis + 1 :])
        return jnp.moveaxis(x, axis, 0)

    return _Block(
        split(jnp.pad(key, pad), 2),
        split(jnp.pad(value, pad), 2),
        split(steps, 1),
        jnp.arange(count) * size,
    )


def _accumulate(
    state: tuple[Array, Array, Array],
    query: Array,
    query_steps: Array,
    block: _Block,
    own_key: bool,
) -> tuple[Array, Array, Array]:
    """Take one step of the online softmax (Milakov & Gimelshein 2018; Dao et al. 2022, alg. 1).

    The state is (largest logit [B, H, Q, 1], sum of weights [B, H, Q, 1], weighted values), with
    weights exp(logit - largest).
    """
    largest, total, out = state
    mask = allowed(query_steps, block.steps, own_key, block.first)
    logits = jnp.where(mask, _logits(query, block.key), _MASKED)
    new_largest = jnp.maximum(largest, logits.max(axis=-1, keepdims=True))
    # While all was masked, the largest logit is _MASKED too and the difference is 0.
    weights = jnp.where(mask, jnp.exp(logits - new_largest), 0.0)
    decay = jnp.exp(largest - new_largest)
    values = jnp.einsum(
        "bhqk,bhkd->bhqd",
        weights.astype(block.value.dtype),
        block.value,
        preferred_element_type=jnp.float32,
    )
    return new_largest, total * decay + weights.sum(-1, keepdims=True), out * decay + values


def _start(query: Array, width: int) -> tuple[Array, Array, Array]:
    rows = query.shape[:-1]
    return (
        jnp.full((*rows, 1), _MASKED, jnp.float32),
        jnp.zeros((*rows, 1), jnp.float32),
        jnp.zeros((*rows, width), jnp.float32),
    )


#: Logical axes of [B, H, L, D] and of steps [B, L].
_HEADS, _STEPS = ("batch", "heads", "length", "kv"), ("batch", "length")
_GIVEN = (_HEADS, _HEADS, _HEADS, _STEPS, _STEPS)


@functools.partial(jax.custom_vjp, nondiff_argnums=(5, 6, 7))
def _attend_in_blocks(query, key, value, query_steps, key_steps, own_key, block, fused):
    return _forward(query, key, value, query_steps, key_steps, own_key, block, fused)[0]


def _forward(query, key, value, query_steps, key_steps, own_key, block, fused):
    given = (query, key, value, query_steps, key_steps)
    run = functools.partial(_blocks_forward, own_key=own_key, block=block)
    if fused:
        kernels = functools.partial(fused_attention.forward, own_key=own_key)
        run = per_device(_on_gpu(kernels, run), _GIVEN, (_HEADS, _HEADS))
    out, log_total = run(*given)
    return out, (*given, out, log_total)


def _backward(own_key, block, fused, residuals, grad):
    def run(*arrays):
        return _blocks_backward(*arrays, own_key=own_key, block=block)

    if fused:
        kernels = functools.partial(fused_attention.backward, own_key=own_key)
        given = (*_GIVEN, _HEADS, _HEADS, _HEADS)
        run = per_device(_on_gpu(kernels, run), given, (_HEADS, _HEADS, _HEADS))
    return *run(*residuals, grad), None, None


_attend_in_blocks.defvjp(_forward, _backward)


def _on_gpu(kernels: Callable[..., Any], otherwise: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that chooses by platform when the program is compiled."""
    return lambda *given: lax.platform_dependent(*given, cuda=kernels, default=otherwise)


def _blocks_forward(query, key, value, query_steps, key_steps, own_key, block):
    """Return (results of attention, logarithm of the sum of weights [B, H, Q, 1])."""

    def body(state, part):
        return _accumulate(state, query, query_steps, part, own_key), None

    parts = _blocks(key, value, key_steps, block)
    (largest, total, out), _ = lax.scan(body, _start(query, value.shape[-1]), parts)
    total = jnp.where(total > 0, total, 1.0)
    return (out / total).astype(query.dtype), largest + jnp.log(total)


def _blocks_backward(
    query, key, value, query_steps, key_steps, out, log_total, grad, own_key, block
):
    """Recompute the weights of each block from the sum over all (Dao et al. 2022, appendix B)."""
    grad32 = grad.astype(jnp.float32)
    correction = jnp.sum(grad32 * out.astype(jnp.float32), axis=-1, keepdims=True)

    def body(grad_query, part):
        mask = allowed(query_steps, part.steps, own_key, part.first)
        # Where nothing is seen, the difference may be large; mask it before exp.
        difference = jnp.where(mask, _logits(query, part.key) - log_total, _MASKED)
        weights = jnp.exp(difference)
        grad_weights = jnp.einsum(
            "bhqd,bhkd->bhqk", grad, part.value, preferred_element_type=jnp.float32
        )
        grad_logits = (weights * (grad_weights - correction)).astype(query.dtype)
        dot = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)
        grad_query = grad_query + dot("bhqk,bhkd->bhqd", grad_logits, part.key)
        grad_key = dot("bhqk,bhqd->bhkd", grad_logits, query).astype(key.dtype)
        weights = weights.astype(grad.dtype)
        grad_value = dot("bhqk,bhqd->bhkd", weights, grad).astype(value.dtype)
        return grad_query, (grad_key, grad_value)

    parts = _blocks(key, value, key_steps, block)
    grad_query, grads = lax.scan(body, jnp.zeros(query.shape, jnp.float32), parts)
    grad_key, grad_value = (_join(g)[:, :, : key.shape[2]] for g in grads)
    return grad_query.astype(query.dtype), grad_key, grad_value


def _join(x: Array) -> Array:
    """Return blocks [count, B, H, S, D] concatenated, [B, H, count * S, D]."""
    x = jnp.moveaxis(x, 0, 2)
    return x.reshape(*x.shape[:2], -1, x.shape[-1])


def attend_filled(
    query: Array,
    key: Array,
    value: Array,
    query_steps: Array,
    key_steps: Array,
    filled: Array,
    block: int,
) -> Array:
    """Attend as `attend`, reading only the blocks before key `filled`; without a gradient.

    Args:
      query, key, value, query_steps, key_steps: see `attend`.
      filled: int scalar; keys from here on are not seen by any query.
      block: keys per block.
    """
    size = key.shape[2]
    block = min(block, size)
    query = query * jnp.asarray(1 / math.sqrt(query.shape[-1]), query.dtype)

    def body(index, state):
        # The last block is moved back to end with the keys; its overlap with the one before is
        # hidden.
        first = jnp.minimum(index * block, size - block)
        steps = lax.dynamic_slice_in_dim(key_steps, first, block, axis=1)
        steps = jnp.where(first + jnp.arange(block) >= index * block, steps, NEVER)
        part = _Block(
            lax.dynamic_slice_in_dim(key, first, block, axis=2),
            lax.dynamic_slice_in_dim(value, first, block, axis=2),
            steps,
            first,
        )
        return _accumulate(state, query, query_steps, part, False)

    count = (jnp.minimum(filled, size) + block - 1) // block
    _, total, out = lax.fori_loop(0, count, body, _start(query, value.shape[-1]))
    return (out / jnp.where(total > 0, total, 1.0)).astype(query.dtype)
