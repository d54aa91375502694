"""Whole pieces of music as sequences of tokens, for models of music.

Transcription writes short segments, whose shifts count from their start (`musax.events.tokenize`).
A piece has any length, so here a shift counts from the event before it.

    tokens = PERFORMANCE.encode(notes)
    notes = PERFORMANCE.decode(tokens).notes
"""

import dataclasses
import functools

import numpy as np

from musax.events.codec import SHIFT, Codec, EventRange, note_codec, velocity_to_bin
from musax.events.decode import NoteDecoder
from musax.events.run_length import encode_steps, redundant_state_changes
from musax.events.spec import EncodingSpec
from musax.events.tokenize import event_table
from musax.notes import NUM_PITCHES, sort_notes


@dataclasses.dataclass(frozen=True)
class DecodedPiece:
    """Notes of a sequence of tokens.

    Attributes:
      notes: `musax.notes` array by onset, times in s.
      invalid_events: number of invalid events, such as the end of a note that does not sound;
        they were left out.
    """

    notes: np.ndarray
    invalid_events: int


@dataclasses.dataclass(frozen=True)
class MultitrackEncoding:
    """MT3's events (arXiv 2111.03017, section 3.2) of all instruments.

    Programs and velocities are written where they change; velocity 0 ends notes.

    Attributes:
      steps_per_second: time resolution, Hz.
      max_shift_seconds: longest shift of one token, s.
      num_velocity_bins: number of velocity levels.
      granularity: of programs, see `musax.events.spec.EncodingSpec`.
    """

    steps_per_second: float = 100
    max_shift_seconds: float = 10
    num_velocity_bins: int = 127
    granularity: str = "full"

    @functools.cached_property
    def codec(self) -> Codec:
        """The codec of the tokens."""
        return note_codec(self.steps_per_second, self.max_shift_seconds, self.num_velocity_bins)

    @functools.cached_property
    def spec(self) -> EncodingSpec:
        """The events and their order, for `musax.events.tokenize`."""
        return EncodingSpec(granularity=self.granularity, canonical=True)

    def encode(self, notes: np.ndarray) -> np.ndarray:
        """Return tokens int32 [L], ids of `codec`, of a note array; times are rounded to steps."""
        table = event_table(notes, self.codec, self.spec)
        present = table.tokens >= 0
        tokens = table.tokens[present]
        steps = np.repeat(table.step, present.sum(axis=1))
        kept = ~redundant_state_changes(tokens, self.codec)
        return encode_steps(steps[kept], tokens[kept], self.codec, relative=True)

    def decode(self, tokens: np.ndarray) -> DecodedPiece:
        """Return the notes of tokens int [L]; any sequence can be decoded.

        What sounds at the end of the sequence ends there.
        """
        steps, events = absolute_steps(tokens, self.codec)
        return _decode_events(steps, events, self.codec, self.spec)


@dataclasses.dataclass(frozen=True)
class PerformanceEncoding:
    """Performance events: onsets, offsets, shifts of up to a second and velocities.

    The 388 events of Oore et al. 2018 ("This time with feeling", section 3.3) with its defaults,
    for one instrument; drums are left out. A velocity is written before an onset where it changes.

    Attributes:
      steps_per_second: time resolution, Hz.
      max_shift_seconds: longest shift of one token, s.
      num_velocity_bins: number of velocity levels.
    """

    steps_per_second: float = 100
    max_shift_seconds: float = 1
    num_velocity_bins: int = 32

    @functools.cached_property
    def codec(self) -> Codec:
        """The codec of the tokens. Its shift 0 is never written."""
        return Codec(
            max_shift_steps=int(self.steps_per_second * self.max_shift_seconds),
            steps_per_second=self.steps_per_second,
            event_ranges=[
                EventRange("onset", 0, NUM_PITCHES - 1),
                EventRange("offset", 0, NUM_PITCHES - 1),
                EventRange("velocity", 1, self.num_velocity_bins),
            ],
        )

    @functools.cached_property
    def _notes_codec(self) -> Codec:
        """The codec of the same events, with an offset as a pitch of velocity 0."""
        return note_codec(self.steps_per_second, self.max_shift_seconds, self.num_velocity_bins)

    @functools.cached_property
    def _spec(self) -> EncodingSpec:
        return EncodingSpec(granularity="flat", canonical=True)

    def encode(self, notes: np.ndarray) -> np.ndarray:
        """Return tokens int32 [L], ids of `codec`, of a note array; times are rounded to steps.

        Notes of all programs are played by one instrument, and of two notes of one pitch the later
        ends the earlier.
        """
        table = event_table(notes[~notes["is_drum"]], self._notes_codec, self._spec)
        pitch = self._notes_codec.values[table.tokens[:, 2]]
        velocity = self._notes_codec.values[table.tokens[:, 1]]
        rows = np.full((len(pitch), 2), -1, np.int32)
        on = table.is_onset
        rows[on, 0] = self.codec.encode("velocity", np.maximum(velocity[on], 1))
        rows[on, 1] = self.codec.encode("onset", pitch[on])
        rows[~on, 1] = self.codec.encode("offset", pitch[~on])
        present = rows >= 0
        tokens, steps = rows[present], np.repeat(table.step, present.sum(axis=1))
        kept = ~redundant_state_changes(tokens, self.codec)
        return encode_steps(steps[kept], tokens[kept], self.codec, relative=True)

    def decode(self, tokens: np.ndarray) -> DecodedPiece:
        """Return the notes of tokens int [L]; any sequence can be decoded.

        What sounds at the end of the sequence ends there.
        """
        steps, events = absolute_steps(tokens, self.codec)
        types = np.asarray(self.codec.event_types)[self.codec.type_indices[events]]
        values = self.codec.values[events]
        # The velocity of an onset is the latest one written.
        is_velocity = types == "velocity"
        latest = np.maximum.accumulate(np.where(is_velocity, np.arange(len(events)), -1))
        default = int(velocity_to_bin(64, self.num_velocity_bins))
        velocity = np.where(latest >= 0, values[latest], default)
        notes = ~is_velocity
        codec = self._notes_codec
        pairs = np.empty((int(notes.sum()), 2), np.int32)
        sounding = np.where(types[notes] == "onset", velocity[notes], 0)
        pairs[:, 0] = codec.encode("velocity", sounding)
        pairs[:, 1] = codec.encode("pitch", values[notes])
        return _decode_events(np.repeat(steps[notes], 2), pairs.ravel(), codec, self._spec)


PieceEncoding = MultitrackEncoding | PerformanceEncoding

PERFORMANCE = PerformanceEncoding()
MULTITRACK = MultitrackEncoding()


def absolute_steps(tokens: np.ndarray, codec: Codec) -> tuple[np.ndarray, np.ndarray]:
    """Separate relative shifts from tokens: return (step int64 [N], event int32 [N]).

    Raises:
      ValueError: a token that is none of the codec's.
    """
    tokens = np.asarray(tokens)
    unknown = tokens[(tokens < 0) | (tokens >= codec.num_classes)]
    if unknown.size:
        raise ValueError(f"token {unknown[0]} is not in 0..{codec.num_classes - 1} of the codec")
    is_shift = codec.is_shift_event_index(tokens)
    low, _ = codec.event_type_range(SHIFT)
    steps = np.cumsum(np.where(is_shift, tokens - low, 0))
    return steps[~is_shift].astype(np.int64), tokens[~is_shift].astype(np.int32)


def _decode_events(
    steps: np.ndarray, events: np.ndarray, codec: Codec, spec: EncodingSpec
) -> DecodedPiece:
    """Return the notes of events (ids of `note_codec`) at ascending steps."""
    state = NoteDecoder(codec, spec)
    state.decode_segment(encode_steps(steps, events, codec), 0.0)
    return DecodedPiece(sort_notes(state.flush()), state.invalid_events)
