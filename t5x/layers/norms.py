"""Root-mean-square normalisation, T5's layer norm."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array, lax

from t5x.layers.dense import Initializer, param_with_axes


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + epsilon) * scale, over the last axis; no mean, no bias.

    The statistics are computed in float32 whatever `dtype` is (Zhang & Sennrich 2019; T5 calls
    this layer norm, and names its parameter `scale`).
    """

    epsilon: float = 1e-6
    dtype: Any = jnp.float32
    scale_init: Initializer = nn.initializers.ones

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Normalise [..., E] to [..., E] in `dtype`."""
        x = jnp.asarray(x, jnp.float32)
        mean_square = jnp.mean(lax.square(x), axis=-1, keepdims=True)
        y = jnp.asarray(x * lax.rsqrt(mean_square + self.epsilon), self.dtype)
        scale = param_with_axes(
            "scale", self.scale_init, (x.shape[-1],), jnp.float32, axes=("embed",)
        )
        return y * jnp.asarray(scale, self.dtype)


#: The name T5 uses.
LayerNorm = RMSNorm


def standardize(x: Array, epsilon: float = 1e-5) -> Array:
    """(x - mean) / sqrt(variance + epsilon) over the last axis of `x`, float32 (Ba et al. 2016)."""
    x = jnp.asarray(x, jnp.float32)
    centred = x - x.mean(-1, keepdims=True)
    variance = jnp.mean(lax.square(centred), axis=-1, keepdims=True)
    return centred * lax.rsqrt(variance + epsilon)


def rms(x: jax.Array) -> jax.Array:
    """Root mean square of all entries of `x`, a float32 scalar."""
    return jnp.sqrt(jnp.mean(jnp.square(jnp.asarray(x, jnp.float32))))
