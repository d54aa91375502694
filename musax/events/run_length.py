"""Run-length code of time shifts, redundant state changes, and merging of coded tracks.

All functions are vectorised over tokens. Tokens are codec ids.
"""

from collections.abc import Sequence

import numpy as np

from musax.events.codec import Codec


def run_length_encode_shifts(tokens: np.ndarray, codec: Codec) -> np.ndarray:
    """Replace runs of one-step shifts by the steps since the start of the sequence.

    A run before other events becomes their absolute step, written as shifts of
    `max_shift_steps` plus the remainder; a run at the end is dropped.

    Args:
      tokens: int [N], in which a shift of any value counts as one step.

    Returns:
      int32 [M].
    """
    tokens = np.asarray(tokens, np.int32)
    is_shift = codec.is_shift_event_index(tokens)
    steps = np.cumsum(is_shift)[~is_shift]
    return encode_steps(steps, tokens[~is_shift], codec)


def encode_steps(
    steps: np.ndarray, tokens: np.ndarray, codec: Codec, *, relative: bool = False
) -> np.ndarray:
    """Write tokens with the absolute shift before each group of equal steps.

    Args:
      steps: int [N], ascending step of each token since the start of the segment.
      tokens: int [N], none of them a shift.
      relative: shifts are steps since the group before instead.

    Returns:
      int32 [M], N tokens and the shifts; step 0 needs none.
    """
    if not len(tokens):
        return np.zeros(0, np.int32)
    changes = np.empty(len(steps), bool)
    changes[0] = steps[0] > 0
    np.not_equal(steps[1:], steps[:-1], out=changes[1:])
    groups = np.flatnonzero(changes)
    shifts, largest = steps[groups], codec.max_shift_steps
    if relative:
        shifts = np.diff(shifts, prepend=0)
    counts = changes.astype(np.int64)
    if len(shifts) and shifts.max() > largest:
        counts[groups] = pieces = -(-shifts // largest)
        remainders = shifts - (pieces - 1) * largest
        shifts = np.full(pieces.sum(), largest)
        shifts[np.cumsum(pieces) - 1] = remainders
    places = np.arange(len(tokens)) + np.cumsum(counts)
    coded = np.empty(len(tokens) + len(shifts), np.int32)
    is_shift = np.ones(len(coded), bool)
    is_shift[places] = False
    coded[places] = tokens
    coded[is_shift] = shifts
    return coded


def redundant_state_changes(
    tokens: np.ndarray, codec: Codec, state_types: Sequence[str] = ("velocity", "program")
) -> np.ndarray:
    """Return bool [N]: which tokens of a state type repeat the latest token of that type.

    Args:
      tokens: int [N].
      state_types: event types that set a state; those the codec lacks are ignored.
    """
    redundant = np.zeros(len(tokens), bool)
    for state_type in state_types:
        if not codec.has(state_type):
            continue
        low, high = codec.event_type_range(state_type)
        places = np.flatnonzero((tokens >= low) & (tokens <= high))
        states = tokens[places]
        redundant[places[1:]] = states[1:] == states[:-1]
    return redundant


def remove_redundant_state_changes(
    tokens: np.ndarray, codec: Codec, state_types: Sequence[str] = ("velocity", "program")
) -> np.ndarray:
    """Return `tokens` (int [N]) without its `redundant_state_changes`; int32 [M]."""
    tokens = np.asarray(tokens, np.int32)
    return tokens[~redundant_state_changes(tokens, codec, state_types)]


def merge_run_length_encoded_targets(
    targets: np.ndarray, codec: Codec, *, join_ties: bool = False
) -> np.ndarray:
    """Merge run-length-encoded tracks into one, in the order of time.

    Events of one step follow each other track by track: the last track first at step 0, the
    first track first later. Equal shifts are written once.

    Args:
      targets: int [tracks, L], padded with 0.
      join_ties: put the tie sections of all tracks under one `tie` event at the start, instead
        of leaving each track its own.

    Returns:
      int32 [M].
    """
    targets = np.asarray(targets, np.int32)
    ended = np.logical_or.accumulate(targets == 0, axis=1)
    prefix = np.zeros(0, np.int32)
    if join_ties and codec.has("tie"):
        prefix, ended = _take_tie_sections(targets, ended, codec)
    columns = [_absolute_steps(row[~gone], codec) for row, gone in zip(targets, ended)]
    if not columns:
        return prefix
    steps = np.concatenate([steps for steps, _ in columns])
    tokens = np.concatenate([tokens for _, tokens in columns])
    lengths = [len(tokens) for _, tokens in columns]
    track = np.repeat(np.arange(len(columns)), lengths)
    order = np.lexsort((np.where(steps == 0, -track, track), steps))
    return np.concatenate([prefix, encode_steps(steps[order], tokens[order], codec)])


def _absolute_steps(tokens: np.ndarray, codec: Codec) -> tuple[np.ndarray, np.ndarray]:
    """Return (steps, tokens) of the events of one track; consecutive shifts add up."""
    is_shift = codec.is_shift_event_index(tokens)
    total = np.concatenate([[0], np.cumsum(np.where(is_shift, tokens, 0))])
    starts_run = is_shift & ~np.concatenate([[False], is_shift[:-1]])
    # The time of an event is the total now, less the total before the latest run of shifts.
    before = np.maximum.accumulate(np.where(starts_run, total[:-1], 0))
    return (total[1:] - before)[~is_shift], tokens[~is_shift]


def _take_tie_sections(
    targets: np.ndarray, ended: np.ndarray, codec: Codec
) -> tuple[np.ndarray, np.ndarray]:
    """Return (joined tie section, mask of tokens that are excluded from merging)."""
    tie, _ = codec.event_type_range("tie")
    ended = ended.copy()
    sections = []
    for row, gone in zip(targets, ended):
        places = np.flatnonzero((row == tie) & ~gone)
        if len(places):
            sections.append(row[: places[0]])
            gone[: places[0] + 1] = True
    return np.concatenate([*sections, [tie]]).astype(np.int32), ended
