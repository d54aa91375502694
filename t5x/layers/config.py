"""Sizes and options of networks, and how a call of a decoder uses the caches of its layers."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import struct
from jax import Array


@struct.dataclass
class NetworkConfig:
    """Sizes and options of layers, embedding and logits; networks add how many layers they have.

    Attributes:
      vocab_size: V, rows of the embedding.
      dtype: type of activations; parameters and logits are float32.
      emb_dim: E.
      num_heads: attention heads.
      head_dim: size of a head.
      mlp_dim: inner size of the feed-forward blocks.
      mlp_activations: one activation, or several whose product gates.
      dropout_rate: of all dropouts.
      logits_via_embedding: tie the logits to the token embedding (scaled by 1 / sqrt(E)).
      float32_attention_logits: attention logits and softmax in float32.
    """

    vocab_size: int
    dtype: Any = jnp.float32
    emb_dim: int = 512
    num_heads: int = 8
    head_dim: int = 64
    mlp_dim: int = 2048
    mlp_activations: Sequence[str] = ("relu",)
    dropout_rate: float = 0.1
    logits_via_embedding: bool = False
    float32_attention_logits: bool = False


class Caching(NamedTuple):
    """Options of cached decoding, handed down to every layer. Shapes: B batch.

    Attributes:
      decode: take the inputs as the next steps after those in the caches; without caches,
        allocate them.
      max_decode_length: length of the caches.
      prefill_lengths: int32 [B]: start the caches with the first so many inputs of each row.
    """

    decode: bool = False
    max_decode_length: int | None = None
    prefill_lengths: Array | None = None

    @property
    def arguments(self) -> dict[str, Any]:
        """As keyword arguments, for attention."""
        return self._asdict()


NO_CACHE = Caching()
