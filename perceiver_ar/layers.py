"""The layers of Perceiver AR: layer norm, cross- and self-attention with biases.

The layers take a function from queries (and for self-attention, new keys and values) to attention
results, so that training and cached sampling share them. Letters in shapes: B batch, L length,
Q queries, T inputs, E width of inputs, Z width of latents, H heads, D head dimension.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import Array, lax

from perceiver_ar.config import PerceiverARConfig
from perceiver_ar.positions import rotate
from t5x.layers.dense import Linear, activation_fn, param_with_axes, shard
from t5x.layers.dropout import Dropout
from t5x.layers.norms import standardize

#: Queries [B, H, Q, D] to attention results, [B, H, Q, D].
Look = Callable[[Array], Array]
#: Queries, new keys and new values [B, H, Q, D] to what was seen and anything else, such as caches.
LookAtLatents = Callable[[Array, Array, Array], tuple[Array, Any]]


class LayerNorm(nn.Module):
    """Layer normalisation with scale and bias, computed in float32 (Ba et al. 2016)."""

    dtype: Any = jnp.float32
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Normalise [..., F]; the result is in `dtype`."""
        shape = x.shape[-1:]
        scale = param_with_axes("scale", nn.initializers.ones, shape, jnp.float32, axes=("embed",))
        bias = param_with_axes("bias", nn.initializers.zeros, shape, jnp.float32, axes=("embed",))
        return (standardize(x, self.epsilon) * scale + bias).astype(self.dtype)


class Mlp(nn.Module):
    """Linear, activation, linear: [B, L, Z] -> [B, L, Z]."""

    config: PerceiverARConfig
    widening_factor: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        features, dtype = x.shape[-1], self.config.dtype
        x = Linear(self.widening_factor * features, ("embed", "mlp"), dtype, name="wi")(x)
        x = shard(activation(self.config.activation_name)(x), "batch", "length", "mlp")
        return Linear(features, ("mlp", "embed"), dtype, name="wo")(x)


def activation(name: str) -> Callable[[Array], Array]:
    """Return the activation `sq_relu`, relu(x)^2 (So et al. 2021, "Primer"), or one of t5x."""
    if name == "sq_relu":
        return lambda x: lax.square(nn.relu(x))
    return activation_fn(name)


class Attention(nn.Module):
    """Multi-head attention with biases and rotation by position.

    Attributes:
      config: rotation and type.
      num_heads: H.
      features: H * D.
      out_features: width of the result.
      query_offset: added to the positions of queries; wavelengths grow by as much.
    """

    config: PerceiverARConfig
    num_heads: int
    features: int
    out_features: int
    query_offset: int = 0

    def setup(self):
        dtype = self.config.dtype
        self.query = Linear(self.features, ("embed", "joined_kv"), dtype)
        self.key = Linear(self.features, ("embed", "joined_kv"), dtype)
        self.value = Linear(self.features, ("embed", "joined_kv"), dtype)
        self.out = Linear(self.out_features, ("joined_kv", "embed"), dtype)

    def _heads(self, x: Array) -> Array:
        """Split [B, L, H * D] into [B, H, L, D]."""
        x = x.reshape(*x.shape[:2], self.num_heads, -1).swapaxes(1, 2)
        return shard(x, "batch", "heads", "length", "kv")

    def _rotate(self, x: Array, positions: Array | None) -> Array:
        if positions is None:
            return x
        cfg = self.config
        wavelength = cfg.wavelength + self.query_offset
        return rotate(
            x, positions, wavelength, cfg.fraction_to_rotate, cfg.fraction_heads_to_rotate
        )

    def keys_values(self, x: Array, positions: Array | None) -> tuple[Array, Array]:
        """Return keys, rotated if there are positions, and values, [B, H, L, D] of [B, L, F]."""
        keys = self._rotate(self._heads(self.key(x)), positions)
        return keys, self._heads(self.value(x))

    def __call__(self, x: Array, positions: Array | None, look: Look) -> Array:
        """Return the attention results [B, Q, out_features] of [B, Q, F] at positions [B, Q]."""
        if positions is not None:
            positions = positions + self.query_offset
        seen = look(self._rotate(self._heads(self.query(x)), positions))
        seen = shard(seen, "batch", "heads", "length", "kv").swapaxes(1, 2)
        return self.out(seen.reshape(*seen.shape[:2], -1))


class CrossAttention(nn.Module):
    """Cross-attention from latents to inputs, then a feed-forward block; pre-norm (section 3.1).

    Attributes:
      config: sizes.
      initial: the first of the network, whose queries may be offset.
    """

    config: PerceiverARConfig
    initial: bool = True

    def setup(self):
        cfg = self.config
        self.query_norm = LayerNorm(cfg.dtype)
        self.input_norm = LayerNorm(cfg.dtype)
        self.attention = Attention(
            cfg,
            cfg.num_cross_attend_heads,
            cfg.cross_attention_width,
            cfg.num_z_channels,
            query_offset=int(self.initial and cfg.initial_query_offsetting),
        )
        self.mlp_norm = LayerNorm(cfg.dtype)
        self.mlp = Mlp(cfg, cfg.cross_attend_widening_factor)
        self.dropout = Dropout(cfg.dropout_prob)

    def keys_values(self, inputs: Array, positions: Array | None) -> tuple[Array, Array]:
        """Return keys and values [B, H, T, D] of inputs [B, T, E]."""
        return self.attention.keys_values(self.input_norm(inputs), positions)

    def __call__(
        self, z: Array, positions: Array | None, look: Look, deterministic: bool = True
    ) -> Array:
        """Map latents [B, Q, Z] to [B, Q, Z]."""
        seen = self.attention(self.query_norm(z), positions, look)
        seen = self.dropout(seen, deterministic=deterministic)
        z = z + seen if self.config.encoder_use_query_residual else seen
        added = self.mlp(self.mlp_norm(z))
        return z + self.dropout(added, deterministic=deterministic)


class SelfAttention(nn.Module):
    """Self-attention among latents, then a feed-forward block; pre-norm and residual."""

    config: PerceiverARConfig

    def setup(self):
        cfg = self.config
        self.attention_norm = LayerNorm(cfg.dtype)
        self.attention = Attention(
            cfg, cfg.num_transformer_heads, cfg.num_z_channels, cfg.num_z_channels
        )
        self.mlp_norm = LayerNorm(cfg.dtype)
        self.mlp = Mlp(cfg, cfg.transformer_widening_factor)
        self.dropout = Dropout(cfg.dropout_prob)

    def __call__(
        self, z: Array, positions: Array | None, look: LookAtLatents, deterministic: bool = True
    ) -> tuple[Array, Any]:
        """Map [B, Q, Z] to ([B, Q, Z], the second result of `look`)."""
        z = shard(z, "batch", "length", "embed")
        x = self.attention_norm(z)
        keys, values = self.attention.keys_values(x, positions)
        extra: list[Any] = []

        def look_at(queries: Array) -> Array:
            seen, more = look(queries, keys, values)
            extra.append(more)
            return seen

        seen = self.attention(x, positions, look_at)
        z = z + self.dropout(seen, deterministic=deterministic)
        added = self.mlp(self.mlp_norm(z))
        return z + self.dropout(added, deterministic=deterministic), extra[0]
