"""Dropout, and random keys whose bits cost a few integer operations.

A step draws a mask for every layer. With JAX's own keys each is a loop of its own, which took half
of the time to compile a step. Keys of `dropout_rngs` make bits by hashing the position of each
element instead: elementwise, so that they are the same on any mesh and for any division of work.
They are meant for masks, not for what is modelled.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.extend.random
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array, lax


def _mix(x: Array) -> Array:
    """Permute uint32 so that each bit of the result depends on all of `x`.

    "lowbias32" of Ellis 2018, "Prospecting for hash functions".
    """
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)


def _fold_in(key: Array, data: Any) -> Array:
    """A key uint32 [2] of a key and uint32 `data`."""
    first = _mix(key[0] + jnp.asarray(data, jnp.uint32))
    second = _mix(key[1] ^ first)
    return jnp.stack([_mix(first + second), second])


def _seed(seed: Array) -> Array:
    return _fold_in(jnp.zeros(2, jnp.uint32), seed)


def _split(key: Array, shape: Sequence[int]) -> Array:
    numbers = jnp.arange(int(np.prod(shape)), dtype=jnp.uint32).reshape(shape)
    # Constant data of their own, so that the parts differ from keys folded in with small numbers.
    apart = _fold_in(key, 0x5EED5B17)
    first = _mix(apart[0] + numbers)
    second = _mix(apart[1] ^ first)
    return jnp.stack([_mix(first + second), second], axis=-1)


def _random_bits(key: Array, bit_width: int, shape: Sequence[int]) -> Array:
    if bit_width > 32:
        raise ValueError(f"a dropout key makes words of at most 32 bits, not of {bit_width}")
    place = jnp.zeros(shape, jnp.uint32)
    stride = 1
    for axis in reversed(range(len(shape))):
        place += lax.broadcasted_iota(jnp.uint32, shape, axis) * jnp.uint32(stride)
        stride *= shape[axis]
    first, second = _fold_in(key, 0x2545F491)  # so that similar keys give no shifted masks
    bits = _mix(_mix(place + first) ^ second)
    return lax.convert_element_type(bits >> (32 - bit_width), jnp.dtype(f"uint{bit_width}"))


_HASHED = jax.extend.random.define_prng_impl(
    key_shape=(2,),
    seed=_seed,
    split=_split,
    random_bits=_random_bits,
    fold_in=_fold_in,
    name="hashed_positions",
    tag="hp",
)


def dropout_rngs(rng: Array | None) -> dict[str, Array] | None:
    """The `rngs` of a network with dropout, from any random key; None without one."""
    if rng is None:
        return None
    typed = jnp.issubdtype(rng.dtype, jax.dtypes.prng_key)
    words = jax.random.key_data(rng) if typed else rng
    return {"dropout": jax.random.wrap_key_data(words[-2:], impl=_HASHED)}


def keep_scale(rng: Array, rate: float, shape: Sequence[int], dtype: Any) -> Array:
    """What to multiply with: 0 with probability `rate`, else 1 / (1 - rate).

    Raises:
      ValueError: a rate that is not in [0, 1).
    """
    if not 0.0 <= rate < 1.0:
        raise ValueError(f"dropout rate {rate}: expected a number from 0 to below 1")
    keep = jax.random.bernoulli(rng, 1.0 - rate, shape)
    scale = jnp.where(keep, 1.0 / (1.0 - rate), 0.0).astype(dtype)
    # XLA's CPU backend would draw it again for every element it is broadcast to.
    return lax.optimization_barrier(scale) if jax.default_backend() == "cpu" else scale


class Dropout(nn.Module):
    """Zero elements at random and scale the others up.

    Attributes:
      rate: probability of zeroing an element, below 1.
      shared: axes along which elements live or die together.
    """

    rate: float
    shared: Sequence[int] = ()

    def __call__(self, x: Array, deterministic: bool = False) -> Array:
        """`x` with dropout, from the rng `dropout`; `x` itself if `deterministic` or of rate 0."""
        if deterministic or self.rate == 0.0:
            return x
        shape = list(x.shape)
        for axis in self.shared:
            shape[axis] = 1
        return x * keep_scale(self.make_rng("dropout"), self.rate, shape, x.dtype)


def broadcast_dropout(rate: float) -> Dropout:
    """Dropout which is shared along the length axis of [B, L, E]."""
    return Dropout(rate, shared=(-2,))
