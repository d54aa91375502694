"""Autoregressive decoding: sampling, greedy decoding and beam search."""

from typing import TYPE_CHECKING

from t5x.decoding.beam_search import BeamState, beam_search, brevity_penalty
from t5x.decoding.cache import (
    Cache,
    DecodingState,
    TokensToLogits,
    cache_expand,
    cache_map,
    flat_batch_beam_expand,
    left_align_prompts,
    right_align_prompts,
)
from t5x.decoding.logit_masks import NEG_INF, minp_mask, topk_mask, topp_mask
from t5x.decoding.loop import Constraint, SamplingLoopState, temperature_sample
from t5x.decoding.sampling import MIN_TEMPERATURE
from t5x.unsupported import unsupported_names

if not TYPE_CHECKING:  # type checkers still report names that do not exist
    __getattr__ = unsupported_names(__name__)

__all__ = [
    "MIN_TEMPERATURE",
    "NEG_INF",
    "BeamState",
    "Cache",
    "Constraint",
    "DecodingState",
    "SamplingLoopState",
    "TokensToLogits",
    "beam_search",
    "brevity_penalty",
    "cache_expand",
    "cache_map",
    "flat_batch_beam_expand",
    "left_align_prompts",
    "minp_mask",
    "right_align_prompts",
    "temperature_sample",
    "topk_mask",
    "topp_mask",
]
