"""The network of Perceiver AR.

Letters in shapes: B batch, T inputs, C coordinates of a position, N latents, P latents per
position, E width of embedded inputs, Z width of latents, V vocabulary, H heads, D head dimension.

Hawthorne et al. 2022 (arXiv 2202.07765), section 3: one causal cross-attention from the last N
positions of an input to all of it, then causal self-attention among the N latents. The output is N
distributions of next tokens.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array, lax

from perceiver_ar import masks
from perceiver_ar.attention import AttentionOptions, attend
from perceiver_ar.config import PerceiverARConfig
from perceiver_ar.layers import CrossAttention, LayerNorm, Look, SelfAttention, activation
from perceiver_ar.positions import position_table, terminal_positions
from t5x.layers.dense import Linear, default_kernel_init, param_with_axes, shard
from t5x.layers.embeddings import Embed
from t5x.layers.stacks import REMAT_POLICIES, Stack

_table_init = nn.initializers.truncated_normal(1.0)
_query_init = nn.initializers.truncated_normal(0.02)


class PositionTables(nn.Module):
    """Sums of table rows, one per coordinate; tables that are not trained pass no gradient.

    The tables are parameters either way, as they are in the reference's checkpoints.
    """

    config: PerceiverARConfig

    @nn.compact
    def __call__(self, positions: Array) -> Array:
        """Embed positions int [B, T, C] as [B, T, E]."""
        cfg = self.config
        total = jnp.zeros((*positions.shape[:2], cfg.input_embed_dim), cfg.dtype)
        for i, size in enumerate(cfg.input_idx_size):
            start = position_table(cfg.position_encoding, size, cfg.input_embed_dim)
            init = _table_init if start is None else _constant(start)
            shape = (size, cfg.input_embed_dim)
            table = param_with_axes(
                f"embedding_{i}", init, shape, jnp.float32, axes=(None, "embed")
            )
            if not cfg.learnable_position_embeddings:
                table = lax.stop_gradient(table)
            table = jnp.asarray(table, cfg.dtype)
            total = total + jnp.take(table, positions[..., i], axis=0, mode="clip")
        return total


def _constant(value: Any) -> Callable[..., Array]:
    return lambda rng, shape, dtype: jnp.asarray(value, dtype).reshape(shape)


class InitialQueries(nn.Module):
    """Initial latents, from the embedded tokens at their positions or from parameters."""

    config: PerceiverARConfig

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Map embedded tokens [B, N, E] to latents [B, N * P, Z]."""
        cfg = self.config
        if cfg.initial_query_embed_style == "learned":
            z = self._learned(x.shape[1])
            z = jnp.broadcast_to(z, (x.shape[0], x.shape[1], cfg.num_z_channels))
        else:
            z = Linear(cfg.num_z_channels, ("embed", None), cfg.dtype, name="linear")(x)
        if cfg.initial_query_embed_style == "mlp":
            for i in range(2):
                layer = Linear(cfg.num_z_channels, (None, "embed"), cfg.dtype, name=f"mlp_{i}")
                z = activation(cfg.activation_name)(layer(z))
        if cfg.num_latents_per_position == 1:
            return z
        shape = (cfg.num_latents_per_position, cfg.num_z_channels)
        offsets = param_with_axes(
            "latent_offsets", _query_init, shape, jnp.float32, axes=(None, "embed")
        )
        z = z[:, :, None] + jnp.asarray(offsets, cfg.dtype)
        return z.reshape(z.shape[0], -1, z.shape[-1])

    def _learned(self, num_latents: int) -> Array:
        cfg = self.config
        rows = 1 if cfg.share_initial_query else cfg.z_index_dim
        shape = (rows, cfg.num_z_channels)
        queries = param_with_axes("queries", _query_init, shape, jnp.float32, axes=(None, "embed"))
        # Fewer latents than usual are the last ones.
        return jnp.asarray(queries[-num_latents:], cfg.dtype)


class PerceiverAR(Stack):
    """The network: logits of the token after each of the last N tokens.

    Attributes:
      config: a `PerceiverARConfig`.
    """

    def setup(self):
        cfg = self.config
        self.token_embed = Embed(
            cfg.num_classes, cfg.input_embed_dim, dtype=cfg.dtype, embedding_init=_table_init
        )
        if not cfg.rotary:
            self.position_embed = PositionTables(cfg)
        self.initial_queries = InitialQueries(cfg)
        if cfg.include_initial_cross_attention:
            self.cross_attention = CrossAttention(cfg)
        extra = cfg.additional_cross_attend_after_layers
        self.cross_after = [CrossAttention(cfg, initial=False) for _ in extra]
        self.make_layers(
            lambda: SelfAttention(cfg), cfg.num_transformers_per_block, "self_attention"
        )
        self.final_norm = LayerNorm()
        logits_init = nn.initializers.zeros if cfg.final_layer_init_zeros else default_kernel_init
        self.logits = Linear(cfg.num_classes, ("embed", "vocab"), kernel_init=logits_init)

    # ---------------------------------------------------------------------------- its parts

    def embed(self, tokens: Array, positions: Array) -> Array:
        """Embed tokens int [B, T] at positions int [B, T, C] as [B, T, E]."""
        x = self.token_embed(tokens)
        return x if self.config.rotary else x + self.position_embed(positions)

    def rotary_positions(self, positions: Array, lengths: Array) -> Array | None:
        """Return rotation positions [B, T] for positions [B, T, C] of rows of `lengths` [B]."""
        cfg = self.config
        if not cfg.rotary:
            return None
        if cfg.use_positions_from_data:
            angles = positions[..., 0]
        else:
            angles = terminal_positions(lengths, positions.shape[1])
        return -angles if cfg.use_negative_rotary_positions else angles

    def cross_attentions(self) -> list[CrossAttention]:
        """Return all cross-attentions in the order of their use."""
        first = [self.cross_attention] if self.config.include_initial_cross_attention else []
        return [*first, *self.cross_after]

    def input_keys_values(self, x: Array, angles: Array | None) -> list[tuple[Array, Array]]:
        """Return keys and values [B, H, T, D] of embedded inputs, for each cross-attention."""
        return [cross.keys_values(x, angles) for cross in self.cross_attentions()]

    def predict(self, z: Array) -> Array:
        """Return float32 logits [B, N, V] of latents [B, N * P, Z]."""
        z = self.final_norm(z)
        per_position = self.config.num_latents_per_position
        if per_position > 1:
            z = z.reshape(z.shape[0], -1, per_position, z.shape[-1]).mean(axis=2)
        return shard(self.logits(z), "batch", "length", "vocab")

    # --------------------------------------------------------------------------- all at once

    def __call__(
        self,
        tokens: Array,
        positions: Array | None = None,
        *,
        num_latents: int | None = None,
        latent_counts: Array | None = None,
        enable_dropout: bool = False,
    ) -> Array:
        """Return logits of the token after each of the last N tokens of each row.

        Args:
          tokens: int [B, T]; a row ends before its first 0.
          positions: int [B, T] or [B, T, C]; by default counted from 1.
          num_latents: N, instead of the configuration's.
          latent_counts: int [B], how many of the latents of each row are used; by default all.
          enable_dropout: whether there is dropout, with the random numbers `dropout`.

        Returns:
          float32 [B, N, V]; undefined at latents without a position (`masks.latent_steps` is -1).

        Raises:
          ValueError: T or N or C does not fit the configuration.
        """
        cfg, count = self.config, num_latents or self.config.z_index_dim
        positions = _check(cfg, tokens, positions, count)
        lengths = masks.lengths_of(tokens)
        steps = masks.latent_steps(lengths, count, latent_counts)
        x = self.embed(tokens, positions)
        angles = self.rotary_positions(positions, lengths)

        at = jnp.maximum(steps, 0)
        z = self.initial_queries(jnp.take_along_axis(x, at[..., None], axis=1))
        steps = jnp.repeat(steps, cfg.num_latents_per_position, axis=1)
        z_angles = None if angles is None else jnp.take_along_axis(angles, jnp.maximum(steps, 0), 1)
        inputs = self._visible_inputs(x, angles, masks.input_key_steps(tokens), enable_dropout)
        return self.predict(self._process(z, z_angles, steps, inputs, not enable_dropout))

    def _visible_inputs(
        self, x: Array, angles: Array | None, key_steps: Array, training: bool
    ) -> tuple[Array, Array | None, Array]:
        """Return inputs, rotation positions, and steps, as keys; a random subset in training."""
        cfg = self.config
        if training and cfg.encoder_dropout_prob > 0:
            rng = self.make_rng("dropout")
            key_steps = masks.drop_keys(rng, key_steps, cfg.encoder_dropout_prob)
        if not training or (cfg.train_input_positions or x.shape[1]) >= x.shape[1]:
            return x, angles, key_steps
        order = jax.random.uniform(self.make_rng("dropout"), key_steps.shape)
        # Padding comes last, so that short rows are left whole.
        order = jnp.where(key_steps == masks.NEVER, -1.0, order)
        _, chosen = lax.top_k(order, cfg.train_input_positions)
        if angles is not None:
            angles = jnp.take_along_axis(angles, chosen, axis=1)
        x = jnp.take_along_axis(x, chosen[..., None], axis=1)
        return x, angles, jnp.take_along_axis(key_steps, chosen, axis=1)

    def _process(
        self,
        z: Array,
        z_angles: Array | None,
        steps: Array,
        inputs: tuple[Array, Array | None, Array],
        deterministic: bool,
    ) -> Array:
        """Apply all layers to latents [B, N * P, Z] at `steps`."""
        cfg = self.config
        x, angles, input_steps = inputs
        options = AttentionOptions(cfg.attention_block, cfg.head_group_size, cfg.attention_kernel)
        latent_keys = masks.latent_key_steps(steps)
        if not deterministic and cfg.latent_dropout_prob > 0:
            rng = self.make_rng("dropout")
            latent_keys = masks.drop_keys(rng, latent_keys, cfg.latent_dropout_prob)

        def cross(module: CrossAttention, z: Array) -> Array:
            keys, values = module.keys_values(x, angles)
            look: Look = functools.partial(
                attend,
                key=keys,
                value=values,
                query_steps=steps,
                key_steps=input_steps,
                options=options,
            )
            return module(z, z_angles, look, deterministic)

        def look_at_latents(query: Array, key: Array, value: Array) -> tuple[Array, None]:
            seen = attend(query, key, value, steps, latent_keys, own_key=True, options=options)
            return seen, None

        def layer(module: SelfAttention, z: Array) -> Array:
            return module(z, z_angles, look_at_latents, deterministic)[0]

        if cfg.include_initial_cross_attention:
            z = self._checkpointed(cross)(self.cross_attention, z)
        return self._each_layer_and_cross(layer, cross, z)

    def _each_layer_and_cross(self, layer: Callable, cross: Callable, z: Array) -> Array:
        extra = self.config.additional_cross_attend_after_layers
        if not extra:
            return self.each_layer(layer, z)
        for i, module in enumerate(self.layers):
            z = self._checkpointed(layer)(module, z)
            if i in extra:
                z = self._checkpointed(cross)(self.cross_after[extra.index(i)], z)
        return z

    def _checkpointed(self, call: Callable) -> Callable:
        policy = self.config.remat_policy
        return call if policy == "none" else nn.remat(call, policy=REMAT_POLICIES[policy])

    # --------------------------------------------------------------------------- step by step

    def process_cached(
        self,
        z: Array,
        z_angles: Array | None,
        look_at_inputs: Callable[[int, Array], Array],
        look_at_latents: Callable[[int, Array, Array, Array], tuple[Array, Any]],
    ) -> tuple[Array, list[Any]]:
        """Apply all layers to new latents, with the others and the inputs in caches.

        Args:
          z: [B, Q, Z], initial queries.
          z_angles: rotation positions [B, Q], or None.
          look_at_inputs: (number of the cross-attention, queries) -> attention results.
          look_at_latents: (number of the layer, queries, new keys, new values) -> (attention
            results, anything), with arrays [B, H, Q, D].

        Returns:
          (latents [B, Q, Z], second results of `look_at_latents` by layer).
        """
        extra = self.config.additional_cross_attend_after_layers
        crosses, number, caches = self.cross_attentions(), 0, []
        if self.config.include_initial_cross_attention:
            z = crosses[0](z, z_angles, functools.partial(look_at_inputs, 0))
            number = 1
        for i, module in enumerate(self.layers):
            z, cache = module(z, z_angles, functools.partial(look_at_latents, i))
            caches.append(cache)
            if i in extra:
                z = crosses[number](z, z_angles, functools.partial(look_at_inputs, number))
                number += 1
        return z, caches


def _check(
    cfg: PerceiverARConfig, tokens: Array, positions: Array | None, num_latents: int
) -> Array:
    """Return positions as [B, T, C]; raise ValueError unless everything fits."""
    length = tokens.shape[1]
    if not num_latents <= length <= cfg.max_context_length:
        raise ValueError(
            f"inputs of {length} tokens: expected {num_latents} (the latents, z_index_dim) to "
            f"{cfg.max_context_length} (max_context_length)"
        )
    if positions is None and length > min(cfg.max_positions):
        raise ValueError(
            f"inputs of {length} tokens, counted from 1, but input_idx_size="
            f"{tuple(cfg.input_idx_size)} knows positions up to {min(cfg.max_positions)}: make it "
            "as large, or give positions"
        )
    counted = jnp.broadcast_to(jnp.arange(1, length + 1), tokens.shape)
    given = counted if positions is None else positions
    given = given[..., None] if given.ndim == 2 else given
    expected: Sequence[int] = (*tokens.shape, 1 if cfg.rotary else len(cfg.input_idx_size))
    if given.shape != tuple(expected):
        hint = "rotary positions have one coordinate" if cfg.rotary else "see input_idx_size"
        raise ValueError(f"positions are {given.shape}, expected {tuple(expected)}; {hint}")
    return given
