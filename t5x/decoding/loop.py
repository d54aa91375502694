"""Sampling and greedy decoding, token by token.

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

from t5x.decoding.cache import (
    Cache,
    DecodingState,
    TokensToLogits,
    cache_expand,
    flat_batch_beam_expand,
)
from t5x.decoding.logit_masks import NEG_INF
from t5x.decoding.sampling import SamplingOptions, mark_seen
from t5x.decoding.token_stream import StreamFn, TokenStream


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
      seen: bool [B, V], tokens of each row so far, or None where nothing is penalised.
      stream: tokens on their way to the host, or None.
    """

    cur_index: Array
    sequences: Array
    cache: Cache
    cur_token: Array
    ended: Array
    rng: Array
    log_prob: Array
    constraint: Any = None
    seen: Array | None = None
    stream: TokenStream | None = None


def temperature_sample(
    inputs: Array,
    cache: Cache,
    tokens_to_logits: TokensToLogits,
    eos_id: int,
    decode_rng: Array | None = None,
    num_decodes: int = 1,
    temperature: float | Array = 1.0,
    topk: int | Array = 0,
    topp: float | Array = 0.0,
    cache_offset: int = 0,
    initial_index: Array | None = None,
    max_decode_steps: int | Array | None = None,
    max_decode_steps_hard_limit: int | None = None,
    rescale_log_probs: bool = True,
    state_callback_fn: Callable[[SamplingLoopState], SamplingLoopState] | None = None,
    logit_callback_fn: Callable[[Array, SamplingLoopState], Array] | None = None,
    constraint: Constraint | None = None,
    min_p: float | Array = 0.0,
    repetition_penalty: float | Array = 1.0,
    stream_fn: StreamFn | None = None,
    stream_every: int = 1,
) -> tuple[Array, Array]:
    """Samples continuations of prompts, token by token.

    By default from the whole distribution: upstream's topk is 1, which is greedy. Greedy decoding
    is temperature=0 (or topk=1), and needs no random numbers. Worked example: inputs
    [[0, 5, 0, 0]] means "BOS, then 5, then two free tokens"; if the model then says 7, EOS (1),
    the result is [[[5, 7, 1, 0]]].

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
      topp: sample within the nucleus of this probability, of what topk leaves; 0 for all; a
        number, or float [B].
      cache_offset: axis of the batch in the caches.
      initial_index: int32 [B], positions already in the cache: decoding starts there.
      max_decode_steps: at most so many tokens after the prompt; a number, or int [B].
      max_decode_steps_hard_limit: upper limit of `max_decode_steps`.
      rescale_log_probs: log-probabilities of the distribution sampled from (greedy: 0) instead
        of the model's.
      state_callback_fn: changes the state before each step.
      logit_callback_fn: changes the logits of each step.
      constraint: which tokens may follow which, see `Constraint`.
      min_p: sample among tokens at least so many times as probable as the most probable, of what
        topk and topp leave; a number, or float [B].
      repetition_penalty: by how much the logits of tokens which are in the row already (prompt
        included) are weakened, see `penalise_repetition`; 1 for not; a number, or float [B].
      stream_fn: called on the host, while decoding goes on, with the new tokens int32
        [B, num_decodes, n]: those after `initial_index`, prompts included, then 0 for rows that
        have ended; decodes are not sorted yet. If it returns true, all rows end.
      stream_every: steps between calls; the last call may have fewer tokens.

    Returns:
      (sequences int32 [B, num_decodes, L] without BOS, log-probabilities float32
      [B, num_decodes]), the most likely at index -1.

    Raises:
      ValueError: a limit, penalty or number of steps that is not positive.
    """
    options = SamplingOptions(temperature, topk, topp, min_p, repetition_penalty, rescale_log_probs)
    limit = _last_index(inputs, max_decode_steps, max_decode_steps_hard_limit)
    expand = _expander(num_decodes)
    prompts = jnp.pad(expand(inputs), ((0, 0), (0, 2))).astype(jnp.int32)
    options, limit = options.expand(expand), expand(limit)
    state = _initial_state(
        prompts,
        cache_expand(cache, num_decodes, cache_offset),
        None if initial_index is None else expand(jnp.asarray(initial_index)),
        jax.random.PRNGKey(0) if decode_rng is None else decode_rng,
    )
    if constraint is not None:
        start = constraint.init(inputs.shape[0])
        state = state.replace(constraint=jax.tree.map(expand, start))
    if options.penalises:
        state = state.replace(seen=_seen(state, tokens_to_logits))
    if stream_fn is not None:
        stream = TokenStream.create(stream_fn, len(prompts), stream_every, num_decodes)
        state = state.replace(stream=stream)

    def step(state: SamplingLoopState) -> SamplingLoopState:
        if state_callback_fn is not None:
            state = state_callback_fn(state)
        logits, cache = tokens_to_logits(_decoding_state(state))
        logits = logits.astype(jnp.float32)
        if logit_callback_fn is not None:
            logits = logit_callback_fn(logits, state)
        if constraint is not None:
            logits = _constrain(logits, constraint.mask(state.constraint))
        rng, step_rng = (state.rng, None) if options.greedy else jax.random.split(state.rng)
        tokens, logprobs = options.choose(logits, state.seen, step_rng)
        state = _advance(state, prompts, tokens, logprobs, limit, eos_id)
        if constraint is not None:
            updated = constraint.update(state.constraint, state.cur_token[:, 0])
            state = state.replace(constraint=updated)
        if state.seen is not None:
            state = state.replace(seen=mark_seen(state.seen, state.cur_token))
        return _stream(state.replace(cache=cache, rng=rng))

    state = lax.while_loop(lambda state: jnp.any(~state.ended), step, state)
    sequences = state.sequences[:, 1:-1].reshape(inputs.shape[0], num_decodes, -1)
    log_probs = state.log_prob.reshape(inputs.shape[0], num_decodes)
    order = jnp.argsort(log_probs, axis=-1)
    return (
        jnp.take_along_axis(sequences, order[..., None], axis=1),
        jnp.take_along_axis(log_probs, order, axis=1),
    )


def _expander(num_decodes: int) -> Callable[[Array], Array]:
    return lambda x: flat_batch_beam_expand(x, num_decodes)


def _last_index(inputs: Array, max_steps: int | Array | None, hard_limit: int | None) -> Array:
    """int32 [B]: a row ends once the token after this position is decoded."""
    batch, length = inputs.shape
    if max_steps is None:
        return jnp.full((batch,), length - 1, jnp.int32)
    if isinstance(max_steps, int) and max_steps <= 0:
        raise ValueError(f"max_decode_steps must be positive, got {max_steps}")
    max_steps = jnp.asarray(max_steps)
    if hard_limit is not None and hard_limit > 0:
        max_steps = jnp.minimum(max_steps, hard_limit)
    used = jnp.sum(inputs != 0, axis=1) + max_steps
    return (jnp.minimum(used, length) - 1).astype(jnp.int32)


def _initial_state(
    prompts: Array, cache: Cache, initial_index: Array | None, rng: Array
) -> SamplingLoopState:
    batch = prompts.shape[0]
    if initial_index is None:
        index = jnp.zeros((batch,), jnp.int32)
        token = jnp.zeros((batch, 1), jnp.int32)
    else:
        index = jnp.asarray(initial_index, jnp.int32)
        token = jnp.take_along_axis(prompts, index[:, None], axis=1)
    return SamplingLoopState(
        cur_index=index,
        sequences=prompts,
        cache=cache,
        cur_token=token,
        ended=jnp.zeros((batch, 1), jnp.bool_),
        rng=rng,
        log_prob=jnp.zeros((batch,), jnp.float32),
    )


def _decoding_state(state: SamplingLoopState) -> DecodingState:
    return DecodingState(state.cur_index, state.sequences[:, :-1], state.cur_token, state.cache)


def _seen(state: SamplingLoopState, tokens_to_logits: TokensToLogits) -> Array:
    """bool [B, V]: the tokens of the prompts up to the first position to decode."""
    logits, _ = jax.eval_shape(tokens_to_logits, _decoding_state(state))
    known = jnp.arange(state.sequences.shape[1]) <= state.cur_index[:, None]
    nothing = jnp.zeros(logits.shape, jnp.bool_)
    return mark_seen(nothing, jnp.where(known, state.sequences, 0))


def _stream(state: SamplingLoopState) -> SamplingLoopState:
    """Send the newest tokens to the host if there is a stream."""
    if state.stream is None:
        return state
    stream = state.stream.push(state.cur_token[:, 0], jnp.all(state.ended))
    return state.replace(stream=stream, ended=state.ended | stream.stopped)


def _advance(
    state: SamplingLoopState,
    prompts: Array,
    tokens: Array,
    logprobs: Array,
    limit: Array,
    eos_id: int,
) -> SamplingLoopState:
    """Write `tokens` [B], or the prompt's, after the current position."""
    forced = jnp.take_along_axis(prompts, state.cur_index[:, None] + 1, axis=1)[:, 0]
    free = forced == 0
    ended = state.ended[:, 0]
    tokens = jnp.where(ended, 0, jnp.where(free, tokens, forced))
    rows = jnp.arange(tokens.shape[0])
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
