"""Autoregressive decoding: sampling and greedy decoding; beam search is re-exported.

Letters in shapes: B batch (times decodes), L length, V vocabulary.

`tokens_to_logits(DecodingState)` is one step of a model: logits [B, V] and new caches. Decoding is
one `lax.while_loop`, which stops as soon as every row has ended.
"""

from collections.abc import Callable
from typing import Any, Protocol

import flax.struct
import jax
import jax.numpy as jnp
from jax import Array, lax

from t5x.beam_search import BeamState, beam_search, brevity_penalty
from t5x.decode_cache import (
    Cache,
    DecodingState,
    TokensToLogits,
    cache_expand,
    cache_map,
    flat_batch_beam_expand,
    left_align_prompts,
    right_align_prompts,
)
from t5x.logit_masks import NEG_INF, topk_mask, topp_mask

__all__ = [
    "NEG_INF",
    "BeamState",
    "Constraint",
    "DecodingState",
    "SamplingLoopState",
    "beam_search",
    "brevity_penalty",
    "cache_map",
    "flat_batch_beam_expand",
    "left_align_prompts",
    "right_align_prompts",
    "temperature_sample",
    "topk_mask",
    "topp_mask",
]

#: Below this temperature the most likely token is taken.
MIN_TEMPERATURE = 1e-4


class Constraint(Protocol):
    """A grammar over token streams, as pure jax functions of a state with a row per sequence.

    `mask` must allow at least one token in every state. Tokens beyond its width (the padding of an
    embedding table) are never allowed.
    """

    def init(self, batch_size: int) -> Any:
        """The state before the first token: a pytree of arrays [B, ...]."""
        ...

    def mask(self, state: Any) -> Array:
        """bool [B, V], which tokens may come next."""
        ...

    def update(self, state: Any, tokens: Array) -> Any:
        """The state after `tokens`, int32 [B]; rows that have ended get 0 (padding)."""
        ...


class SamplingLoopState(flax.struct.PyTreeNode):
    """State of the sampling loop.

    Attributes:
      cur_index: int32 [B], position of `cur_token`.
      sequences: int32 [B, L + 2], prompts overwritten by what was decoded; position 0 is BOS.
      cache: the caches.
      cur_token: int32 [B, 1], the token fed next.
      ended: bool [B, 1], rows that only get padding from now on.
      rng: random key.
      log_prob: float32 [B], of the tokens after the prompt.
      constraint: state of the constraint, or None.
    """

    cur_index: Array
    sequences: Array
    cache: Cache
    cur_token: Array
    ended: Array
    rng: Array
    log_prob: Array
    constraint: Any = None


def temperature_sample(
    inputs: Array,
    cache: Cache,
    tokens_to_logits: TokensToLogits,
    eos_id: int,
    decode_rng: Array | None = None,
    num_decodes: int = 1,
    temperature: float | Array = 1.0,
    topk: int | Array = 1,
    topp: float | Array = 0.0,
    cache_offset: int = 0,
    initial_index: Array | None = None,
    max_decode_steps: int | Array | None = None,
    max_decode_steps_hard_limit: int | None = None,
    rescale_log_probs: bool = True,
    state_callback_fn: Callable[[SamplingLoopState], SamplingLoopState] | None = None,
    logit_callback_fn: Callable[[Array, SamplingLoopState], Array] | None = None,
    constraint: Constraint | None = None,
) -> tuple[Array, Array]:
    """Samples continuations of prompts, token by token.

    With the default topk=1, or a temperature of 0, decoding is greedy, and needs no random
    numbers. Worked example: inputs [[0, 5, 0, 0]] means "BOS, then 5, then two free tokens"; if
    the model then says 7, EOS (1), the result is [[[5, 7, 1, 0]]].

    Args:
      inputs: int32 [B, L], prompts: position 0 is BOS (0); later non-zero tokens are forced, zeros
        are free.
      cache: caches of B rows.
      tokens_to_logits: one step of the model, on B * num_decodes rows.
      eos_id: sampled, it ends a row; within a prompt it does not.
      decode_rng: random key, default `jax.random.PRNGKey(0)`.
      num_decodes: sequences per prompt.
      temperature: divides the logits; a number, or float [B].
      topk: sample among the k most likely tokens; 0 for all; a number, or int [B].
      topp: sample within the nucleus of this probability; 0 for all; a number, or float [B]. With
        a topk above 1 both must hold.
      cache_offset: axis of the batch in the caches.
      initial_index: int32 [B], positions already in the cache: decoding starts there.
      max_decode_steps: at most so many tokens after the prompt.
      max_decode_steps_hard_limit: upper limit of `max_decode_steps`.
      rescale_log_probs: log-probabilities of the distribution sampled from (greedy: 0) instead
        of the model's.
      state_callback_fn: changes the state before each step.
      logit_callback_fn: changes the logits of each step.
      constraint: which tokens may follow which, see `Constraint`.

    Returns:
      (sequences int32 [B, num_decodes, L] without BOS, log-probabilities float32
      [B, num_decodes]), the most likely at index -1.

    Raises:
      ValueError: topp together with topk=1 (say topk=0), or a limit that is not positive.
    """
    greedy = _is_greedy(temperature, topk, topp)
    limit = _last_index(inputs, max_decode_steps, max_decode_steps_hard_limit)
    expand = _expander(num_decodes)
    prompts = jnp.pad(expand(inputs), ((0, 0), (0, 2))).astype(jnp.int32)
    temperature, topk, topp = (_expand_rows(x, expand) for x in (temperature, topk, topp))
    limit = expand(limit)
    state = _initial_state(
        prompts,
        cache_expand(cache, num_decodes, cache_offset),
        None if initial_index is None else expand(initial_index),
        jax.random.PRNGKey(0) if decode_rng is None else decode_rng,
        None if constraint is None else jax.tree.map(expand, constraint.init(inputs.shape[0])),
    )

    def choose(logits: Array, rng: Array) -> tuple[Array, Array]:
        if greedy:
            return _most_likely(logits, rescale_log_probs)
        return _sample(logits, rng, temperature, topk, topp, rescale_log_probs)

    def step(state: SamplingLoopState) -> SamplingLoopState:
        if state_callback_fn is not None:
            state = state_callback_fn(state)
        logits, cache = tokens_to_logits(
            DecodingState(state.cur_index, state.sequences[:, :-1], state.cur_token, state.cache)
        )
        logits = logits.astype(jnp.float32)
        if logit_callback_fn is not None:
            logits = logit_callback_fn(logits, state)
        if constraint is not None:
            logits = _constrain(logits, constraint.mask(state.constraint))
        rng, step_rng = (state.rng, None) if greedy else jax.random.split(state.rng)
        tokens, logprobs = choose(logits, step_rng)
        state = _advance(state, prompts, tokens, logprobs, limit, eos_id)
        if constraint is not None:
            updated = constraint.update(state.constraint, state.cur_token[:, 0])
            state = state.replace(constraint=updated)
        return state.replace(cache=cache, rng=rng)

    state = lax.while_loop(lambda state: jnp.any(~state.ended), step, state)
    sequences = state.sequences[:, 1:-1].reshape(inputs.shape[0], num_decodes, -1)
    log_probs = state.log_prob.reshape(inputs.shape[0], num_decodes)
    order = jnp.argsort(log_probs, axis=-1)
    return (
        jnp.take_along_axis(sequences, order[..., None], axis=1),
        jnp.take_along_axis(log_probs, order, axis=1),
    )


def _is_greedy(temperature: Any, topk: Any, topp: Any) -> bool:
    """Whether the options say, before anything is traced, that no sampling is needed."""
    known_k = isinstance(topk, int)
    known_p = isinstance(topp, (int, float))
    if known_k and topk == 1 and not (known_p and topp == 0):
        raise ValueError("topk=1 leaves nothing for topp to choose from: pass topk=0")
    cold = isinstance(temperature, (int, float)) and temperature <= MIN_TEMPERATURE
    return cold or (known_k and topk == 1)


def _expander(num_decodes: int) -> Callable[[Array], Array]:
    return lambda x: flat_batch_beam_expand(x, num_decodes)


def _expand_rows(option: Any, expand: Callable[[Array], Array]) -> Any:
    """Expands options which are given for each row; numbers stay."""
    return expand(option) if getattr(option, "ndim", 0) == 1 else option


def _last_index(inputs: Array, max_steps: int | Array | None, hard_limit: int | None) -> Array:
    """int32 [B]: a row ends once the token after this position is decoded."""
    batch, length = inputs.shape
    if max_steps is None:
        return jnp.full((batch,), length - 1, jnp.int32)
    if isinstance(max_steps, int) and max_steps <= 0:
        raise ValueError(f"max_decode_steps must be positive, got {max_steps}")
    if hard_limit is not None and hard_limit > 0:
        max_steps = jnp.minimum(max_steps, hard_limit)
    used = jnp.sum(inputs != 0, axis=1) + max_steps
    return (jnp.minimum(used, length) - 1).astype(jnp.int32)


def _initial_state(
    prompts: Array, cache: Cache, initial_index: Array | None, rng: Array, constraint: Any
) -> SamplingLoopState:
    batch = prompts.shape[0]
    if initial_index is None:
        index = jnp.zeros((batch,), jnp.int32)
        token = jnp.zeros((batch, 1), jnp.int32)
    else:
        index = initial_index.astype(jnp.int32)
        token = jnp.take_along_axis(prompts, index[:, None], axis=1)
    return SamplingLoopState(
        cur_index=index,
        sequences=prompts,
        cache=cache,
        cur_token=token,
        ended=jnp.zeros((batch, 1), jnp.bool_),
        rng=rng,
        log_prob=jnp.zeros((batch,), jnp.float32),
        constraint=constraint,
    )


def _advance(
    state: SamplingLoopState,
    prompts: Array,
    tokens: Array,
    logprobs: Array,
    limit: Array,
    eos_id: int,
) -> SamplingLoopState:
    """Writes `tokens` [B], or the prompt's, after the current position."""
    forced = jnp.take_along_axis(prompts, state.cur_index[:, None] + 1, axis=1)[:, 0]
    free = forced == 0
    ended = state.ended[:, 0]
    tokens = jnp.where(ended, 0, jnp.where(free, tokens, forced))
    rows = jnp.arange(len(tokens))
    # Rows that ended early stay at their last index, inside the buffer.
    target = jnp.minimum(state.cur_index + 1, prompts.shape[1] - 1)
    now_ended = ended | (free & (tokens == eos_id)) | (state.cur_index >= limit)
    return state.replace(
        cur_index=jnp.minimum(state.cur_index + 1, prompts.shape[1] - 2),
        sequences=state.sequences.at[rows, target].set(tokens),
        cur_token=tokens[:, None],
        ended=now_ended[:, None],
        log_prob=state.log_prob + jnp.where(free & ~ended, logprobs, 0.0),
    )


def _constrain(logits: Array, allowed: Array) -> Array:
    missing = logits.shape[-1] - allowed.shape[-1]
    allowed = jnp.pad(allowed, ((0, 0), (0, missing)))
    return jnp.where(allowed, logits, NEG_INF)


def _pick(log_probs: Array, tokens: Array) -> Array:
    return jnp.take_along_axis(log_probs, tokens[:, None], axis=1)[:, 0]


def _most_likely(logits: Array, rescale: bool) -> tuple[Array, Array]:
    tokens = jnp.argmax(logits, axis=-1).astype(jnp.int32)
    if rescale:
        return tokens, jnp.zeros(tokens.shape, jnp.float32)
    return tokens, jnp.max(logits, axis=-1) - jax.nn.logsumexp(logits, axis=-1)


def _sample(
    logits: Array,
    rng: Array,
    temperature: float | Array,
    topk: int | Array,
    topp: float | Array,
    rescale: bool,
) -> tuple[Array, Array]:
    """Tokens int32 [B] and their log-probabilities; rows of temperature 0 are greedy."""
    warmth = jnp.broadcast_to(jnp.asarray(temperature, jnp.float32), logits.shape[:1])
    scaled = logits / jnp.maximum(warmth, MIN_TEMPERATURE)[:, None]
    if not isinstance(topk, int):
        scaled = topk_mask(scaled, jnp.where(topk > 0, topk, logits.shape[-1]))
    elif topk > 0:
        scaled = topk_mask(scaled, topk)
    if not isinstance(topp, (int, float)):
        scaled = topp_mask(scaled, jnp.where(topp > 0, topp, 2.0))
    elif topp > 0:
        scaled = topp_mask(scaled, topp)
    tokens = jax.random.categorical(rng, scaled).astype(jnp.int32)
    logprobs = _pick(jax.nn.log_softmax(scaled if rescale else logits), tokens)
    cold_tokens, cold_logprobs = _most_likely(logits, rescale)
    cold = warmth <= MIN_TEMPERATURE
    return jnp.where(cold, cold_tokens, tokens), jnp.where(cold, cold_logprobs, logprobs)
