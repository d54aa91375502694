"""Event tokens to notes, segment by segment.

Decoding never fails: an event that makes no sense is counted as invalid and skipped. Notes leave
the state as soon as they end, so a recording of any length needs only what sounds now.
"""

import functools

import numpy as np

from musax.events.codec import Codec, bin_to_velocity, num_velocity_bins
from musax.events.spec import EncodingSpec
from musax.notes import NOTE_DTYPE

MIN_NOTE_SECONDS = 0.01
DEFAULT_VELOCITY = 100

_SHIFT, _PITCH, _VELOCITY, _TIE, _PROGRAM, _DRUM, _OTHER = range(7)
_KINDS = {
    "shift": _SHIFT,
    "pitch": _PITCH,
    "velocity": _VELOCITY,
    "tie": _TIE,
    "program": _PROGRAM,
    "drum": _DRUM,
}


class NoteDecoder:
    """Decoder of one recording; keeps the sounding notes between its segments.

    Feed segments in the order of time with `decode_segment`; collect finished notes with
    `take_notes` whenever convenient, and the rest with `flush`.

    Attributes:
      invalid_events: number of invalid events so far.
      dropped_events: number of events after the end of their segment so far.
      current_time: time of the latest event, s.
    """

    def __init__(self, codec: Codec, spec: EncodingSpec):
        self.codec = codec
        self.spec = spec
        self.invalid_events = 0
        self.dropped_events = 0
        self.current_time = 0.0
        self._velocity = DEFAULT_VELOCITY
        self._program = 0
        # (pitch, program) -> (onset s, velocity), in the order of onsets.
        self._active: dict[tuple[int, int], tuple[float, int]] = {}
        self._tied: set[tuple[int, int]] = set()
        self._in_tie_section = False
        self._notes: list[tuple[float, float, int, int, int, bool]] = []
        self._kinds, self._values = _token_tables(codec)

    def begin_segment(self) -> None:
        """Expect a tie section next, if the encoding has them; `decode_segment` calls it."""
        self._tied.clear()
        self._in_tie_section = self.spec.ties

    def decode_segment(
        self, tokens, start_time: float, max_time: float | None = None
    ) -> tuple[int, int]:
        """Decode the tokens of one segment.

        Args:
          tokens: int [L] codec ids, run-length encoded; any other number is an invalid event.
          start_time: start of the segment, s.
          max_time: start of the next segment, s; events after it are dropped. None: no limit.

        Returns:
          (invalid, dropped) events of this segment.
        """
        self.begin_segment()
        return self.decode_tokens(tokens, start_time, max_time)

    def decode_tokens(
        self, tokens, start_time: float, max_time: float | None = None
    ) -> tuple[int, int]:
        """Decode like `decode_segment`, but without expecting a new tie section."""
        tokens = np.asarray(tokens).tolist()
        steps_per_second, num_classes = self.codec.steps_per_second, self.codec.num_classes
        kinds, values = self._kinds, self._values
        decode_event = self._decode_note_event if self.spec.offsets else self._decode_onset_event
        invalid, dropped, steps, time = 0, 0, 0, start_time
        for index, token in enumerate(tokens):
            if not 0 <= token < num_classes:
                invalid += 1
                continue
            kind, value = kinds[token], values[token]
            if kind != _SHIFT:
                steps = 0  # the next shift counts from the start of the segment again
                if not decode_event(kind, value, time):
                    invalid += 1
                continue
            steps += value
            time = start_time + steps / steps_per_second
            if max_time is not None and time > max_time:
                dropped = len(tokens) - index
                break
        self.invalid_events += invalid
        self.dropped_events += dropped
        return invalid, dropped

    def take_notes(self) -> np.ndarray:
        """Return and forget the notes that ended since the last call, ordered by their ends."""
        notes = np.array(self._notes, NOTE_DTYPE)
        self._notes = []
        return notes

    def flush(self) -> np.ndarray:
        """End all sounding notes, no earlier than 10 ms after onset, and return `take_notes()`."""
        for onset, _ in self._active.values():
            self.current_time = max(self.current_time, onset + MIN_NOTE_SECONDS)
        for voice in list(self._active):
            self._end(voice, self.current_time)
        return self.take_notes()

    def active_voices(self) -> list[tuple[int, int]]:
        """Return (pitch, program) of the sounding notes."""
        return list(self._active)

    def _decode_onset_event(self, kind: int, value: int, time: float) -> bool:
        """Apply one event of the onset-only encoding: it must be a pitch."""
        if kind != _PITCH:
            return False
        note = (time, time + MIN_NOTE_SECONDS, value, DEFAULT_VELOCITY, 0, False)
        self._notes.append(note)
        return True

    def _decode_note_event(self, kind: int, value: int, time: float) -> bool:
        """Apply one event at `time`; return False if it is invalid."""
        if time < self.current_time:
            return False
        self.current_time = time
        if kind == _PITCH:
            voice = (value, self._program)
            if self._in_tie_section:
                return self._tie(voice)
            if not self._velocity:
                return self._release(voice, time)
            if voice in self._active:
                self._end(voice, time)
            self._active[voice] = (time, self._velocity)
        elif kind == _VELOCITY:
            self._velocity = value
        elif kind == _PROGRAM:
            self._program = value
        elif kind == _DRUM:
            if not self._velocity:
                return False
            note = (time, time + MIN_NOTE_SECONDS, value, self._velocity, 0, True)
            self._notes.append(note)
        elif kind == _TIE:
            return self._end_tie_section()
        else:
            return False
        return True

    def _tie(self, voice: tuple[int, int]) -> bool:
        if voice not in self._active or voice in self._tied:
            return False
        self._tied.add(voice)
        return True

    def _release(self, voice: tuple[int, int], time: float) -> bool:
        if voice not in self._active:
            return False
        if self.spec.onsets_before_offsets and self._active[voice][0] == time:
            # The end of an earlier note, which this onset has ended already.
            return True
        self._end(voice, time)
        return True

    def _end_tie_section(self) -> bool:
        if not self._in_tie_section:
            return False
        for voice in [voice for voice in self._active if voice not in self._tied]:
            self._end(voice, self.current_time)
        self._in_tie_section = False
        return True

    def _end(self, voice: tuple[int, int], time: float) -> None:
        onset, velocity = self._active.pop(voice)
        end = max(time, onset + MIN_NOTE_SECONDS)
        pitch, program = voice
        self._notes.append((onset, end, pitch, velocity, program, False))


@functools.lru_cache(maxsize=8)
def _token_tables(codec: Codec) -> tuple[list[int], list[int]]:
    """Return kind and value of every id; velocity bins as MIDI velocities."""
    kind_of_type = np.array([_KINDS.get(name, _OTHER) for name in codec.event_types])
    kinds = kind_of_type[codec.type_indices]
    values = codec.values.copy()
    if codec.has("velocity"):
        is_velocity = kinds == _VELOCITY
        values[is_velocity] = bin_to_velocity(values[is_velocity], num_velocity_bins(codec))
    return kinds.tolist(), values.tolist()


def decode_segments(segments, codec: Codec, spec: EncodingSpec) -> tuple[np.ndarray, int, int]:
    """Decode the segments of one recording.

    Args:
      segments: iterable of (start_time in s, tokens int [L] as codec ids), in any order.

    Returns:
      (notes in the order of their ends, invalid events, dropped events).
    """
    ordered = sorted(segments, key=lambda segment: segment[0])
    state = NoteDecoder(codec, spec)
    limits = [start for start, _ in ordered[1:]] + [None]
    for (start, tokens), limit in zip(ordered, limits):
        state.decode_segment(tokens, start, limit)
    return state.flush(), state.invalid_events, state.dropped_events


def segment_start_time(frame_time: float, steps_per_second: float) -> float:
    """Return the start of the step of `frame_time` (both s), computed as the reference does."""
    return frame_time - frame_time % (1 / steps_per_second)
