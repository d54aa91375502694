"""The Flax building blocks every network here is made of."""

from t5x.layers.attention import MultiHeadDotProductAttention, dot_product_attention
from t5x.layers.blocks import DecoderLayer, EncoderLayer, relative_positions
from t5x.layers.config import NO_CACHE, Caching, NetworkConfig
from t5x.layers.dense import DenseGeneral, Linear, param_with_axes, shard
from t5x.layers.embeddings import (
    Embed,
    RelativePositionBiases,
    SinusoidalPositions,
    relative_position_bucket,
    sinusoids,
)
from t5x.layers.encoder_decoder import EncoderDecoder
from t5x.layers.masks import (
    combine_biases,
    combine_masks,
    make_attention_mask,
    make_causal_mask,
    make_cross_mask,
    make_decoder_mask,
    mask_to_bias,
)
from t5x.layers.mlp import MlpBlock
from t5x.layers.norms import LayerNorm, RMSNorm, standardize
from t5x.layers.rotary import rotate
from t5x.layers.stacks import DecoderStack, EncoderStack, scans_layers

__all__ = [
    "NO_CACHE",
    "Caching",
    "DecoderLayer",
    "DecoderStack",
    "DenseGeneral",
    "Embed",
    "EncoderDecoder",
    "EncoderLayer",
    "EncoderStack",
    "LayerNorm",
    "Linear",
    "MlpBlock",
    "MultiHeadDotProductAttention",
    "NetworkConfig",
    "RMSNorm",
    "RelativePositionBiases",
    "SinusoidalPositions",
    "combine_biases",
    "combine_masks",
    "dot_product_attention",
    "make_attention_mask",
    "make_causal_mask",
    "make_cross_mask",
    "make_decoder_mask",
    "mask_to_bias",
    "param_with_axes",
    "relative_position_bucket",
    "relative_positions",
    "rotate",
    "scans_layers",
    "shard",
    "sinusoids",
    "standardize",
]
