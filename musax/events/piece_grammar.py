"""Grammars of whole pieces, for constrained sampling of `musax.events.pieces`.

    grammar = piece_grammar(PERFORMANCE, vocab_size)

A sampler that chooses among what `grammar.mask` allows writes valid sequences only: no note is
ended that does not sound, and at the end none sounds on.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from musax.events.codec import SHIFT
from musax.events.grammar import (
    EOS_ID,
    NUM_SPECIAL_IDS,
    EventGrammar,
    token_tables,
    unless_done,
)
from musax.events.pieces import MultitrackEncoding, PerformanceEncoding, PieceEncoding
from musax.notes import NUM_PITCHES


@functools.cache  # compiled programs are cached by the grammar's identity
def piece_grammar(
    encoding: PieceEncoding, vocab_size: int, longest_note: float = math.inf
) -> "EventGrammar | PerformanceGrammar":
    """Return the grammar of whole pieces in an encoding, a `t5x.decoding.Constraint`.

    Args:
      encoding: of `musax.events.pieces`.
      vocab_size: V, width of the logits; model ids are codec ids + 3.
      longest_note: see `PerformanceGrammar`; the events of several instruments have no such limit.

    Raises:
      ValueError: `vocab_size` is too small.
    """
    if isinstance(encoding, MultitrackEncoding):
        return EventGrammar(encoding.codec, encoding.spec, vocab_size, whole_piece=True)
    return PerformanceGrammar(encoding, vocab_size, longest_note)


_NO_LIMIT = 1 << 30  # steps


class PerformanceState(NamedTuple):
    """State per row of the batch; B rows.

    Attributes:
      sounding: int32 [B, 128], steps for which each pitch has sounded, -1 for silence.
      order: int32 [B], place of the latest onset or offset within its step; -1 after a shift.
      velocity: int32 [B], current velocity bin, 0 before any.
      after_velocity: bool [B], the latest token is a velocity.
      after_shift: bool [B], the latest token is a shift.
      more_shift: bool [B], it is the largest, which another may continue.
      done: bool [B], EOS has come.
    """

    sounding: jax.Array
    order: jax.Array
    velocity: jax.Array
    after_velocity: jax.Array
    after_shift: jax.Array
    more_shift: jax.Array
    done: jax.Array


class PerformanceGrammar:
    """The grammar of `PerformanceEncoding`.

    Within a step, offsets come first, then onsets, each by pitch; a velocity comes before an onset,
    where it changes; after a shift comes an event, or another shift if it is the largest. An onset
    of a pitch that sounds ends its note.

    Args:
      encoding: see `piece_grammar`.
      vocab_size: see `piece_grammar`.
      longest_note: s; a note that has sounded for so long is ended before anything else. A model
        that has missed the end of a note seldom ends it later, since none is so long in its data.
    """

    def __init__(
        self, encoding: PerformanceEncoding, vocab_size: int, longest_note: float = math.inf
    ):
        codec = encoding.codec
        self.codec, self.vocab_size = codec, vocab_size
        self._longest = int(min(longest_note * codec.steps_per_second, _NO_LIMIT))
        self._types = {name: i for i, name in enumerate(codec.event_types)}
        self._token_type, self._token_value = token_tables(codec, vocab_size)

    def init(self, batch_size: int) -> PerformanceState:
        """Return the state before the first event."""
        zero, no = jnp.zeros(batch_size, jnp.int32), jnp.zeros(batch_size, bool)
        silence = jnp.full((batch_size, NUM_PITCHES), -1, jnp.int32)
        return PerformanceState(silence, zero - 1, zero, no, no, no, no)

    def mask(self, state: PerformanceState) -> jax.Array:
        """Return bool [B, V]: the tokens allowed next; after EOS, EOS alone."""
        pitches, order = jnp.arange(NUM_PITCHES), state.order[:, None]
        free = ~state.after_velocity
        onsets = NUM_PITCHES + pitches > order
        offsets = (state.sounding >= 0) & (pitches > order) & free[:, None]
        overdue = offsets & (state.sounding >= self._longest)
        is_overdue = overdue.any(axis=1)[:, None]
        velocities = self._token_value[self._token_type == self._types["velocity"]]
        other_velocity = velocities != state.velocity[:, None]
        shifts = jnp.arange(self.codec.max_shift_steps + 1) > 0
        allowed = {
            SHIFT: shifts & (free & (~state.after_shift | state.more_shift))[:, None],
            "onset": onsets & (state.velocity > 0)[:, None],
            # Those of lower pitches may come first: they could not afterwards.
            "offset": offsets & (~is_overdue | (pitches <= jnp.argmax(overdue, axis=1)[:, None])),
            "velocity": other_velocity & (onsets.any(axis=1) & free)[:, None],
        }
        allowed.update(
            {name: mask & ~is_overdue for name, mask in allowed.items() if name != "offset"}
        )
        silent = (state.sounding < 0).all(axis=1)
        ends = free & ~state.after_shift & (state.velocity > 0) & silent
        special = jnp.zeros((len(state.order), NUM_SPECIAL_IDS), bool).at[:, EOS_ID].set(ends)
        events = jnp.concatenate([special, *(allowed[name] for name in self._types)], axis=1)
        events = jnp.pad(events, ((0, 0), (0, self.vocab_size - events.shape[1])))
        only_end = jnp.arange(self.vocab_size) == EOS_ID
        return jnp.where(state.done[:, None], only_end, events)

    def update(self, state: PerformanceState, tokens: jax.Array) -> PerformanceState:
        """Return the state after one more token per row (int [B]); done rows are unchanged."""
        kind, value = jnp.asarray(self._token_type)[tokens], jnp.asarray(self._token_value)[tokens]
        shift, onset, offset, velocity = (
            kind == self._types[name] for name in (SHIFT, "onset", "offset", "velocity")
        )
        mine = jnp.arange(NUM_PITCHES) == value[:, None]
        place = jnp.where(onset, NUM_PITCHES + value, value)
        passed = jnp.where(shift, value, 0)[:, None]
        new = PerformanceState(
            sounding=jnp.where(
                mine & (onset | offset)[:, None],
                jnp.where(onset, 0, -1)[:, None],
                state.sounding + (passed * (state.sounding >= 0)),
            ),
            order=jnp.where(onset | offset, place, jnp.where(shift, -1, state.order)),
            velocity=jnp.where(velocity, value, state.velocity),
            after_velocity=velocity,
            after_shift=shift,
            more_shift=shift & (value == self.codec.max_shift_steps),
            done=state.done | (tokens == EOS_ID),
        )
        return unless_done(state, new)
