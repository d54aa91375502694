"""The networks: one trunk, as a denoiser of embeddings or on tokens.

Letters in shapes: B batch, L length, d width of embeddings, D width of the trunk, C width of the
time's embedding, F frequencies, V vocabulary, H heads.

Dieleman et al. 2022 (arXiv 2211.15089), sections 3.2, 4.2 and 6.1: a pre-norm transformer with
rotary positions, whose norms are followed by a scale and a shift that depend on the time.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import Array, lax

from cdcd.config import DenoiserConfig
from t5x.layers import (
    NO_CACHE,
    Caching,
    Linear,
    MlpBlock,
    MultiHeadDotProductAttention,
    make_attention_mask,
    make_decoder_mask,
    param_with_axes,
    scans_layers,
    shard,
    standardize,
)
from t5x.layers.dropout import broadcast_dropout
from t5x.layers.stacks import Stack

_EPSILON = 1e-12


class TokenTable(nn.Module):
    """Embeddings of norm sqrt(d), so that their components are of the size of unit noise.

    The parameters are free; only their direction is used (section 3.2).

    Attributes:
      num_embeddings: V.
      features: d.
      init_scale: standard deviation of the initial parameters.
    """

    num_embeddings: int
    features: int
    init_scale: float = 1e-3

    @nn.compact
    def __call__(self) -> Array:
        """Return embeddings, float32 [V, d]."""
        table = param_with_axes(
            "embedding",
            nn.initializers.normal(self.init_scale),
            (self.num_embeddings, self.features),
            jnp.float32,
            axes=("vocab", "embed"),
        )
        squares = jnp.sum(lax.square(table), axis=-1, keepdims=True)
        return table * lax.rsqrt(squares + _EPSILON) * jnp.sqrt(float(self.features))


class TimeEmbedding(nn.Module):
    """Random Fourier features of the logarithm of the time, then two layers.

    The frequencies are parameters, so that a checkpoint has them, but are not trained.

    Attributes:
      config: sizes.
    """

    config: DenoiserConfig

    @nn.compact
    def __call__(self, t: Array) -> Array:
        """Embed times float32 [B] as float32 [B, C]."""
        cfg = self.config
        frequencies = param_with_axes(
            "fourier", nn.initializers.normal(1.0), (cfg.num_fourier,), jnp.float32, axes=(None,)
        )
        angles = jnp.log(t)[:, None] * lax.stop_gradient(frequencies)
        x = jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1) * jnp.sqrt(2.0)
        for i in range(2):
            x = nn.gelu(Linear(cfg.time_width, name=f"dense_{i}")(x))
        return x


class ModulatedNorm(nn.Module):
    """Layer norm, then a scale and a shift: learned ones, to which the time adds.

    Attributes:
      dtype: type of the result.
    """

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, time: Array | None) -> Array:
        """Normalise [B, L, D]; `time` is [B, C], or None for no time."""
        features = x.shape[-1]
        zeros = nn.initializers.zeros
        bias = param_with_axes("bias", zeros, (2 * features,), jnp.float32, axes=("embed",))
        both = bias[None]
        if time is not None:
            shape = (time.shape[-1], 2 * features)
            both = both + time @ param_with_axes(
                "kernel", zeros, shape, jnp.float32, axes=(None, "embed")
            )
        scale, shift = jnp.split(both[:, None], 2, axis=-1)
        return (standardize(x) * (1.0 + scale) + shift).astype(self.dtype)


class Block(nn.Module):
    """Self-attention, then feed-forward; each x + dropout(f(norm(x, time)))."""

    config: DenoiserConfig

    def setup(self):
        cfg = self.config
        self.attention_norm = ModulatedNorm(cfg.dtype)
        self.attention = MultiHeadDotProductAttention(
            cfg.num_heads, cfg.head_dim, dtype=cfg.dtype, rotary_base=cfg.rotary_base
        )
        self.mlp_norm = ModulatedNorm(cfg.dtype)
        self.mlp = MlpBlock(
            cfg.mlp_dim,
            (cfg.activation,),
            intermediate_dropout_rate=cfg.dropout_rate,
            dtype=cfg.dtype,
        )
        self.dropout = broadcast_dropout(cfg.dropout_rate)

    def __call__(
        self,
        x: Array,
        time: Array | None,
        mask: Array | None,
        deterministic: bool = True,
        caching: Caching = NO_CACHE,
    ) -> Array:
        """Map [B, L, D] to [B, L, D]; `time` [B, C] or None, `mask` [B, 1, L, L] or None."""
        x = self.attend(x, time, mask, deterministic, caching)
        return self.feed_forward(x, time, deterministic)

    def attend(
        self,
        x: Array,
        time: Array | None,
        mask: Array | None,
        deterministic: bool,
        caching: Caching,
    ) -> Array:
        """Apply the first half of the block."""
        x = shard(x, "batch", "length", "embed")
        y = self.attention_norm(x, time)
        y = self.attention(y, y, mask, deterministic=deterministic, **caching.arguments)
        return x + self.dropout(y, deterministic=deterministic)

    def feed_forward(self, x: Array, time: Array | None, deterministic: bool) -> Array:
        """Apply the second half of the block."""
        y = self.mlp(self.mlp_norm(x, time), deterministic=deterministic)
        return x + self.dropout(y, deterministic=deterministic)


class Trunk(Stack):
    """The trunk shared by all networks: a linear map to D, the blocks, a norm, and logits."""

    config: DenoiserConfig
    num_classes: int

    def setup(self):
        cfg = self.config
        self.in_proj = Linear(cfg.width, (None, "embed"), cfg.dtype)
        self.dropout = broadcast_dropout(cfg.dropout_rate)
        self.make_layers(self.make_block, cfg.num_layers, "trunk")
        self.final_norm = ModulatedNorm(cfg.dtype)
        self.logits = Linear(self.num_classes, ("embed", "vocab"), kernel_init=_logits_init)

    def make_block(self) -> nn.Module:
        """Return a new block."""
        return Block(self.config)

    def enter(self, inputs: Array) -> Array:
        """Project inputs [B, L, any] to [B, L, D]."""
        return self.in_proj(inputs)

    def __call__(
        self,
        inputs: Array,
        time: Array | None = None,
        mask: Array | None = None,
        deterministic: bool = True,
        caching: Caching = NO_CACHE,
        **more: Any,
    ) -> Array:
        """Map inputs [B, L, any] to logits, float32 [B, L, V]; see `Block` for other arguments."""
        x = self.dropout(self.enter(inputs), deterministic=deterministic)

        def call(block: Any, x: Array) -> Array:
            return block(x, time, mask, deterministic, caching, **more)

        x = self.each_layer(call, x, remat=not caching.decode)
        return shard(self.logits(self.final_norm(x, time)), "batch", "length", "vocab")


#: At first every token is as likely.
_logits_init = nn.initializers.zeros


class Denoiser(nn.Module):
    """Logits of the tokens whose embeddings were corrupted (sections 3.1 and 4.2)."""

    config: DenoiserConfig

    def setup(self):
        cfg = self.config
        self.token_embed = TokenTable(cfg.vocab_size, cfg.embed_dim, cfg.embedding_init)
        self.time_mlp = TimeEmbedding(cfg)
        self.trunk = self.make_trunk()

    def make_trunk(self) -> Trunk:
        """Return the trunk: the blocks, and the layers before and after them."""
        return Trunk(self.config, self.config.vocab_size)

    def table(self) -> Array:
        """Return embeddings of all tokens, float32 [V, d]."""
        return self.token_embed()

    def condition(self, t: Array, source: Any) -> tuple[Array, dict[str, Any]]:
        """Return (the time's embedding [B, C], further arguments of the trunk)."""
        del source
        return self.time_mlp(t), {}

    def __call__(
        self,
        x: Array,
        given: Array,
        previous: Array,
        noisy: Array,
        t: Array,
        valid: Array | None = None,
        deterministic: bool = True,
        source: Any = None,
    ) -> Array:
        """Return logits, float32 [B, L, V].

        Args:
          x: noisy embeddings [B, L, d]; not read where a position is given.
          given: embeddings [B, L, d] of given tokens; not read where a position is noisy. Zeros
            for no conditioning.
          previous: estimate [B, L, d] of the clean embeddings from before, or zeros.
          noisy: bool [B, L], positions to predict; the others are given.
          t: standard deviation of the noise, float32 [B].
          valid: bool [B, L], False for padding; None for no padding.
          deterministic: no dropout.
          source: further inputs, for subclasses.
        """
        table = self.token_embed()
        dtype = self.config.dtype
        to_find = noisy[..., None].astype(dtype)
        scale = lax.rsqrt(lax.square(t) + 1.0)[:, None, None]
        features = [
            (x * scale).astype(dtype) * to_find,
            given.astype(dtype) * (1 - to_find),
            previous.astype(dtype) * to_find,
            to_find,
        ]
        mask = None if valid is None else make_attention_mask(valid, valid)
        inputs = jnp.concatenate(features, axis=-1)
        time, more = self.condition(t, source)
        logits = self.trunk(inputs, time, mask, deterministic, **more)
        if not self.config.output_prior:
            return logits
        # log N(x; e, t^2) up to a constant over tokens, as all norms are equal.
        closeness = jnp.einsum("bld,vd->blv", x.astype(jnp.float32), table)
        return logits + closeness / lax.square(t)[:, None, None] * noisy[..., None]


class TokenNetwork(nn.Module):
    """Tokens to logits, with the same trunk and embeddings but no time.

    Causal, it is an autoregressive model for `t5x.models.DecoderOnlyModel`; otherwise it sees all
    tokens, for masked diffusion.

    Attributes:
      config: sizes.
      causal: whether positions see only those before them.
      extra_inputs: ids beyond the vocabulary that only inputs have, such as a mask's.
    """

    config: DenoiserConfig
    causal: bool = True
    extra_inputs: int = 0

    def setup(self):
        cfg = self.config
        rows = cfg.vocab_size + self.extra_inputs
        self.token_embed = TokenTable(rows, cfg.embed_dim, cfg.embedding_init)
        self.trunk = Trunk(cfg, cfg.vocab_size)

    @property
    def scan_layers(self) -> bool:
        """Whether caches have an axis of layers before that of the batch."""
        return scans_layers(self.config)

    def __call__(
        self,
        decoder_input_tokens: Array,
        decoder_target_tokens: Array,
        decoder_segment_ids: Array | None = None,
        decoder_positions: Array | None = None,
        decoder_causal_attention: Array | None = None,
        *,
        enable_dropout: bool = False,
        decode: bool = False,
        max_decode_length: int | None = None,
        prefill: bool = False,
        prefill_lengths: Array | None = None,
    ) -> Array:
        """Return logits, float32 [B, L, V]; see `t5x.examples.decoder_only.network.Decoder`.

        Positions count from the beginning of a row. Where the network is not causal, those whose
        target is 0, padding, are not seen.
        """
        del decoder_positions
        mask = None
        if not self.causal:
            mask = make_attention_mask(decoder_target_tokens > 0, decoder_target_tokens > 0)
        elif prefill or not decode:
            mask = make_decoder_mask(
                decoder_target_tokens,
                decoder_causal_attention=decoder_causal_attention,
                decoder_segment_ids=decoder_segment_ids,
            )
        embedded = jnp.take(self.token_embed(), decoder_input_tokens, axis=0, mode="clip")
        caching = Caching(decode, max_decode_length, prefill_lengths if prefill else None)
        return self.trunk(
            embedded.astype(self.config.dtype), None, mask, not enable_dropout, caching
        )
