"""A decoder-only language model of T5's layers; also a prefix language model.

Every layer has its own table of relative positions, and layers are scanned over, as upstream's.
Letters in shapes: B batch, L length, E embed, V vocabulary.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from flax import struct
from jax import Array

from t5x.layers import (
    Caching,
    DecoderLayer,
    DecoderStack,
    Embed,
    NetworkConfig,
    make_decoder_mask,
    scans_layers,
)

__all__ = ["Decoder", "DecoderLayer", "DecoderWrapper", "TransformerConfig"]


@struct.dataclass
class TransformerConfig(NetworkConfig):
    """Sizes and options of the network; those of `NetworkConfig`, and:

    Attributes:
      num_layers: the depth.
      remat_policy: what the backward pass recomputes, see `t5x.layers.stacks`.
      scan_layers: scan over the layers; otherwise parameters are named `layers_0`, ...
      param_scan_axis: which axis of the parameters the layers are.
      one_hot_embedding: look tokens up by a product with one-hot rows, not by gather.
    """

    num_layers: int = 6
    remat_policy: str = "none"
    scan_layers: bool = True
    param_scan_axis: int = 1
    one_hot_embedding: bool = False


class Decoder(DecoderStack):
    """Tokens to the logits of those which follow."""

    config: TransformerConfig

    def setup(self):
        super().setup()
        cfg = self.config
        self.token_embedder = Embed(
            cfg.vocab_size,
            cfg.emb_dim,
            dtype=cfg.dtype,
            attend_dtype=jnp.float32,
            one_hot=cfg.one_hot_embedding,
        )

    def make_layer(self) -> DecoderLayer:
        """A layer with positions of its own, and nothing to look at but the tokens."""
        return DecoderLayer(self.config, own_positions=True, cross_attention=False)

    def num_layers(self) -> int:
        """The depth."""
        return self.config.num_layers

    def __call__(
        self,
        decoder_input_tokens: Array,
        decoder_target_tokens: Array,
        decoder_segment_ids: Array | None = None,
        decoder_positions: Array | None = None,
        decoder_causal_attention: Array | None = None,
        *,
        enable_dropout: bool = True,
        decode: bool = False,
        max_decode_length: int | None = None,
        prefill: bool = False,
        prefill_lengths: Array | None = None,
    ) -> Array:
        """Logits, float32 [B, L, V].

        Args:
          decoder_input_tokens: int [B, L], the targets shifted right.
          decoder_target_tokens: int [B, L], 0 is padding, which sees and is seen by nothing.
          decoder_segment_ids: int [B, L] or None; segments do not see each other.
          decoder_positions: not used: relative positions need no restart.
          decoder_causal_attention: [B, L], 1 on a prefix whose positions all see each other;
            None for causal attention throughout.
          enable_dropout: use dropout, from the rng `dropout`.
          decode: take the tokens as the next steps of a cached decoding.
          max_decode_length: length of the caches, default L.
          prefill: start the caches from these tokens, which see what they would if not decoding.
          prefill_lengths: int32 [B], how many tokens of each row the caches then hold.

        Raises:
          ValueError: `prefill` without `decode` or without lengths.
        """
        del decoder_positions
        if prefill and (prefill_lengths is None or not decode):
            raise ValueError("prefill=True needs decode=True and prefill_lengths")
        mask = None
        if prefill or not decode:
            mask = make_decoder_mask(
                decoder_target_tokens,
                decoder_causal_attention=decoder_causal_attention,
                decoder_segment_ids=decoder_segment_ids,
            )
        tokens = decoder_input_tokens.astype(jnp.int32)
        return self.decode(
            self.token_embedder(tokens),
            self.token_embedder,
            None,
            mask,
            None,
            deterministic=not enable_dropout,
            caching=Caching(decode, max_decode_length, prefill_lengths if prefill else None),
        )


class DecoderWrapper(nn.Module):
    """The decoder under the name `decoder`, as the decoder of an encoder-decoder is called."""

    config: TransformerConfig

    def setup(self):
        self.decoder = Decoder(self.config)

    @property
    def scan_layers(self) -> bool:
        """Whether caches have an axis of layers before that of the batch."""
        return scans_layers(self.config)

    def __call__(self, *args: Any, **kwargs: Any) -> Array:
        """As `Decoder`."""
        return self.decoder(*args, **kwargs)
