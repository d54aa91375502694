"""Attention masks, [B, 1, Q, K] with 1 where a query may see a key, and their biases.

Several masks are combined by a product; a mask becomes an additive bias of 0 or -1e10.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import Array

MASKED = -1e10


def make_attention_mask(
    query_input: Array,
    key_input: Array,
    pairwise_fn: Callable[[Array, Array], Array] = jnp.multiply,
    dtype: Any = jnp.float32,
) -> Array:
    """Mask [B, 1, Q, K] of `pairwise_fn(query_input [B, Q], key_input [B, K])`."""
    mask = pairwise_fn(query_input[..., :, None], key_input[..., None, :])
    return mask[..., None, :, :].astype(dtype)


def make_causal_mask(x: Array, dtype: Any = jnp.float32) -> Array:
    """Mask [B, 1, L, L] which lets a query see itself and what came before; `x` is [B, L]."""
    positions = jnp.broadcast_to(jnp.arange(x.shape[-1], dtype=jnp.int32), x.shape)
    return make_attention_mask(positions, positions, jnp.greater_equal, dtype)


def combine_masks(*masks: Array | None, dtype: Any = jnp.float32) -> Array | None:
    """Logical and of the masks that are not None; None if all are."""
    present = [m for m in masks if m is not None]
    if not present:
        return None
    combined = present[0] != 0
    for mask in present[1:]:
        combined = jnp.logical_and(combined, mask != 0)
    return combined.astype(dtype)


def combine_biases(*biases: Array | None) -> Array | None:
    """Sum of the biases that are not None; None if all are."""
    present = [b for b in biases if b is not None]
    return sum(present[1:], present[0]) if present else None


def mask_to_bias(mask: Array | None, dtype: Any) -> Array | None:
    """Additive attention bias: 0 where `mask` is positive, -1e10 elsewhere."""
    if mask is None:
        return None
    return jnp.where(mask > 0, 0.0, MASKED).astype(dtype)


def make_decoder_mask(
    decoder_target_tokens: Array,
    dtype: Any = jnp.float32,
    decoder_causal_attention: Array | None = None,
    decoder_segment_ids: Array | None = None,
) -> Array:
    """Mask [B, 1, L, L] of decoder self-attention: causal, no padding, within a segment.

    Args:
      decoder_target_tokens: int [B, L], 0 is padding.
      dtype: type of the mask.
      decoder_causal_attention: [B, L], 1 on the prefix inside which all positions see each
        other (a prefix language model); None means fully causal.
      decoder_segment_ids: int [B, L], which example of a packed row a token belongs to.
    """
    causal = make_causal_mask(decoder_target_tokens, dtype=jnp.bool_)
    if decoder_causal_attention is not None:
        prefix = make_attention_mask(
            decoder_causal_attention, decoder_causal_attention, jnp.logical_and, jnp.bool_
        )
        causal = jnp.logical_or(causal, prefix)
    present = decoder_target_tokens > 0
    masks = [causal, make_attention_mask(present, present, dtype=jnp.bool_)]
    if decoder_segment_ids is not None:
        same = make_attention_mask(decoder_segment_ids, decoder_segment_ids, jnp.equal, jnp.bool_)
        masks.append(same)
    combined = combine_masks(*masks, dtype=dtype)
    assert combined is not None
    return combined


def make_cross_mask(
    decoder_target_tokens: Array,
    encoder_valid: Array,
    decoder_segment_ids: Array | None = None,
    encoder_segment_ids: Array | None = None,
    dtype: Any = jnp.float32,
) -> Array:
    """Mask [B, 1, L, T] of cross-attention.

    Args:
      decoder_target_tokens: int [B, L], 0 is padding.
      encoder_valid: [B, T], non-zero where an encoder position may be seen.
      decoder_segment_ids: int [B, L] or None; with `encoder_segment_ids`, positions of
        different segments do not see each other.
      encoder_segment_ids: int [B, T] or None.
      dtype: type of the mask.
    """
    mask = make_attention_mask(decoder_target_tokens > 0, encoder_valid > 0, dtype=dtype)
    if decoder_segment_ids is None or encoder_segment_ids is None:
        return mask
    same = make_attention_mask(decoder_segment_ids, encoder_segment_ids, jnp.equal, dtype)
    return mask * same
