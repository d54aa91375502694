"""What encoder-decoder networks share: masks, caches, and the calls which models make.

Letters in shapes: B batch, L target length, T encoder length, E embed, V vocabulary.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from t5x.layers.config import Caching
from t5x.layers.masks import (
    combine_masks,
    make_attention_mask,
    make_causal_mask,
    make_cross_mask,
    make_decoder_mask,
)
from t5x.layers.stacks import scans_layers


class EncoderDecoder(nn.Module):
    """An encoder-decoder; a subclass makes `encoder` and `decoder` in its `setup`.

    encoder(inputs, mask, deterministic) -> encodings [B, T, E];
    decoder(encoded, tokens, positions, decoder_mask, encoder_decoder_mask, deterministic=,
    caching=) -> logits [B, L, V], and decoder.init_cache(encoded, max_decode_length).
    """

    config: Any

    @property
    def scan_layers(self) -> bool:
        """Whether caches have an axis of layers before that of the batch."""
        return scans_layers(self.config)

    def valid_inputs(self, encoder_input_tokens: Array) -> Array | None:
        """[B, T], non-zero where the encoder's input is no padding; None: everywhere."""
        raise NotImplementedError

    def encode(
        self,
        encoder_input_tokens: Array,
        encoder_segment_ids: Array | None = None,
        enable_dropout: bool = True,
    ) -> Array:
        """Encode inputs [B, T] or [B, T, F] as [B, T, E].

        Padding is neither attended to nor attends; positions of different `encoder_segment_ids`,
        int [B, T], do not see each other.
        """
        masks = []
        valid = self.valid_inputs(encoder_input_tokens)
        if valid is not None:
            masks.append(make_attention_mask(valid > 0, valid > 0))
        if encoder_segment_ids is not None:
            masks.append(make_attention_mask(encoder_segment_ids, encoder_segment_ids, jnp.equal))
        return self.encoder(
            encoder_input_tokens, combine_masks(*masks), deterministic=not enable_dropout
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
        prefill: bool = False,
        prefill_lengths: Array | None = None,
    ) -> Array:
        """Logits, float32 [B, L, V].

        Args:
          encoded: [B, T, E] from `encode`; when decoding, not read but to allocate caches.
          encoder_input_tokens: the encoder's input; its padding is not attended to.
          decoder_input_tokens: int [B, L], the targets shifted right.
          decoder_target_tokens: int [B, L], 0 is padding, which sees and is seen by nothing.
          encoder_segment_ids: int [B, T] or None.
          decoder_segment_ids: int [B, L] or None.
          decoder_positions: int [B, L] or None for 0 .. L - 1. Relative positions do not read
            them, since segments do not see each other.
          enable_dropout: use dropout, from the rng `dropout`.
          decode: take the tokens as the next steps of a cached decoding.
          max_decode_length: length of the caches, when decoding.
          prefill: start the self-attention caches from these tokens, all in one pass.
          prefill_lengths: int32 [B], how many tokens of each row the caches then hold.

        Raises:
          ValueError: `prefill` without `decode` or without lengths.
        """
        if prefill and (prefill_lengths is None or not decode):
            raise ValueError("prefill=True needs decode=True and prefill_lengths")
        valid = self.valid_inputs(encoder_input_tokens)
        if decode:
            # 0 is BOS here, not padding: every step sees the input. Caches know what is causal.
            decoder_mask, every_step = None, jnp.ones_like(decoder_target_tokens)
            if prefill:
                decoder_mask = make_causal_mask(decoder_input_tokens)
            cross_mask = None if valid is None else make_cross_mask(every_step, valid)
        else:
            decoder_mask = make_decoder_mask(
                decoder_target_tokens, decoder_segment_ids=decoder_segment_ids
            )
            cross_mask = make_cross_mask(
                decoder_target_tokens,
                jnp.ones(encoded.shape[:2], jnp.int32) if valid is None else valid,
                decoder_segment_ids,
                encoder_segment_ids,
            )
        return self.decoder(
            encoded,
            decoder_input_tokens.astype(jnp.int32),
            decoder_positions,
            decoder_mask,
            cross_mask,
            deterministic=not enable_dropout,
            caching=Caching(decode, max_decode_length, prefill_lengths if prefill else None),
        )

    def init_cache(
        self, encoded: Array, encoder_input_tokens: Array, max_decode_length: int
    ) -> None:
        """Build the collection `cache` for decoding up to `max_decode_length` steps.

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
        """Logits, float32 [B, L, V].

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
