"""T5, the encoder-decoder of Raffel et al. 2020: 1.0, and 1.1 with gated activations.

Parameters are named as in released T5 checkpoints. Letters in shapes: B batch, L target length,
T encoder length, E embed, H heads, V vocabulary.
"""

from typing import ClassVar

import jax.numpy as jnp
from flax import struct
from jax import Array

from t5x.layers import (
    NO_CACHE,
    Caching,
    DecoderLayer,
    DecoderStack,
    Embed,
    EncoderDecoder,
    EncoderLayer,
    EncoderStack,
    NetworkConfig,
    relative_positions,
)


@struct.dataclass
class T5Config(NetworkConfig):
    """Sizes and options of the network; those of `NetworkConfig`, and:

    Attributes:
      num_encoder_layers: layers of the encoder.
      num_decoder_layers: layers of the decoder.
      one_hot_embedding: look tokens up by a product with one-hot rows, not by gather.
    """

    num_encoder_layers: int = 6
    num_decoder_layers: int = 6
    one_hot_embedding: bool = False


def token_embedder(config: T5Config) -> Embed:
    """The embedding of tokens, [V, E]."""
    return Embed(
        config.vocab_size,
        config.emb_dim,
        dtype=config.dtype,
        attend_dtype=jnp.float32,
        one_hot=config.one_hot_embedding,
    )


class Encoder(EncoderStack):
    """Tokens int [B, T] to encodings [B, T, E].

    Attributes:
      config: sizes.
      shared_embedding: embeds the tokens.
      positions_in_layers: every layer has its table of relative positions, instead of one for all.
    """

    shared_embedding: Embed
    positions_in_layers: bool = False

    def setup(self):
        super().setup()
        if not self.positions_in_layers:
            self.relpos_bias = relative_positions(self.config)

    def make_layer(self) -> EncoderLayer:
        """A new layer."""
        return EncoderLayer(self.config, own_positions=self.positions_in_layers)

    def __call__(
        self, tokens: Array, encoder_mask: Array | None = None, deterministic: bool = False
    ) -> Array:
        """Encode int [B, T]; `encoder_mask` is [B, 1, T, T] or None."""
        length, bias = tokens.shape[1], None
        if not self.positions_in_layers:
            bias = self.relpos_bias(length, length, bidirectional=True)
        x = self.shared_embedding(tokens.astype(jnp.int32))
        return self.encode(x, encoder_mask, bias, deterministic)


class Decoder(DecoderStack):
    """Tokens int [B, L] and encodings [B, T, E] to logits [B, L, V]; attributes as `Encoder`."""

    shared_embedding: Embed
    positions_in_layers: bool = False

    def setup(self):
        super().setup()
        if not self.positions_in_layers:
            self.relpos_bias = relative_positions(self.config)

    def make_layer(self) -> DecoderLayer:
        """A new layer."""
        return DecoderLayer(self.config, own_positions=self.positions_in_layers)

    def __call__(
        self,
        encoded: Array,
        tokens: Array,
        positions: Array | None = None,
        decoder_mask: Array | None = None,
        encoder_decoder_mask: Array | None = None,
        *,
        deterministic: bool = False,
        caching: Caching = NO_CACHE,
    ) -> Array:
        """Float32 logits [B, L, V]; `positions` are not used, see `EncoderDecoder.decode`."""
        del positions
        bias = None
        if not self.positions_in_layers:
            bias = self.relpos_bias.causal(tokens.shape[1], caching)
        return self.decode(
            self.shared_embedding(tokens),
            self.shared_embedding,
            encoded,
            decoder_mask,
            encoder_decoder_mask,
            bias,
            deterministic=deterministic,
            caching=caching,
        )

    def init_cache(self, encoded: Array, max_decode_length: int) -> None:
        """Allocate the caches of all layers and project `encoded` [B, T, E] into them."""
        if not self.positions_in_layers:
            self.relpos_bias.init_cache()
        super().init_cache(encoded, max_decode_length)


class Transformer(EncoderDecoder):
    """An encoder-decoder over token ids, with one embedding for both; 0 is padding."""

    config: T5Config
    positions_in_layers: ClassVar[bool] = False

    def setup(self):
        self.token_embedder = token_embedder(self.config)
        parts = (self.config, self.token_embedder, self.positions_in_layers)
        self.encoder = Encoder(*parts)
        self.decoder = Decoder(*parts)

    def valid_inputs(self, encoder_input_tokens: Array) -> Array:
        """Where a token is not 0."""
        return encoder_input_tokens > 0
