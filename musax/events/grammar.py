"""A grammar of event tokens for constrained decoding: masks of the allowed next tokens.

`EventGrammar` is a finite-state constraint with the protocol `init(batch)`, `mask(state)`,
`update(state, tokens)`; all three are JAX functions of fixed shapes, so that they run inside
`jax.lax.while_loop`. A decoder that samples only allowed tokens writes what the tokenizer could
have written (`musax.events.tokenize`, canonical order), and `musax.events.decode` finds no invalid
event in it:

* time shifts increase strictly and are followed by an event;
* within a step, events ascend in (offset or onset, is_drum, program, pitch);
* a pitch with velocity 0 ends a voice that sounds, and ends no note that began in its step;
* a tie section comes first and holds only voices that sounded before the segment;
* programs and velocities change only for an event that follows, and only to another value;
* the sequence ends after a complete event, and special ids other than EOS never occur.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from musax.events.codec import Codec
from musax.events.spec import EncodingSpec
from musax.notes import NUM_PITCHES

EOS_ID = 1
NUM_SPECIAL_IDS = 3

_OFF, _ON, _TIED, _NEW = range(4)
"""Status of a voice: silent; sounding; sounding, and said so in the tie section; begun in this
step, where onsets come first."""


_NO_LAST_STEP = 1 << 30


class GrammarState(NamedTuple):
    """State per row of the batch; B rows, P programs (1 without program events).

    Attributes:
      voices: uint8 [B, P, 128], status of each (program, pitch).
      step: int32 [B], step of the latest event.
      shift: int32 [B], sum of the shifts since the latest event.
      order: int32 [B], place of the latest event within its step, -1 before any.
      program, velocity: int32 [B], current program and velocity bin, -1 before any.
      needs_event: bool [B], a velocity or shift awaits its event.
      needs_pitch: bool [B], a program awaits its pitch.
      after_velocity: bool [B], the latest token is a velocity.
      more_shift: bool [B], the latest token is the largest shift, which another may continue.
      in_ties: bool [B], the tie section is open.
      done: bool [B], EOS has come.
    """

    voices: jax.Array
    step: jax.Array
    shift: jax.Array
    order: jax.Array
    program: jax.Array
    velocity: jax.Array
    needs_event: jax.Array
    needs_pitch: jax.Array
    after_velocity: jax.Array
    more_shift: jax.Array
    in_ties: jax.Array
    done: jax.Array


def token_tables(codec: Codec, vocab_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (type, value) of each model id, int32 [vocab_size]; type -1 for ids of no event.

    Raises:
      ValueError: `vocab_size` is too small for the codec.
    """
    if vocab_size < codec.num_classes + NUM_SPECIAL_IDS:
        raise ValueError(
            f"vocab_size {vocab_size} is too small for {codec.num_classes} events and "
            f"{NUM_SPECIAL_IDS} special ids"
        )
    types = np.full(vocab_size, -1, np.int32)
    values = np.zeros(vocab_size, np.int32)
    events = slice(NUM_SPECIAL_IDS, NUM_SPECIAL_IDS + codec.num_classes)
    types[events], values[events] = codec.type_indices, codec.values
    return types, values


def unless_done[State: Any](old: State, new: State) -> State:
    """Return `new`, with rows that were `done` in `old` kept unchanged."""

    def keep(before: jax.Array, now: jax.Array) -> jax.Array:
        return jnp.where(old.done.reshape(-1, *[1] * (now.ndim - 1)), before, now)

    return jax.tree.map(keep, old, new)


class EventGrammar:
    """The grammar of one codec and encoding; see the module's docstring."""

    def __init__(
        self,
        codec: Codec,
        spec: EncodingSpec,
        vocab_size: int,
        *,
        max_step: int | None = None,
        ordered: bool = True,
        whole_piece: bool = False,
    ):
        """Build the grammar.

        Args:
          codec: the event codec; model ids are codec ids + 3.
          spec: the encoding of the tokens.
          vocab_size: V, width of the logits; ids above the codec's are never allowed.
          max_step: last step at which events may lie, for example steps per segment - 1; the
            largest shift if None.
          ordered: False lifts the order within a step.
          whole_piece: of a whole piece (`musax.events.pieces`) instead of a segment: shifts count
            from the event before and have no largest sum, and nothing sounds at the end.
        """
        self.codec, self.spec, self.vocab_size = codec, spec, vocab_size
        self.max_step = codec.max_shift_steps if max_step is None else max_step
        self.whole_piece = whole_piece
        if whole_piece:
            self.max_step = _NO_LAST_STEP
        self.ordered = ordered
        self.num_programs = NUM_PITCHES if spec.programs else 1
        self._types = {name: i for i, name in enumerate(codec.event_types)}
        self._token_type, self._token_value = token_tables(codec, vocab_size)
        self._orders = self._event_orders()

    def _event_orders(self) -> dict[str, np.ndarray]:
        """Return the rank within a step of each offset and onset [P, 128] and drum [128]."""
        voices = np.arange(self.num_programs * NUM_PITCHES, dtype=np.int32)
        voices = voices.reshape(self.num_programs, NUM_PITCHES)
        phase = 2 * voices.size + NUM_PITCHES
        first_is_onset = self.spec.onsets_before_offsets
        onset, offset = (0, phase) if first_is_onset else (phase, 0)
        drum = voices.size + np.arange(NUM_PITCHES, dtype=np.int32)
        return {"offset": voices + offset, "onset": voices + onset, "drum": drum + onset}

    def init(self, batch: int, active=None) -> GrammarState:
        """Return the state before the first token of `batch` segments.

        Args:
          batch: B.
          active: bool [B, P, 128] (or anything that broadcasts to it), which voices sound before
            the segment: `active_voices` of the previous segment's final state. None: nothing
            sounds. True: unknown, anything may; then the tokens can be invalid.
        """
        shape = (batch, self.num_programs, NUM_PITCHES)
        voices = jnp.broadcast_to(jnp.asarray(False if active is None else active), shape)
        zero, no = jnp.zeros(batch, jnp.int32), jnp.zeros(batch, bool)
        return GrammarState(
            voices=jnp.where(voices, _ON, _OFF).astype(jnp.uint8),
            step=zero,
            shift=zero,
            order=zero - 1,
            program=zero - 1 if self.spec.programs else zero,
            velocity=zero - 1,
            needs_event=no,
            needs_pitch=no,
            after_velocity=no,
            more_shift=no,
            in_ties=jnp.full(batch, self.spec.ties),
            done=no,
        )

    def active_voices(self, state: GrammarState) -> jax.Array:
        """Return bool [B, P, 128]: the voices that sound now, for the next segment's `init`."""
        return state.voices != _OFF

    def mask(self, state: GrammarState) -> jax.Array:
        """Return bool [B, V]: the tokens allowed next; after EOS, EOS alone."""
        allowed = self._event_masks(state) if self.spec.offsets else self._onset_masks(state)
        if self.spec.ties:
            tied, open_ = self._tie_masks(state), state.in_ties[:, None]
            nothing = jnp.zeros_like(open_)
            allowed = {
                name: jnp.where(open_, tied.get(name, nothing), allowed.get(name, nothing))
                for name in {**tied, **allowed}
            }
        batch = state.step.shape[0]
        columns = [
            jnp.zeros((batch, NUM_SPECIAL_IDS), bool).at[:, EOS_ID].set(self._can_end(state))
        ]
        for span in self.codec.all_ranges:
            nothing = jnp.zeros((batch, span.size), bool)
            columns.append(jnp.broadcast_to(allowed.get(span.type, nothing), nothing.shape))
        rest = self.vocab_size - NUM_SPECIAL_IDS - self.codec.num_classes
        columns.append(jnp.zeros((batch, rest), bool))
        only_end = jnp.arange(self.vocab_size) == EOS_ID
        return jnp.where(state.done[:, None], only_end, jnp.concatenate(columns, axis=1))

    def _can_end(self, state: GrammarState) -> jax.Array:
        complete = ~(state.needs_event | state.needs_pitch | state.in_ties)
        if self.whole_piece:
            complete &= ~(state.voices != _OFF).any(axis=(1, 2))
        return complete

    def _shift_mask(self, state: GrammarState) -> jax.Array:
        """Return the allowed shifts, bool [B, max_shift_steps + 1]."""
        largest = self.codec.max_shift_steps
        total = state.shift[:, None] + jnp.arange(largest + 1)
        # A time beyond the largest shift takes several tokens, all but the last the largest.
        arrives = (total > state.step[:, None]) & (total <= self.max_step)
        continues = (jnp.arange(largest + 1) == largest) & (total < self.max_step)
        continues &= (state.step < self.max_step)[:, None]
        may_shift = (~state.needs_event | state.more_shift) & ~state.needs_pitch
        not_zero = jnp.arange(largest + 1) > 0
        return (arrives | continues) & not_zero & may_shift[:, None]

    def _may_strike(self, state: GrammarState) -> jax.Array:
        """Return bool [B]: whether the time of the next event is determined."""
        return (state.shift == 0) | (state.shift > state.step)

    def _after(self, orders: np.ndarray, state: GrammarState) -> jax.Array:
        """Return bool [B, ...]: which events come after the latest one of their step."""
        if not self.ordered:
            return jnp.ones((state.order.shape[0], *orders.shape), bool)
        last = jnp.where(state.shift > 0, -1, state.order)
        return jnp.asarray(orders) > last.reshape(-1, *[1] * orders.ndim)

    def _onset_masks(self, state: GrammarState) -> dict[str, jax.Array]:
        """Return masks per event type of the onset-only encoding."""
        pitches = self._after(np.arange(NUM_PITCHES), state) & self._may_strike(state)[:, None]
        return {"shift": self._shift_mask(state), "pitch": pitches}

    def _event_masks(self, state: GrammarState) -> dict[str, jax.Array]:
        """Return masks per event type after the tie section."""
        rows = jnp.arange(state.step.shape[0])
        # A new step makes what began in the previous one an ordinary sounding voice.
        sounding = (state.voices == _ON) | (
            (state.voices == _NEW) & (state.shift > 0)[:, None, None]
        )
        offsets = sounding & self._after(self._orders["offset"], state)
        onsets = self._after(self._orders["onset"], state)
        drums = self._after(self._orders["drum"], state) & ~state.needs_pitch[:, None]
        any_offset, any_onset = offsets.any(axis=2), onsets.any(axis=2)

        program = jnp.maximum(state.program, 0)
        has_program = state.program >= 0
        ready = self._may_strike(state)
        is_off, is_on = state.velocity == 0, state.velocity > 0
        pitch = (is_off[:, None] & offsets[rows, program]) | (
            is_on[:, None] & onsets[rows, program]
        )
        can_off = has_program & any_offset[rows, program]
        can_on = (has_program & any_onset[rows, program]) | drums.any(axis=1)

        bins = jnp.arange(
            self.codec.event_type_range("velocity")[1]
            + 1
            - self.codec.event_type_range("velocity")[0]
        )
        velocity = jnp.where(bins == 0, can_off[:, None], can_on[:, None])
        velocity &= (bins != state.velocity[:, None]) & (ready & ~state.after_velocity)[:, None]
        masks = {
            "shift": self._shift_mask(state),
            "pitch": pitch & (ready & has_program)[:, None],
            "velocity": velocity,
            "drum": drums & (ready & is_on)[:, None],
        }
        if self.spec.programs:
            other = jnp.arange(self.num_programs) != state.program[:, None]
            free = ready & ~state.needs_pitch & ~state.after_velocity
            masks["program"] = (any_offset | any_onset) & other & free[:, None]
        return masks

    def _tie_masks(self, state: GrammarState) -> dict[str, jax.Array]:
        """Return masks per event type inside the tie section."""
        rows = jnp.arange(state.step.shape[0])
        voices = np.arange(self.num_programs * NUM_PITCHES).reshape(self.num_programs, NUM_PITCHES)
        left = (state.voices == _ON) & self._after(voices, state)
        has_program = state.program >= 0
        pitch = left[rows, jnp.maximum(state.program, 0)] & has_program[:, None]
        masks = {"pitch": pitch, "tie": ~state.needs_pitch[:, None]}
        if self.spec.programs:
            other = jnp.arange(self.num_programs) != state.program[:, None]
            masks["program"] = left.any(axis=2) & other & ~state.needs_pitch[:, None]
        return masks

    def update(self, state: GrammarState, tokens: jax.Array) -> GrammarState:
        """Return the state after one more token per row (int [B]); done rows are unchanged."""
        kind = jnp.asarray(self._token_type)[tokens]
        value = jnp.asarray(self._token_value)[tokens]
        is_kind = {name: kind == index for name, index in self._types.items()}
        never = jnp.zeros(kind.shape, bool)
        shift, pitch, velocity, program, drum, tie = (
            is_kind.get(name, never)
            for name in ("shift", "pitch", "velocity", "program", "drum", "tie")
        )
        event = (pitch | drum) & ~state.in_ties
        arrived = event & (state.shift > 0)
        voices = self._update_voices(state, pitch, tie, arrived, value)
        order = self._order_of(state, pitch, drum, value)
        waiting = shift | velocity
        new = GrammarState(
            voices=voices,
            step=state.step if self.whole_piece else jnp.where(arrived, state.shift, state.step),
            shift=jnp.where(shift, state.shift + value, jnp.where(event, 0, state.shift)),
            order=jnp.where(pitch | drum, order, jnp.where(tie, -1, state.order)),
            program=jnp.where(program, value, state.program),
            velocity=jnp.where(velocity, value, state.velocity),
            needs_event=waiting | (state.needs_event & ~event),
            needs_pitch=program | (state.needs_pitch & ~pitch),
            after_velocity=velocity,
            more_shift=shift & (value == self.codec.max_shift_steps),
            in_ties=state.in_ties & ~tie,
            done=tokens == EOS_ID,
        )
        return unless_done(state, new._replace(done=new.done | state.done))

    def _update_voices(self, state, pitch, tie, arrived, value) -> jax.Array:
        """Return the voices after a token; `value` is the pitch where `pitch` is set."""
        if not self.spec.offsets:
            return state.voices
        rows = jnp.arange(value.shape[0])
        voices = state.voices
        if self.spec.onsets_before_offsets:
            settled = (voices == _NEW) & arrived[:, None, None]
            voices = jnp.where(settled, _ON, voices)
        begun = _NEW if self.spec.onsets_before_offsets else _ON
        status = jnp.where(state.velocity > 0, begun, _OFF)
        status = jnp.where(state.in_ties, _TIED, status).astype(voices.dtype)
        place = (rows, jnp.maximum(state.program, 0), jnp.where(pitch, value, 0))
        voices = voices.at[place].set(jnp.where(pitch, status, voices[place]))
        tied = jnp.where(voices == _TIED, _ON, _OFF).astype(voices.dtype)
        return jnp.where(tie[:, None, None], tied, voices)

    def _order_of(self, state, pitch, drum, value) -> jax.Array:
        """Return int32 [B]: rank of the event within its step."""
        if not self.spec.offsets:
            return value
        program = jnp.maximum(state.program, 0)
        number = jnp.where(pitch | drum, value, 0)
        onset = jnp.asarray(self._orders["onset"])[program, number]
        offset = jnp.asarray(self._orders["offset"])[program, number]
        order = jnp.where(state.velocity > 0, onset, offset)
        order = jnp.where(state.in_ties, program * NUM_PITCHES + number, order)
        return jnp.where(drum, jnp.asarray(self._orders["drum"])[number], order)
