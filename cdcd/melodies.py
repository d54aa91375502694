"""Melodies as tokens of a grid, 16 a bar.

melody_task("data/lakh64", length=256)
"""

import functools
from collections.abc import Callable, Sequence

import numpy as np

from cdcd.preprocessors import Example
from cdcd.tasks import check_part, sequence_task
from musax.datasets.pieces import Piece, lakh64_melodies
from musax.datasets.splits import TASK_SPLITS
from musax.events.melody import (
    FIRST_NOTE,
    STEPS_PER_BAR,
    MelodyVocabulary,
    notes_to_melody,
    transpose_melody,
    transpositions,
)
from t5x.data.tasks import Task
from t5x.data.vocabularies import NUM_SPECIAL_IDS

#: The grid of `lakh64_melodies`: 64 bars of sixteenths at 120 beats a minute.
LAKH64_STEPS, LAKH64_STEPS_PER_SECOND = 64 * STEPS_PER_BAR, 8


def vary_pitch(
    example: Example, rng: np.random.Generator, semitones: tuple[int, int] = (-5, 6)
) -> Example:
    """Return `targets` with all notes higher by a random number of semitones.

    Args:
      example: `targets` int32 [n], ids of `MelodyVocabulary`.
      rng: draws the number, each as likely that leaves the notes on the piano.
      semitones: the least, 0 at most, and the greatest, 0 at least.
    """
    tokens = example["targets"] - NUM_SPECIAL_IDS
    low, high = transpositions(tokens)
    shift = rng.integers(max(low, semitones[0]), min(high, semitones[1]) + 1)
    return {**example, "targets": transpose_melody(tokens, int(shift)) + NUM_SPECIAL_IDS}


def melody_task(
    directory: str,
    length: int = 256,
    *,
    transpose: tuple[int, int] = (-5, 6),
    reader: Callable[[str, str], Sequence[Piece]] = lakh64_melodies,
    steps: int = LAKH64_STEPS,
    steps_per_second: float = LAKH64_STEPS_PER_SECOND,
    purpose: str = "train",
    train_part: tuple[int, int] | None = None,
    name: str = "melody",
) -> Task:
    """Return a task of parts of melodies that begin at a bar.

    Pieces without a note, such as one of lakh64, are left out.

    Args:
      directory: the unpacked archive of the corpus.
      length: steps of an example; a multiple of a bar, so that windows of an evaluation begin at
        one too.
      transpose: in training, see `vary_pitch`.
      reader: of `musax.datasets.pieces`.
      steps, steps_per_second: grid of a piece, see `musax.events.melody.notes_to_melody`.
      purpose: see `cdcd.tasks.sequence_task`.
      train_part: (index, count) takes every count-th training piece, from that index on.
      name: of the task.

    Raises:
      ValueError: an argument is out of range.
      FileNotFoundError (when read): the corpus is missing.
    """
    if length % STEPS_PER_BAR:
        raise ValueError(f"length={length}: expected a multiple of {STEPS_PER_BAR}, a bar")
    if not transpose[0] <= 0 <= transpose[1]:
        raise ValueError(f"transpose={transpose}: expected 0 to be among the semitones")
    index, count = check_part(train_part)
    vocabulary = MelodyVocabulary()

    def read(split: str) -> list[np.ndarray]:
        pieces = reader(directory, TASK_SPLITS[split])
        if split == "train":
            pieces = pieces[index::count]
        loaded = (piece.load_or_empty() for piece in pieces)
        melodies = [notes_to_melody(notes, steps, steps_per_second) for notes in loaded]
        return [vocabulary.encode_array(m) for m in melodies if (m >= FIRST_NOTE).any()]

    return sequence_task(
        name,
        {split: functools.partial(read, split) for split in TASK_SPLITS},
        vocabulary,
        length,
        purpose=purpose,
        multiple=STEPS_PER_BAR,
        augment=[functools.partial(vary_pitch, semitones=transpose)],
    )
