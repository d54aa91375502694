"""Beam search with T5X's scoring.

Letters in shapes: B batch, K beams, L length, V vocabulary.

Each step keeps the 2K best extensions of a row's live beams. Those that end with EOS compete for
the K finished slots by log-probability / penalty, penalty = ((5 + length) / 6)^alpha (Wu et al.
2016); the K best others stay alive. Notice that EOS as second choice already finishes a
hypothesis, also with one beam: K = 1 is not greedy decoding.
"""

import flax.struct
import jax
import jax.numpy as jnp
from jax import Array, lax

from t5x.decoding.cache import (
    Cache,
    DecodingState,
    TokensToLogits,
    cache_expand,
    cache_take,
    flat_batch_beam_expand,
)
from t5x.decoding.logit_masks import NEG_INF


def brevity_penalty(alpha: float, length: Array | int) -> Array:
    """((5 + length) / 6)^alpha, by which log-probabilities are divided."""
    return jnp.power((5.0 + jnp.asarray(length, jnp.float32)) / 6.0, alpha)


class BeamState(flax.struct.PyTreeNode):
    """State of the search; beams of a row are sorted by ascending score.

    Attributes:
      cur_index: int32 [B], the position that was written last.
      live_logprobs: float32 [B, K].
      live_seqs: int32 [B, K, L + 1].
      finished_scores: float32 [B, K].
      finished_seqs: int32 [B, K, L + 1].
      finished_flags: bool [B, K], which finished slots are used.
      cache: the caches, their rows in the order of `live_seqs`, [B * K, ...].
    """

    cur_index: Array
    live_logprobs: Array
    live_seqs: Array
    finished_scores: Array
    finished_seqs: Array
    finished_flags: Array
    cache: Cache


def beam_search(
    inputs: Array,
    cache: Cache,
    tokens_to_logits: TokensToLogits,
    eos_id: int,
    num_decodes: int = 4,
    alpha: float = 0.6,
    max_decode_len: int | None = None,
    decode_rng: Array | None = None,
    cache_offset: int = 0,
    initial_index: Array | None = None,
    max_decode_step: int = -1,
    min_log_prob: float = NEG_INF,
    normalize_unfinished: bool = True,
) -> tuple[Array, Array]:
    """Search for the sequences of highest penalised log-probability.

    Args:
      inputs: int32 [B, L], prompts: position 0 is BOS (0), later non-zero tokens are forced.
      cache: caches of B rows.
      tokens_to_logits: maps the state of B * K rows to logits [B * K, V] and new caches.
      eos_id: the token which ends a sequence.
      num_decodes: K.
      alpha: exponent of the penalty, 0 for none.
      max_decode_len: length of the result, default L.
      decode_rng: ignored; every decoding function takes it.
      cache_offset: axis of the batch in the caches.
      initial_index: int32 [B], positions already in the cache, or None for none.
      max_decode_step: last position to decode, if positive.
      min_log_prob: stop when no live beam is likelier.
      normalize_unfinished: divide the log-probabilities of unfinished sequences, returned for rows
        where none has finished, by the penalty as well; upstream does not.

    Returns:
      (sequences int32 [B, K, L] without BOS, scores float32 [B, K]), the best at index -1. Unused
      slots score -1e7; a row without any finished sequence returns its live beams.
    """
    del decode_rng
    length = (max_decode_len or inputs.shape[1]) + 1
    prompts = jnp.pad(inputs, ((0, 0), (0, max(0, length - inputs.shape[1]))))[:, :length]
    last = min(length - 1, max_decode_step) if max_decode_step > 0 else length - 1
    state = _initial_state(prompts, cache, num_decodes, cache_offset, initial_index)

    def unfinished(state: BeamState) -> Array:
        best_live = state.live_logprobs[:, -1]
        worst = jnp.min(jnp.where(state.finished_flags, state.finished_scores, NEG_INF), axis=1)
        at_end = state.cur_index >= last
        hopeless = worst > best_live / brevity_penalty(alpha, length)
        improbable = jnp.all(best_live < min_log_prob)
        return ~jnp.all(at_end | hopeless) & ~improbable

    def step(state: BeamState) -> BeamState:
        return _step(state, prompts, tokens_to_logits, eos_id, alpha, cache_offset, last)

    state = lax.while_loop(unfinished, step, state)
    any_finished = jnp.any(state.finished_flags, axis=1)
    seqs = jnp.where(any_finished[:, None, None], state.finished_seqs, state.live_seqs)
    live_scores = state.live_logprobs
    if normalize_unfinished:
        live_scores = live_scores / brevity_penalty(alpha, state.cur_index)[:, None]
    scores = jnp.where(any_finished[:, None], state.finished_scores, live_scores)
    return seqs[:, :, 1:], scores


def _initial_state(
    prompts: Array, cache: Cache, num_decodes: int, offset: int, initial_index: Array | None
) -> BeamState:
    batch, length = prompts.shape
    index = jnp.zeros((batch,), jnp.int32) if initial_index is None else initial_index
    seqs = jnp.zeros((batch, num_decodes, length), jnp.int32)
    # What the cache already holds is part of every sequence; the rest is forced step by step.
    known = jnp.where(jnp.arange(length) <= index[:, None], prompts, 0)
    dead = jnp.full((batch, num_decodes), NEG_INF, jnp.float32)
    return BeamState(
        cur_index=index.astype(jnp.int32),
        live_logprobs=dead.at[:, -1].set(0.0),
        live_seqs=seqs + known[:, None].astype(jnp.int32),
        finished_scores=dead,
        finished_seqs=seqs,
        finished_flags=jnp.zeros((batch, num_decodes), jnp.bool_),
        cache=cache_expand(cache, num_decodes, offset),
    )


def _step(
    state: BeamState,
    prompts: Array,
    tokens_to_logits: TokensToLogits,
    eos_id: int,
    alpha: float,
    offset: int,
    last: int,
) -> BeamState:
    batch, beams, length = state.live_seqs.shape
    index = state.cur_index
    tokens = jnp.take_along_axis(state.live_seqs, index[:, None, None], axis=2)
    logits, cache = tokens_to_logits(
        DecodingState(
            cur_index=flat_batch_beam_expand(index, beams),
            sequences=state.live_seqs.reshape(batch * beams, length),
            cur_token=tokens.reshape(batch * beams, 1),
            cache=state.cache,
        )
    )
    target = jnp.minimum(index + 1, length - 1)
    forced = jnp.take_along_axis(prompts, target[:, None], axis=1)
    parents, tokens, logprobs = _candidates(
        logits.astype(jnp.float32).reshape(batch, beams, -1), state.live_logprobs, forced
    )
    written = jnp.arange(length) == target[:, None, None]
    seqs = jnp.where(written, tokens[..., None], _take_beams(state.live_seqs, parents))
    ended = tokens == eos_id

    alive = logprobs + ended * NEG_INF
    best = _best(alive, beams)
    live_parents = _take_beams(parents, best)
    scores = logprobs / brevity_penalty(alpha, index + 1)[:, None] + ~ended * NEG_INF
    finished = _merge_finished(state, seqs, scores, ended)
    new = BeamState(
        cur_index=index + 1,
        live_logprobs=_take_beams(alive, best),
        live_seqs=_take_beams(seqs, best),
        finished_scores=finished[0],
        finished_seqs=finished[1],
        finished_flags=finished[2],
        cache=None,
    )
    # Rows which reached the end wait, unchanged, for those whose prompts were shorter.
    running = index < last
    new = jax.tree.map(
        lambda a, b: jnp.where(running.reshape(batch, *[1] * (a.ndim - 1)), a, b),
        new,
        state.replace(cache=None),
    )
    if beams > 1:
        rows = live_parents + beams * jnp.arange(batch)[:, None]
        cache = cache_take(cache, rows.reshape(-1), jnp.max(index) + 1, offset)
    return new.replace(cache=cache)


def _candidates(logits: Array, live_logprobs: Array, forced: Array) -> tuple[Array, Array, Array]:
    """The 2K best extensions: parent beams, tokens and log-probabilities, each [B, 2K].

    Where `forced` [B, 1] is a prompt token, the best beam takes it for free and all others die.

    Args:
      logits: float32 [B, K, V].
      live_logprobs: float32 [B, K], of the beams.
      forced: int32 [B, 1].
    """
    batch, beams, vocab = logits.shape
    # Within a beam, logits order tokens as log-probabilities do: of each beam only the best that
    # all 2K could be are normalised.
    each = min(2 * beams, vocab)
    best, ids = lax.top_k(logits, each)
    before = live_logprobs - jax.nn.logsumexp(logits, axis=-1)
    values, flat = lax.top_k((best + before[..., None]).reshape(batch, beams * each), 2 * beams)
    chosen = jnp.take_along_axis(ids.reshape(batch, beams * each), flat, axis=1)
    free = forced == 0
    only_first = jnp.where(jnp.arange(2 * beams) == 0, 0.0, NEG_INF)
    tokens = jnp.where(free, chosen, forced)
    return flat // each, tokens, jnp.where(free, values, only_first)


def _merge_finished(
    state: BeamState, seqs: Array, scores: Array, ended: Array
) -> tuple[Array, Array, Array]:
    """The K best of the old finished slots and the newly ended candidates."""
    beams = state.finished_flags.shape[1]
    scores = jnp.concatenate([state.finished_scores, scores], axis=1)
    seqs = jnp.concatenate([state.finished_seqs, seqs], axis=1)
    flags = jnp.concatenate([state.finished_flags, ended], axis=1)
    best = _best(scores, beams)
    return _take_beams(scores, best), _take_beams(seqs, best), _take_beams(flags, best)


def _best(scores: Array, beams: int) -> Array:
    """Indices [B, K] of the best, the very best last."""
    return jnp.flip(lax.top_k(scores, beams)[1], axis=1)


def _take_beams(x: Array, beams: Array) -> Array:
    """x[b, beams[b, k]] for every b and k."""
    return jax.vmap(lambda row, i: row[i])(x, beams)
