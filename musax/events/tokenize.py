"""Notes to event tokens, vectorised over notes.

Two ways lead to the tokens of a segment:

* `notes_to_tokens` goes straight from notes to the run-length-encoded tokens of one segment and
  looks only at the notes it needs. `event_table` and `segment_tokens` are its two halves, for many
  segments of one recording.
* `encode_and_index_events` writes a whole recording as unit shifts and events with an index by
  audio frame, and `extract_segment` cuts segments from it: the two-stage form of the MT3
  reference, token for token.

Tokens are codec ids; special ids and the end of sequence belong to the vocabulary.
"""

import dataclasses

import numpy as np

from musax.events.codec import Codec, num_velocity_bins, velocity_to_bin
from musax.events.run_length import encode_steps, redundant_state_changes
from musax.events.spec import EncodingSpec, map_programs
from musax.notes import NUM_PITCHES, voice_keys

_NUM_VOICES = NUM_PITCHES * NUM_PITCHES
_ABSENT = -1


@dataclasses.dataclass(frozen=True)
class EventTable:
    """The events of a recording in the order in which they are written.

    Attributes:
      step: int64 [N], ascending time step.
      tokens: int32 [N, 3], the ids of program, velocity and pitch (or drum); -1 where absent.
      voice: int64 [N], program * 128 + pitch, or -1 where the event starts or ends no voice.
      is_onset: bool [N].
    """

    step: np.ndarray
    tokens: np.ndarray
    voice: np.ndarray
    is_onset: np.ndarray

    def sounding(self, index: int) -> np.ndarray:
        """Return int64 [A]: ascending voices that sound just before event `index`."""
        state = np.zeros(_NUM_VOICES + 1, bool)
        # Where a voice occurs more than once its last event decides; voice -1 is a spare slot.
        state[self.voice[:index]] = self.is_onset[:index]
        return np.flatnonzero(state[:-1])


def notes_to_tokens(
    notes: np.ndarray,
    segment_start: float,
    segment_end: float | None,
    codec: Codec,
    spec: EncodingSpec,
    *,
    align: str = "file",
    keep_redundant: bool = False,
) -> np.ndarray:
    """Run-length-encoded tokens of the notes of one segment.

    Args:
      notes: note array [N] in any order, times in seconds.
      segment_start, segment_end: bounds in seconds; None for no upper bound.
      codec: the event codec.
      spec: what to write.
      align: "file" rounds times to the steps of the recording, and the segment starts at the
        step that contains `segment_start`; "segment" rounds times relative to `segment_start`,
        which suits random starts.
      keep_redundant: keep the program and velocity of every event, as merging of segments needs.

    Returns:
      int32 [L] codec ids; shifts are steps since the segment's start, and an event at its end
      belongs to the next segment.
    """
    if align not in ("file", "segment"):
        raise ValueError(f"align must be 'file' or 'segment', got {align!r}")
    rate = codec.steps_per_second
    end = np.inf if segment_end is None else segment_end
    # A segment starts up to a step early, times round by half a step, and a short note lasts one.
    chosen = _notes_near(notes, segment_start - 3 / rate, end + 3 / rate, spec)
    if align == "file":
        first = step_at(segment_start, rate)
        last = None if segment_end is None else step_at(segment_end, rate)
        table = event_table(chosen, codec, spec)
    else:
        first = 0
        last = None if segment_end is None else round((segment_end - segment_start) * rate)
        table = event_table(chosen, codec, spec, origin=segment_start)
    return segment_tokens(table, first, last, codec, spec, keep_redundant=keep_redundant)


def _notes_near(notes: np.ndarray, start: float, end: float, spec: EncodingSpec) -> np.ndarray:
    """Return notes that sound in [start, end], and earlier ones in the voice of a held note."""
    onset, offset = notes["onset"], notes["offset"]
    chosen = (onset <= end) & (offset >= start)
    near = notes[chosen]
    held = near["onset"] < start
    if held.any():
        # Which of two overlapping notes of a voice sounds on depends on both.
        earliest = near["onset"][held].min()
        others = np.flatnonzero((offset >= earliest) & (onset < start) & ~chosen)
        shared = np.zeros(2 * _NUM_VOICES, bool)
        shared[_voices(near[held], spec)] = True
        others = others[shared[_voices(notes[others], spec)]]
        if len(others):
            chosen[others] = True
            return notes[chosen]
    return near


def _voices(notes: np.ndarray, spec: EncodingSpec) -> np.ndarray:
    """Return int64 [N]: numbers shared by notes that cannot sound together in the encoding."""
    if not spec.canonical:
        return voice_keys(notes)
    programs = np.where(notes["is_drum"], 0, map_programs(notes["program"], spec.granularity))
    return (notes["is_drum"] * NUM_PITCHES + programs.astype(np.int64)) * NUM_PITCHES + notes[
        "pitch"
    ]


def step_at(seconds: float, steps_per_second: float) -> int:
    """Return the step k with k / steps_per_second <= seconds < (k + 1) / steps_per_second."""
    step = int(seconds * steps_per_second)
    if (step + 1) / steps_per_second <= seconds:
        return step + 1
    return step - 1 if step / steps_per_second > seconds else step


def event_table(
    notes: np.ndarray, codec: Codec, spec: EncodingSpec, *, origin: float = 0.0
) -> EventTable:
    """Return all events of `notes`; step 0 is at `origin` seconds.

    In the reference's order notes of length 0 are left out (the reference refuses them); drums
    have no length there.
    """
    if spec.canonical:
        return _canonical_events(notes, codec, spec, origin)
    if not spec.offsets:
        notes = notes[np.argsort(notes["pitch"], kind="stable")]
        time = notes["onset"]
        is_onset = np.ones(len(notes), bool)
    else:
        # With its offset before its onset a note of length 0 would never end.
        notes = notes[notes["is_drum"] | (notes["offset"] > notes["onset"])]
        notes = notes[np.argsort(voice_keys(notes), kind="stable")]
        held = notes[~notes["is_drum"]]
        time = np.concatenate([held["offset"], notes["onset"]])
        is_onset = np.arange(len(time)) >= len(held)
        notes = np.concatenate([held, notes])
    order = np.argsort(time, kind="stable")
    steps = np.rint((time[order] - origin) * codec.steps_per_second).astype(np.int64)
    return _table(steps, notes[order], notes["program"][order], is_onset[order], codec, spec)


def _canonical_events(
    notes: np.ndarray, codec: Codec, spec: EncodingSpec, origin: float
) -> EventTable:
    """Return events ordered within each step, of notes that do not overlap within a voice."""
    keys = _voices(notes, spec) if spec.offsets else notes["pitch"].astype(np.int64)
    programs = keys // NUM_PITCHES % NUM_PITCHES
    rate = codec.steps_per_second
    start = np.rint((notes["onset"] - origin) * rate).astype(np.int64)
    stop = np.maximum(np.rint((notes["offset"] - origin) * rate).astype(np.int64), start + 1)

    order = np.lexsort((notes["velocity"], stop, start, keys))
    keys, start, stop, programs = keys[order], start[order], stop[order], programs[order]
    same_voice = keys[1:] == keys[:-1]
    # Of notes that start together, the longest stays; its successor in time ends it.
    kept = np.append(~(same_voice & (start[1:] == start[:-1])), True)[: len(order)]
    order, keys, start, stop, programs = (
        column[kept] for column in (order, keys, start, stop, programs)
    )
    same_voice = keys[1:] == keys[:-1]
    stop[:-1] = np.where(same_voice, np.minimum(stop[:-1], start[1:]), stop[:-1])
    if not spec.offsets:
        ends = np.zeros(0, np.int64)
    elif spec.onsets_before_offsets:
        struck_again = np.append(same_voice & (stop[:-1] == start[1:]), False)[: len(order)]
        ends = np.flatnonzero((keys < _NUM_VOICES) & ~struck_again)
    else:
        ends = np.flatnonzero(keys < _NUM_VOICES)

    row = np.concatenate([ends, np.arange(len(order))])
    step = np.concatenate([stop[ends], start])
    is_onset = np.arange(len(row)) >= len(ends)
    phase = ~is_onset if spec.onsets_before_offsets else is_onset
    sequence = np.lexsort((keys[row], phase, step))
    row = row[sequence]
    return _table(step[sequence], notes[order[row]], programs[row], is_onset[sequence], codec, spec)


def _table(
    steps: np.ndarray,
    notes: np.ndarray,
    programs: np.ndarray,
    is_onset: np.ndarray,
    codec: Codec,
    spec: EncodingSpec,
) -> EventTable:
    """Return the event table of one note (and its program) per event."""
    tokens = np.full((len(notes), 3), _ABSENT, np.int32)
    pitch_id = codec.event_type_range("pitch")[0]
    if not spec.offsets:
        tokens[:, 2] = notes["pitch"] + pitch_id
        return EventTable(steps, tokens, np.full(len(notes), -1), is_onset)
    is_drum = notes["is_drum"]
    if spec.programs:
        shown = map_programs(programs, spec.granularity)
        program_id = codec.event_type_range("program")[0]
        tokens[:, 0] = np.where(is_drum, _ABSENT, shown + program_id)
    bins = velocity_to_bin(notes["velocity"], num_velocity_bins(codec))
    tokens[:, 1] = np.where(is_onset, bins, 0) + codec.event_type_range("velocity")[0]
    tokens[:, 2] = notes["pitch"] + np.where(is_drum, codec.event_type_range("drum")[0], pitch_id)
    voice = np.where(is_drum, -1, programs * NUM_PITCHES + notes["pitch"])
    return EventTable(steps, tokens, voice, is_onset)


def segment_tokens(
    table: EventTable,
    first_step: int,
    last_step: int | None,
    codec: Codec,
    spec: EncodingSpec,
    *,
    keep_redundant: bool = False,
) -> np.ndarray:
    """Run-length-encoded tokens of the events with first_step <= step < last_step.

    Returns int32 [L]; with ties they begin with the sounding voices and a `tie` event.
    """
    low = int(np.searchsorted(table.step, first_step))
    high = len(table.step) if last_step is None else int(np.searchsorted(table.step, last_step))
    rows = table.tokens[low:high]
    present = rows != _ABSENT
    tokens = rows[present]
    steps = np.repeat(table.step[low:high] - first_step, present.sum(axis=1))
    if spec.ties:
        prefix = _tie_section(table.sounding(low), codec, spec)
        tokens = np.concatenate([prefix, tokens])
        steps = np.concatenate([np.zeros(len(prefix), np.int64), steps])
    if not keep_redundant:
        kept = ~redundant_state_changes(tokens, codec)
        steps, tokens = steps[kept], tokens[kept]
    return encode_steps(steps, tokens, codec)


def _tie_section(voices: np.ndarray, codec: Codec, spec: EncodingSpec) -> np.ndarray:
    """Return int32: [program, pitch] of each voice in ascending order, then `tie`."""
    pairs = np.full((len(voices), 2), _ABSENT, np.int32)
    pairs[:, 1] = voices % NUM_PITCHES + codec.event_type_range("pitch")[0]
    if spec.programs:
        shown = map_programs(voices // NUM_PITCHES, spec.granularity)
        pairs[:, 0] = shown + codec.event_type_range("program")[0]
    return np.append(pairs[pairs != _ABSENT], np.int32(codec.event_type_range("tie")[0]))
