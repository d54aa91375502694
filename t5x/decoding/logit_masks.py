"""Which tokens may be sampled: the k most likely, the nucleus, or the not too unlikely."""

import jax
import jax.numpy as jnp
from jax import Array, lax

#: Value of removed logits: very small, and finite so that differences stay numbers.
NEG_INF = -1.0e7


def topk_mask(logits: Array, topk: int | Array, replace_value: float = NEG_INF) -> Array:
    """Keep the `topk` largest logits of each row, and all equal to the last of them.

    Args:
      logits: float [B, V].
      topk: a number, or int [B] for each row; V or more keeps everything.
      replace_value: value of the removed logits.
    """
    if isinstance(topk, int):
        cutoff = lax.top_k(logits, min(topk, logits.shape[-1]))[0][:, -1:]
    else:
        count = jnp.broadcast_to(jnp.asarray(topk), logits.shape[:1])
        cutoff = _largest_cutoff(
            logits, lambda keep: jnp.sum(keep, axis=-1) >= jnp.minimum(count, logits.shape[-1])
        )
    return jnp.where(logits >= cutoff, logits, replace_value)


def topp_mask(logits: Array, topp: float | Array, replace_value: float = NEG_INF) -> Array:
    """Keep the smallest set of most likely tokens whose probabilities sum to `topp` or more.

    Args:
      logits: float [B, V].
      topp: a probability, or float [B] for each row.
      replace_value: value of the removed logits.

    Holtzman et al. 2020, "The curious case of neural text degeneration".
    """
    probabilities = jax.nn.softmax(logits, axis=-1)
    mass = jnp.broadcast_to(jnp.asarray(topp, probabilities.dtype), logits.shape[:1])
    cutoff = _largest_cutoff(
        probabilities,
        lambda keep: jnp.sum(jnp.where(keep, probabilities, 0.0), axis=-1) >= mass,
    )
    return jnp.where(probabilities >= cutoff, logits, replace_value)


def minp_mask(logits: Array, min_p: float | Array, replace_value: float = NEG_INF) -> Array:
    """Keep the tokens at least `min_p` times as probable as the most probable one.

    Args:
      logits: float [B, V].
      min_p: a ratio, or float [B] for each row; 0 keeps everything, 1 only the most probable.
      replace_value: value of the removed logits.

    Nguyen et al. 2024, "Turning up the heat: min-p sampling" (arXiv 2407.01082).
    """
    ratio = jnp.broadcast_to(jnp.asarray(min_p, logits.dtype), logits.shape[:1])
    cutoff = jnp.max(logits, axis=-1, keepdims=True) + jnp.log(ratio)[:, None]
    return jnp.where(logits >= cutoff, logits, replace_value)


def _largest_cutoff(values: Array, enough) -> Array:
    """Per row, the largest float c for which `enough(values >= c)` holds, as [B, 1].

    By bisection over the floats in their order, which needs 32 reductions and no sort.
    """

    def narrow(_, bounds):
        low, high = bounds
        # The midpoint, without overflow of low + high.
        middle = (low >> 1) + (high >> 1) + (low & high & 1)
        holds = enough(values >= _ordered_float(middle)[:, None])
        return jnp.where(holds, middle, low), jnp.where(holds, high, middle)

    values = values.astype(jnp.float32)
    low = jnp.full(values.shape[:1], _ordered_int(jnp.float32(-jnp.inf)))
    high = jnp.full(values.shape[:1], _ordered_int(jnp.float32(jnp.inf)))
    low, _ = lax.fori_loop(0, 32, narrow, (low, high))
    return _ordered_float(low)[:, None]


def _ordered_int(x: Array) -> Array:
    """int32 in the order of the floats `x`: negative floats have their other bits flipped."""
    bits = lax.bitcast_convert_type(x, jnp.int32)
    return jnp.where(bits < 0, bits ^ 0x7FFFFFFF, bits)


def _ordered_float(x: Array) -> Array:
    """Inverse of `_ordered_int`."""
    return lax.bitcast_convert_type(jnp.where(x < 0, x ^ 0x7FFFFFFF, x), jnp.float32)
