"""Monophonic melodies on a grid: one token per step, of 90 classes.

The representation of MusicVAE (Roberts et al., ICML 2018) and of the diffusion model built on it
(Mittal et al., ISMIR 2021):

    0        no change: the note or the rest continues
    1        the note ends
    2 ... 89 a note of MIDI pitch 21 ... 108 begins, and ends the one before
"""

import numpy as np

from musax.notes import make_notes
from t5x.data.vocabularies import TokenVocabulary

NO_EVENT, NOTE_OFF, FIRST_NOTE = 0, 1, 2
MIN_PITCH, MAX_PITCH = 21, 108
NUM_CLASSES = FIRST_NOTE + MAX_PITCH - MIN_PITCH + 1

#: Steps of a bar in 4/4: sixteenths.
STEPS_PER_BAR = 16


class MelodyVocabulary(TokenVocabulary):
    """Ids of the 90 classes, above those of padding, EOS and unknown."""

    def __init__(self):
        super().__init__(NUM_CLASSES)


def notes_to_melody(notes: np.ndarray, steps: int, steps_per_second: float) -> np.ndarray:
    """Return the tokens of notes, int32 [steps].

    Times are rounded to steps, and a note lasts one at least. Of notes that begin together the
    highest counts, as in the reference. Left out are drums, pitches that no piano has and what is
    beyond the last step.

    Args:
      notes: `musax.notes` array, in any order.
      steps: length of the grid.
      steps_per_second: its rate, Hz.
    """
    onset = np.rint(notes["onset"] * steps_per_second).astype(np.int64)
    offset = np.rint(notes["offset"] * steps_per_second).astype(np.int64)
    pitch = notes["pitch"]
    on_grid = (onset >= 0) & (onset < steps)
    valid = on_grid & ~notes["is_drum"] & (pitch >= MIN_PITCH) & (pitch <= MAX_PITCH)
    order = np.flatnonzero(valid)[np.lexsort((offset[valid], pitch[valid], onset[valid]))]
    order = order[np.diff(onset[order], append=steps) != 0]
    onset, pitch = onset[order], pitch[order]
    offset = np.maximum(offset[order], onset + 1)
    ends = offset[offset < np.append(onset[1:], steps)]
    tokens = np.full(steps, NO_EVENT, np.int32)
    tokens[ends] = NOTE_OFF
    tokens[onset] = pitch - MIN_PITCH + FIRST_NOTE
    return tokens


def melody_to_notes(tokens: np.ndarray, steps_per_second: float, velocity: int = 100) -> np.ndarray:
    """Return the `musax.notes` array of tokens int [steps], times in s; all sequences are valid.

    What sounds at the end of the grid ends there, and the end of a note that does not sound is
    nothing.

    Raises:
      ValueError: a token is not one of the classes.
    """
    tokens = _checked(tokens)
    events = np.flatnonzero(tokens != NO_EVENT)
    begins = tokens[events] >= FIRST_NOTE
    onset, offset = events[begins], np.append(events[1:], len(tokens))[begins]
    pitch = tokens[onset] - FIRST_NOTE + MIN_PITCH
    return make_notes(onset / steps_per_second, offset / steps_per_second, pitch, velocity)


def transpose_melody(tokens: np.ndarray, semitones: int) -> np.ndarray:
    """Transpose tokens int [steps] by some semitones.

    Raises:
      ValueError: a note would leave the piano (see `transpositions`).
    """
    tokens = np.asarray(tokens)
    low, high = transpositions(tokens)
    if not low <= semitones <= high:
        raise ValueError(f"semitones={semitones}: expected {low} to {high}, for notes to stay")
    return np.where(tokens >= FIRST_NOTE, tokens + semitones, tokens).astype(tokens.dtype)


def transpositions(tokens: np.ndarray) -> tuple[int, int]:
    """Return the least and largest transposition of tokens int [steps]; 0, 0 if no note begins.

    Raises:
      ValueError: a token is not one of the classes.
    """
    tokens = _checked(tokens)
    notes = tokens[tokens >= FIRST_NOTE]
    if not len(notes):
        return 0, 0
    return FIRST_NOTE - int(notes.min()), NUM_CLASSES - 1 - int(notes.max())


def _checked(tokens: np.ndarray) -> np.ndarray:
    tokens = np.asarray(tokens)
    if tokens.size and not 0 <= tokens.min() <= tokens.max() < NUM_CLASSES:
        raise ValueError(
            f"melody tokens {tokens.min()} to {tokens.max()}: expected 0 to {NUM_CLASSES - 1}"
        )
    return tokens
