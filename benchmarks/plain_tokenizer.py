"""Tokenising as one would write it first: Python loops over events. To compare with, and check.

Notes are rows of Python numbers (onset, offset, pitch, velocity, program, is_drum), times in s.
"""

import itertools
from collections.abc import Sequence

import numpy as np

from musax.events.codec import Codec, Event
from musax.events.tokenize import step_at

type NoteRow = tuple[float, float, int, int, int, bool]


def sorted_events(notes: Sequence[NoteRow]) -> list[tuple[float, bool, NoteRow]]:
    """Return (time, is onset, note), by time; at equal times offsets first, then by instrument."""
    notes = sorted(notes, key=lambda note: (note[5], note[4], note[2]))
    events = [(note[1], False, note) for note in notes if not note[5]]
    events += [(note[0], True, note) for note in notes]
    return sorted(events, key=lambda event: event[0])


def event_tokens(codec: Codec, is_onset: bool, note: NoteRow) -> list[int]:
    """Return ids of program, velocity and pitch, or of velocity and drum."""
    _, _, pitch, velocity, program, is_drum = note
    low, high = codec.event_type_range("velocity")
    loudness = -(-(high - low) * velocity // 127) if is_onset else 0
    tokens = [codec.encode_event(Event("velocity", loudness))]
    if is_drum:
        return [*tokens, codec.encode_event(Event("drum", pitch))]
    return [codec.encode_event(Event("program", program)), *tokens, pitch_token(codec, pitch)]


def pitch_token(codec: Codec, pitch: int) -> int:
    return codec.encode_event(Event("pitch", pitch))


def state_tokens(codec: Codec, active: dict[tuple[int, int], bool]) -> list[int]:
    """Return ids of the sounding (program, pitch) voices, then `tie`."""
    tokens = []
    for program, pitch in sorted(voice for voice, sounds in active.items() if sounds):
        tokens += [codec.encode_event(Event("program", program)), pitch_token(codec, pitch)]
    return [*tokens, codec.encode_event(Event("tie", 0))]


def segment_tokens(
    notes: Sequence[NoteRow], bounds: Sequence[int], codec: Codec
) -> list[list[int]]:
    """Return run-length-encoded tokens of segments between `bounds` (steps), with ties."""
    events, active = sorted_events(notes), {}
    segments, place = [], 0
    for first, last in itertools.pairwise(bounds):
        writer = _Writer(codec)
        writer.write(state_tokens(codec, active))
        while place < len(events):
            time, is_onset, note = events[place]
            step = round(time * codec.steps_per_second)
            if step >= last:
                break
            writer.move_to(step - first)
            writer.write(event_tokens(codec, is_onset, note))
            if not note[5]:
                active[note[4], note[2]] = is_onset
            place += 1
        segments.append(writer.tokens)
    return segments


def one_segment(notes: Sequence[NoteRow], start: float, end: float, codec: Codec) -> list[int]:
    """Return `segment_tokens` of one segment (s) anywhere in a recording."""
    rate = codec.steps_per_second
    first, last = step_at(start, rate), step_at(end, rate)
    margin = 2 / rate
    near = [note for note in notes if note[0] <= end + margin and note[1] >= start - margin]
    return segment_tokens(near, [0, first, last], codec)[1]


class _Writer:
    """Tokens of a segment; leaves out states that are set already and unused shifts."""

    def __init__(self, codec: Codec):
        self.tokens: list[int] = []
        self._codec = codec
        self._step = self._written = 0
        self._states: dict[str, int] = {}

    def move_to(self, step: int) -> None:
        self._step = step

    def write(self, tokens: Sequence[int]) -> None:
        for token in tokens:
            event = self._codec.decode_event_index(token)
            if event.type in ("velocity", "program"):
                if self._states.get(event.type) == token:
                    continue
                self._states[event.type] = token
            self._shift()
            self.tokens.append(token)

    def _shift(self) -> None:
        """Write the step once, split into the longest shifts."""
        if self._step == self._written:
            return
        left = self._written = self._step
        while left > 0:
            shift = min(left, self._codec.max_shift_steps)
            self.tokens.append(shift)
            left -= shift


def encode_and_index(
    notes: Sequence[NoteRow], frame_times: Sequence[float], codec: Codec
) -> tuple[list[int], list[int], list[int], list[int]]:
    """Return the two-stage form of MT3's reference: unit shifts, and the state before every event.

    Returns:
      (events, first event of each frame, state events, first state event of each frame).
    """
    rate = codec.steps_per_second
    events: list[int] = []
    states: list[int] = []
    starts: list[int] = []
    state_starts: list[int] = []
    active: dict[tuple[int, int], bool] = {}
    step = event_at = state_at = 0

    def advance() -> None:
        nonlocal step, event_at, state_at
        events.append(1)
        step += 1
        while len(starts) < len(frame_times) and frame_times[len(starts)] < step / rate:
            starts.append(event_at)
            state_starts.append(state_at)
        event_at, state_at = len(events), len(states)

    for time, is_onset, note in sorted_events(notes):
        while step < round(time * rate):
            advance()
        states += state_tokens(codec, active)
        events += event_tokens(codec, is_onset, note)
        if not note[5]:
            active[note[4], note[2]] = is_onset
    while step / rate <= frame_times[-1]:
        advance()
    return events, starts, states, state_starts


def random_notes(rng: np.random.Generator, count: int, seconds: float) -> np.ndarray:
    """Return `count` notes of four instruments and drums within `seconds` s, none overlapping."""
    from musax.notes import make_notes, sort_notes, trim_overlapping_notes

    onset = rng.uniform(0, seconds * 0.98, count)
    instrument = rng.integers(0, 5, count)
    notes = make_notes(
        onset,
        np.minimum(onset + rng.uniform(0.05, 1.5, count), seconds),
        rng.integers(30, 96, count),
        rng.integers(20, 128, count),
        np.asarray([0, 24, 33, 48, 0])[instrument],
        instrument == 4,
    )
    return sort_notes(trim_overlapping_notes(notes))
