"""Sampling from Perceiver AR as its reference does it, to compare `perceiver_ar.sampler` with.

Written down from a description of the reference's cache: cross-attention has T keys and values, the
layers N each. Keys are stored as they are and all of them are rotated at every step. A new
entry rolls in from the right, which moves all others. When the caches of the layers are full, they
are emptied, and the keys and values of all T inputs and N / 2 latents are computed from the tokens.
All rows have one length. The layers are those of `perceiver_ar.network`, without the options that
add cross-attentions, absolute positions or several latents per position.

Letters in shapes: B batch, T inputs of the cache, N latents of the cache, Q new latents, H heads,
S slots, D head dimension, V vocabulary.
"""

import dataclasses
import functools
from typing import Any

import flax.struct
import jax.numpy as jnp
from jax import Array, lax

from perceiver_ar.attention import attend
from perceiver_ar.config import PerceiverARConfig
from perceiver_ar.masks import NEVER
from perceiver_ar.network import PerceiverAR
from perceiver_ar.positions import rotate

KeysValues = tuple[Array, Array]


class Cache(flax.struct.PyTreeNode):
    """What a step needs of those before it.

    Attributes:
      inputs: keys and values [B, H, T, D], not rotated.
      input_positions: int32 [B, T], counted from 1; 0 where there is nothing.
      latents: keys and values [B, H, N, D] of each layer, not rotated.
      latent_positions: int32 [B, N].
      fill: int32, latents in the cache.
    """

    inputs: KeysValues
    input_positions: Array
    latents: list[KeysValues]
    latent_positions: Array
    fill: Array


@dataclasses.dataclass(frozen=True)
class RolledCacheSampler:
    """Steps of a network whose context is T and whose latents are N."""

    config: PerceiverARConfig

    def _apply(self, params: Any, method: Any, *args: Any) -> Any:
        return PerceiverAR(self.config).apply({"params": params}, *args, method=method)

    def begin(
        self, params: Any, sequences: Array, index: Array, num_latents: int
    ) -> tuple[Array, Cache]:
        """Compute everything from tokens.

        Args:
          params: of the network.
          sequences: int [B, L], with all tokens up to `index`.
          index: int, where the newest token is.
          num_latents: Q.

        Returns:
          (float32 logits [B, V] of the token after `index`, caches).
        """
        return self._apply(params, self._recompute, sequences, index, num_latents)

    def step(
        self, params: Any, cache: Cache, sequences: Array, index: Array
    ) -> tuple[Array, Cache]:
        """Process the token at `index`; arguments and results are those of `begin`."""
        size = self.config.z_index_dim
        recompute = functools.partial(self.begin, num_latents=max(size // 2, 1))
        advance = functools.partial(self._apply, params, self._advance, cache)
        return lax.cond(
            cache.fill >= size,
            lambda *args: recompute(params, *args),
            advance,
            sequences,
            index,
        )

    def _recompute(
        self, net: PerceiverAR, sequences: Array, index: Array, num_latents: int
    ) -> tuple[Array, Cache]:
        size = self.config.z_index_dim
        context = self.config.max_context_length
        tokens, positions = _until(sequences, index, context)
        x = net.embed(tokens, positions[..., None])
        heads = self.config.num_transformer_heads
        shape = (len(tokens), heads, size, self.config.num_z_channels // heads)
        nothing = (jnp.zeros(shape, x.dtype), jnp.zeros(shape, x.dtype))
        empty = Cache(
            net.input_keys_values(x, None)[0],
            positions,
            [nothing] * self.config.num_transformers_per_block,
            jnp.zeros((len(tokens), size), jnp.int32),
            jnp.int32(0),
        )
        return self._add_latents(net, empty, *_until(sequences, index, num_latents))

    def _advance(
        self, net: PerceiverAR, cache: Cache, sequences: Array, index: Array
    ) -> tuple[Array, Cache]:
        tokens, positions = _until(sequences, index, 1)
        keys_values = net.input_keys_values(net.embed(tokens, positions[..., None]), None)[0]
        cache = cache.replace(
            inputs=tuple(_roll_in(x, new) for x, new in zip(cache.inputs, keys_values)),
            input_positions=_roll_in(cache.input_positions, positions),
        )
        return self._add_latents(net, cache, tokens, positions)

    def _add_latents(
        self, net: PerceiverAR, cache: Cache, tokens: Array, positions: Array
    ) -> tuple[Array, Cache]:
        """Return the logits after the last of tokens [B, Q], and caches with their latents."""
        latent_positions = _roll_in(cache.latent_positions, positions)

        def look_at_inputs(_: int, query: Array) -> Array:
            return self._look(query, positions, *cache.inputs, cache.input_positions)

        def look_at_latents(layer: int, query: Array, *new: Array) -> tuple[Array, Any]:
            keys, values = (_roll_in(x, y) for x, y in zip(cache.latents[layer], new))
            return self._look(query, positions, keys, values, latent_positions), (keys, values)

        z = net.initial_queries(net.embed(tokens, positions[..., None]))
        z, latents = net.process_cached(z, None, look_at_inputs, look_at_latents)
        fill = cache.fill + tokens.shape[1]
        cache = cache.replace(latents=latents, latent_positions=latent_positions, fill=fill)
        return net.predict(z[:, -1:])[:, 0], cache

    def _look(
        self,
        query: Array,
        query_positions: Array,
        key: Array,
        value: Array,
        key_positions: Array,
    ) -> Array:
        def turn(x: Array, positions: Array) -> Array:
            cfg = self.config
            fractions = (cfg.fraction_to_rotate, cfg.fraction_heads_to_rotate)
            return rotate(x, positions, cfg.wavelength, *fractions)

        query, key = turn(query, query_positions), turn(key, key_positions)
        steps = jnp.where(key_positions > 0, key_positions, NEVER)
        return attend(query, key, value, query_positions, steps)


def _until(sequences: Array, index: Array, count: int) -> tuple[Array, Array]:
    """Return the `count` tokens that end at `index`, and their positions, each int [B, count]."""
    at = index - count + 1 + jnp.arange(count)
    tokens = jnp.where(at >= 0, jnp.take(sequences, at, axis=1, mode="clip"), 0)
    return tokens, jnp.broadcast_to(jnp.maximum(at + 1, 0), tokens.shape)


def _roll_in(x: Array, new: Array) -> Array:
    """Return `new` [B, H, Q, D] or [B, Q] after all but the first Q slots of a cache."""
    axis = x.ndim - 2 if x.ndim > 2 else 1
    rolled = jnp.roll(x, -new.shape[axis], axis=axis)
    start = x.shape[axis] - new.shape[axis]
    return lax.dynamic_update_slice_in_dim(rolled, new.astype(x.dtype), start, axis)
