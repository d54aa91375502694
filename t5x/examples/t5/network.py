"""T5 1.1, the encoder-decoder of Raffel et al. 2020 with gated activations.

Parameters are named as in released T5 1.1 checkpoints. Letters in shapes: B batch, L target length,
T encoder length, E embed, H heads, V vocabulary.
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from flax import struct
from jax import Array

from t5x.layers import (
    DecoderLayer,
    DenseGeneral,
    Embed,
    EncoderLayer,
    RelativePositionBiases,
    RMSNorm,
    combine_masks,
    make_attention_mask,
    make_cross_mask,
    make_decoder_mask,
    shard,
)
from t5x.layers.dense import broadcast_dropout


@struct.dataclass
class T5Config:
    """Sizes and options of the network.

    Attributes:
      vocab_size: V.
      dtype: type of activations; parameters and logits are float32.
      emb_dim: E.
      num_heads: H.
      num_encoder_layers: layers of the encoder.
      num_decoder_layers: layers of the decoder.
      head_dim: size of a head.
      mlp_dim: inner size of the feed-forward blocks.
      mlp_activations: one activation, or several whose product gates.
      dropout_rate: of all dropouts.
      logits_via_embedding: tie the logits to the token embedding (scaled by 1 / sqrt(E)).
      float32_attention_logits: attention logits and softmax in float32.
      one_hot_embedding: look tokens up by a product with one-hot rows, not by gather.
    """

    vocab_size: int
    dtype: Any = jnp.float32
    emb_dim: int = 512
    num_heads: int = 8
    num_encoder_layers: int = 6
    num_decoder_layers: int = 6
    head_dim: int = 64
    mlp_dim: int = 2048
    mlp_activations: Sequence[str] = ("relu",)
    dropout_rate: float = 0.1
    logits_via_embedding: bool = False
    float32_attention_logits: bool = False
    one_hot_embedding: bool = False


def _relative_positions(config: T5Config) -> RelativePositionBiases:
    return RelativePositionBiases(
        num_buckets=32, max_distance=128, num_heads=config.num_heads, dtype=config.dtype
    )


class Encoder(nn.Module):
    """Embedded tokens [B, T, E] to encodings [B, T, E]."""

    config: T5Config

    def setup(self):
        cfg = self.config
        self.relpos_bias = _relative_positions(cfg)
        self.layers = [EncoderLayer(cfg) for _ in range(cfg.num_encoder_layers)]
        self.encoder_norm = RMSNorm(dtype=cfg.dtype)
        self.input_dropout = broadcast_dropout(cfg.dropout_rate)
        self.output_dropout = nn.Dropout(rate=cfg.dropout_rate)

    def __call__(
        self, embedded: Array, encoder_mask: Array | None = None, deterministic: bool = False
    ) -> Array:
        """Encodes [B, T, E]; `encoder_mask` is [B, 1, T, T] or None."""
        length = embedded.shape[1]
        bias = self.relpos_bias(length, length, bidirectional=True)
        x = self.input_dropout(embedded, deterministic=deterministic).astype(self.config.dtype)
        for layer in self.layers:
            x = layer(x, encoder_mask, bias, deterministic=deterministic)
        return self.output_dropout(self.encoder_norm(x), deterministic=deterministic)


class Decoder(nn.Module):
    """Embedded tokens [B, L, E] and encodings [B, T, E] to normalised states [B, L, E]."""

    config: T5Config

    def setup(self):
        cfg = self.config
        self.relpos_bias = _relative_positions(cfg)
        self.layers = [DecoderLayer(cfg) for _ in range(cfg.num_decoder_layers)]
        self.decoder_norm = RMSNorm(dtype=cfg.dtype)
        self.dropout = broadcast_dropout(cfg.dropout_rate)
        if not cfg.logits_via_embedding:
            self.logits_dense = DenseGeneral(
                cfg.vocab_size,
                dtype=jnp.float32,  # float32 logits are more stable
                kernel_axes=("embed", "vocab"),
            )

    def __call__(
        self,
        encoded: Array,
        embedded: Array,
        decoder_mask: Array | None = None,
        encoder_decoder_mask: Array | None = None,
        *,
        deterministic: bool = False,
        decode: bool = False,
        max_decode_length: int | None = None,
    ) -> Array:
        """Logits float32 [B, L, V], or the states [B, L, E] if logits are tied."""
        cfg = self.config
        length = embedded.shape[1]
        bias = self.relpos_bias(
            length, max_decode_length or length, bidirectional=False, decode=decode
        )
        y = self.dropout(embedded, deterministic=deterministic).astype(cfg.dtype)
        for layer in self.layers:
            y = layer(
                y,
                encoded,
                decoder_mask,
                encoder_decoder_mask,
                bias,
                deterministic=deterministic,
                decode=decode,
                max_decode_length=max_decode_length,
            )
        y = self.dropout(self.decoder_norm(y), deterministic=deterministic)
        return y if cfg.logits_via_embedding else self.logits_dense(y)

    def init_cache(self, encoded: Array, max_decode_length: int) -> None:
        """Allocates the caches of all layers and projects `encoded` [B, T, E] into them."""
        self.relpos_bias.init_cache()
        for layer in self.layers:
            layer.init_cache(encoded, max_decode_length)


class Transformer(nn.Module):
    """An encoder-decoder over token ids, with one embedding for both."""

    config: T5Config

    def setup(self):
        cfg = self.config
        self.token_embedder = Embed(
            cfg.vocab_size,
            cfg.emb_dim,
            dtype=cfg.dtype,
            attend_dtype=jnp.float32,
            one_hot=cfg.one_hot_embedding,
        )
        self.encoder = Encoder(cfg)
        self.decoder = Decoder(cfg)

    def encode(
        self,
        encoder_input_tokens: Array,
        encoder_segment_ids: Array | None = None,
        enable_dropout: bool = True,
    ) -> Array:
        """Encodes int [B, T], 0 is padding, as [B, T, E]; segments do not see each other."""
        tokens = encoder_input_tokens.astype(jnp.int32)
        present = tokens > 0
        masks = [make_attention_mask(present, present)]
        if encoder_segment_ids is not None:
            masks.append(make_attention_mask(encoder_segment_ids, encoder_segment_ids, jnp.equal))
        return self.encoder(
            self.token_embedder(tokens), combine_masks(*masks), deterministic=not enable_dropout
        )

    def decode(
        self,
        encoded: Array,
        encoder_input_tokens: Array,
        decoder_input_tokens: Array,
        decoder_target_tokens: Array,
        encoder_segment_ids: Array | None = None,
        decoder_segment_ids: Array | None = None,
        decoder_positions: Array | None = None,
        enable_dropout: bool = True,
        decode: bool = False,
        max_decode_length: int | None = None,
    ) -> Array:
        """Logits, float32 [B, L, V].

        Args:
          encoded: [B, T, E] from `encode`.
          encoder_input_tokens: int [B, T]; padding (0) is not attended to.
          decoder_input_tokens: int [B, L], the targets shifted right.
          decoder_target_tokens: int [B, L], 0 is padding.
          encoder_segment_ids: int [B, T] or None.
          decoder_segment_ids: int [B, L] or None.
          decoder_positions: not used: relative positions of packed rows need no restart, since
            segments do not see each other.
          enable_dropout: use dropout, from the rng `dropout`.
          decode: take the tokens as the next steps of a cached decoding.
          max_decode_length: length of the caches, when decoding.
        """
        del decoder_positions
        if decode:
            decoder_mask = None
            # While decoding, 0 is BOS, not padding: every step sees the input.
            cross_mask = make_cross_mask(jnp.ones_like(decoder_target_tokens), encoder_input_tokens)
        else:
            decoder_mask = make_decoder_mask(
                decoder_target_tokens, decoder_segment_ids=decoder_segment_ids
            )
            cross_mask = make_cross_mask(
                decoder_target_tokens,
                encoder_input_tokens,
                decoder_segment_ids,
                encoder_segment_ids,
            )
        y = self.decoder(
            encoded,
            self.token_embedder(decoder_input_tokens.astype(jnp.int32)),
            decoder_mask,
            cross_mask,
            deterministic=not enable_dropout,
            decode=decode,
            max_decode_length=max_decode_length,
        )
        if self.config.logits_via_embedding:
            y = self.token_embedder.attend(y) / jnp.sqrt(y.shape[-1])
        return shard(y, "batch", "length", "vocab")

    def init_cache(
        self, encoded: Array, encoder_input_tokens: Array, max_decode_length: int
    ) -> None:
        """Builds the collection `cache` for decoding up to `max_decode_length` steps.

        Call with `mutable=["cache"]`. Keys and values of `encoded` [B, T, E] are projected here,
        once; nothing else is computed.
        """
        del encoder_input_tokens
        self.decoder.init_cache(encoded, max_decode_length)

    def __call__(
        self,
        encoder_input_tokens: Array,
        decoder_input_tokens: Array,
        decoder_target_tokens: Array,
        encoder_segment_ids: Array | None = None,
        decoder_segment_ids: Array | None = None,
        encoder_positions: Array | None = None,
        decoder_positions: Array | None = None,
        *,
        enable_dropout: bool = True,
        decode: bool = False,
    ) -> Array:
        """Logits, float32 [B, L, V], of inputs int [B, T] and targets int [B, L].

        Arguments as in `encode` and `decode`; `encoder_positions` is accepted and not used.
        """
        del encoder_positions
        encoded = self.encode(
            encoder_input_tokens, encoder_segment_ids, enable_dropout=enable_dropout
        )
        return self.decode(
            encoded,
            encoder_input_tokens,
            decoder_input_tokens,
            decoder_target_tokens,
            encoder_segment_ids,
            decoder_segment_ids,
            decoder_positions,
            enable_dropout=enable_dropout,
            decode=decode,
        )
