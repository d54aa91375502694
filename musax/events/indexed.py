"""Whole recordings as unit shifts and events, indexed by audio frame (the MT3 reference's form).

It serves caches shared with the reference and tests against it. Two of its properties are the
reference's own: `state_events` holds the complete set of sounding notes before *every* event, and
frames after the last event keep the set from before the last event's step, although those notes
may have ended. `musax.events.tokenize.notes_to_tokens` has neither.
"""

import dataclasses

import numpy as np

from musax.events.codec import Codec
from musax.events.spec import EncodingSpec
from musax.events.tokenize import EventTable, event_table
from musax.notes import NUM_PITCHES


@dataclasses.dataclass(frozen=True)
class IndexedEvents:
    """The events of a recording with an index by audio frame; all arrays int32.

    Attributes:
      events: [E] codec ids, one shift of 1 per step.
      event_start_indices, event_end_indices: [F], the events of each frame.
      state_events: [S], before each event the sounding voices and `tie`; empty without ties.
      state_event_indices: [F], where in `state_events` the state of each frame begins.
    """

    events: np.ndarray
    event_start_indices: np.ndarray
    event_end_indices: np.ndarray
    state_events: np.ndarray
    state_event_indices: np.ndarray


def encode_and_index_events(
    notes: np.ndarray, frame_times: np.ndarray, codec: Codec, spec: EncodingSpec
) -> IndexedEvents:
    """Encode `notes` for audio frames that start at `frame_times` (seconds, [F], F >= 1).

    Programs are written whatever the granularity of `spec`, as granularity is applied to
    segments; see `musax.events.tokenize` for the rest.
    """
    spec = dataclasses.replace(spec, granularity="full")
    table = event_table(notes, codec, spec)
    rate = codec.steps_per_second
    last_step = int(table.step[-1]) if len(table.step) else 0
    most_steps = max(last_step, int(frame_times[-1] * rate) + 2)
    step_ends = np.arange(1, most_steps + 1) / rate
    frame_step = np.searchsorted(step_ends, frame_times, side="right")
    num_steps = max(last_step, int(frame_step[-1]) + 1)

    present = table.tokens >= 0
    sizes = present.sum(axis=1)
    tokens = table.tokens[present]
    total = np.concatenate([[0], np.cumsum(sizes)])
    shifts_before = np.repeat(table.step, sizes)
    events = np.ones(num_steps + len(tokens), np.int32)
    events[np.arange(len(tokens)) + shifts_before] = tokens
    event_start = frame_step + total[np.searchsorted(table.step, frame_step)]
    event_end = np.append(event_start[1:], len(events))

    state_events, state_total = _all_states(table, codec, spec)
    state_of = np.searchsorted(table.step, np.minimum(frame_step, last_step))
    return IndexedEvents(
        events,
        event_start.astype(np.int32),
        event_end.astype(np.int32),
        state_events,
        state_total[state_of].astype(np.int32),
    )


def _all_states(
    table: EventTable, codec: Codec, spec: EncodingSpec
) -> tuple[np.ndarray, np.ndarray]:
    """Return (state events int32 [S], where the state of each event begins [N + 1])."""
    count = len(table.step)
    if not spec.ties:
        return np.zeros(0, np.int32), np.zeros(count + 1, np.int64)
    # A voice belongs to every state from after its onset until its next event, or the end.
    pitched = np.flatnonzero(table.voice >= 0)
    order = pitched[np.argsort(table.voice[pitched], kind="stable")]
    same_voice = np.append(table.voice[order[1:]] == table.voice[order[:-1]], False)[: len(order)]
    until = np.where(same_voice, np.append(order[1:], 0)[: len(order)], count - 1)
    starts = table.is_onset[order]
    order, lengths = order[starts], (until - order)[starts]
    row = np.repeat(np.arange(len(order)), lengths)
    event = order[row] + 1 + np.arange(len(row)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    voice = table.voice[order[row]]
    sequence = np.lexsort((voice, event))
    event, voice = event[sequence], voice[sequence]

    sizes = 2 * np.bincount(event, minlength=count) + 1
    total = np.concatenate([[0], np.cumsum(sizes)])
    states = np.full(total[-1], codec.event_type_range("tie")[0], np.int32)
    places = 2 * np.arange(len(event)) + event  # each earlier state also has its `tie`
    states[places] = voice // NUM_PITCHES + codec.event_type_range("program")[0]
    states[places + 1] = voice % NUM_PITCHES + codec.event_type_range("pitch")[0]
    return states, total


def extract_segment(
    indexed: IndexedEvents, start_frame: int, end_frame: int, codec: Codec, spec: EncodingSpec
) -> np.ndarray:
    """Return events (int32 [L], unit shifts) of the frames start_frame..end_frame-1.

    With ties the state at the first frame comes first, up to its `tie`; a recording without any
    event has just `tie`.
    """
    begin = indexed.event_start_indices[start_frame]
    targets = indexed.events[begin : indexed.event_end_indices[end_frame - 1]]
    if not spec.ties:
        return targets
    tie = codec.event_type_range("tie")[0]
    state = indexed.state_events[indexed.state_event_indices[start_frame] :]
    if not len(state):
        return np.concatenate([np.array([tie], np.int32), targets])
    return np.concatenate([state[: np.argmax(state == tie) + 1], targets])
