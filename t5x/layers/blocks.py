"""The pre-norm residual layers of T5-like encoders and decoders.

The parameters are named as in T5 1.1 checkpoints. A layer is told positions by a bias, or has its
own table of relative ones. Letters in shapes: B batch, L length, T encoder length, E embed,
H heads.
"""

from flax import linen as nn
from jax import Array

from t5x.layers.attention import MultiHeadDotProductAttention
from t5x.layers.config import NO_CACHE, Caching, NetworkConfig
from t5x.layers.dense import shard
from t5x.layers.dropout import broadcast_dropout
from t5x.layers.embeddings import RelativePositionBiases
from t5x.layers.masks import combine_biases
from t5x.layers.mlp import MlpBlock
from t5x.layers.norms import RMSNorm


def relative_positions(config: NetworkConfig) -> RelativePositionBiases:
    """T5's biases: 32 buckets up to a distance of 128."""
    return RelativePositionBiases(
        num_buckets=32, max_distance=128, num_heads=config.num_heads, dtype=config.dtype
    )


def _attention(config: NetworkConfig, *, cross: bool = False) -> MultiHeadDotProductAttention:
    return MultiHeadDotProductAttention(
        num_heads=config.num_heads,
        head_dim=config.head_dim,
        dtype=config.dtype,
        dropout_rate=config.dropout_rate,
        float32_logits=config.float32_attention_logits,
        cross_attention=cross,
    )


def _mlp(config: NetworkConfig) -> MlpBlock:
    return MlpBlock(
        intermediate_dim=config.mlp_dim,
        activations=config.mlp_activations,
        intermediate_dropout_rate=config.dropout_rate,
        dtype=config.dtype,
    )


class EncoderLayer(nn.Module):
    """Self-attention, then feed-forward; each x + dropout(f(norm(x))).

    Attributes:
      config: sizes.
      own_positions: the layer has its own table of relative position biases, `relpos_bias`.
    """

    config: NetworkConfig
    own_positions: bool = False

    def setup(self):
        if self.own_positions:
            self.relpos_bias = relative_positions(self.config)
        self.pre_attention_layer_norm = RMSNorm(dtype=self.config.dtype)
        self.attention = _attention(self.config)
        self.pre_mlp_layer_norm = RMSNorm(dtype=self.config.dtype)
        self.mlp = _mlp(self.config)
        self.dropout = broadcast_dropout(self.config.dropout_rate)

    def __call__(
        self,
        inputs: Array,
        mask: Array | None = None,
        bias: Array | None = None,
        deterministic: bool = False,
    ) -> Array:
        """Map [B, T, E] to [B, T, E]; `mask` [B, 1, T, T], `bias` [1, H, T, T]."""
        inputs = shard(inputs, "batch", "length", "embed")
        if self.own_positions:
            length = inputs.shape[1]
            bias = combine_biases(bias, self.relpos_bias(length, length, bidirectional=True))
        x = self.pre_attention_layer_norm(inputs)
        x = self.attention(x, x, mask, bias, deterministic=deterministic)
        x = inputs + self.dropout(x, deterministic=deterministic)
        y = self.mlp(self.pre_mlp_layer_norm(x), deterministic=deterministic)
        y = self.dropout(y, deterministic=deterministic)
        return shard(x + y, "batch", "length", "embed")


class DecoderLayer(nn.Module):
    """Causal self-attention, cross-attention, then feed-forward; each pre-norm and residual.

    Attributes:
      config: sizes.
      own_positions: the layer has its own table of relative position biases, `relpos_bias`.
      cross_attention: without it, the layer is one of a decoder-only network.
    """

    config: NetworkConfig
    own_positions: bool = False
    cross_attention: bool = True

    def setup(self):
        dtype = self.config.dtype
        if self.own_positions:
            self.relpos_bias = relative_positions(self.config)
        self.pre_self_attention_layer_norm = RMSNorm(dtype=dtype)
        self.self_attention = _attention(self.config)
        if self.cross_attention:
            self.pre_cross_attention_layer_norm = RMSNorm(dtype=dtype)
            self.encoder_decoder_attention = _attention(self.config, cross=True)
        self.pre_mlp_layer_norm = RMSNorm(dtype=dtype)
        self.mlp = _mlp(self.config)
        self.dropout = broadcast_dropout(self.config.dropout_rate)

    def __call__(
        self,
        inputs: Array,
        encoded: Array | None = None,
        decoder_mask: Array | None = None,
        encoder_decoder_mask: Array | None = None,
        bias: Array | None = None,
        *,
        deterministic: bool = False,
        caching: Caching = NO_CACHE,
    ) -> Array:
        """Map [B, L, E] to [B, L, E].

        Args:
          inputs: [B, L, E].
          encoded: [B, T, E]; not read once the cross-attention cache is filled.
          decoder_mask: [B, 1, L, L] or None.
          encoder_decoder_mask: [B, 1, L, T] or None.
          bias: [1, H, L, L], added to the self-attention logits, or None.
          deterministic: no dropout.
          caching: how the caches are used.
        """
        inputs = shard(inputs, "batch", "length", "embed")
        if self.own_positions:
            bias = combine_biases(bias, self.relpos_bias.causal(inputs.shape[1], caching))
        x = self.pre_self_attention_layer_norm(inputs)
        x = self.self_attention(
            x, x, decoder_mask, bias, deterministic=deterministic, **caching.arguments
        )
        y = inputs + self.dropout(x, deterministic=deterministic)
        if self.cross_attention:
            x = self.pre_cross_attention_layer_norm(y)
            x = self.encoder_decoder_attention(
                x,
                encoded,
                encoder_decoder_mask,
                decode=caching.decode,
                deterministic=deterministic,
            )
            y = y + self.dropout(x, deterministic=deterministic)
        z = self.mlp(self.pre_mlp_layer_norm(y), deterministic=deterministic)
        z = self.dropout(z, deterministic=deterministic)
        return shard(y + z, "batch", "length", "embed")

    def init_cache(self, encoded: Array, max_decode_length: int) -> None:
        """Allocate the self-attention cache and project `encoded` [B, T, E] once."""
        if self.own_positions:
            self.relpos_bias.init_cache()
        self.self_attention.init_cache(encoded, max_decode_length)
        if self.cross_attention:
            self.encoder_decoder_attention.init_cache(encoded)
