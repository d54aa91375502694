"""Symbolic music from MIDI files: one example a piece.

source = piece_source(pieces.pop909, "data/pop909")
task = music_task(source, PERFORMANCE, num_latents=512)
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from musax.datasets.pieces import Piece
from musax.datasets.splits import TASK_SPLITS
from musax.events.pieces import PERFORMANCE, PieceEncoding
from musax.notes import check_length
from perceiver_ar.tasks import SOS, sequence_task
from t5x.data.sources import FunctionSource, Source
from t5x.data.tasks import Task
from t5x.data.vocabularies import EOS_ID, TokenVocabulary

#: Pieces whose notes are kept in memory, some 50 MB per thousand: reading a file takes several
#: times as long as processing its notes.
_KEPT_PIECES = 4096

#: Pitches of a piano.
PIANO_RANGE = (21, 108)


class EmptyPieceError(ValueError):
    """A piece has no notes that its encoding can express."""


@functools.lru_cache(_KEPT_PIECES)
def _read(piece: Piece) -> np.ndarray:
    """Return the notes of a piece, read-only."""
    notes = piece.load_or_empty()
    notes.flags.writeable = False
    return notes


class _Pieces(Sequence):
    """Pieces as raw examples, read when asked for; one that cannot be read has no notes."""

    def __init__(self, pieces: Sequence[Piece]):
        self._pieces = pieces

    def __len__(self) -> int:
        return len(self._pieces)

    def __getitem__(self, index: int) -> dict[str, Any]:  # type: ignore[override]
        piece = self._pieces[index]
        return {"name": piece.name, "notes": _read(piece)}


def piece_source(reader: Callable[[str, str], Sequence[Piece]], directory: str) -> Source:
    """Return a source of pieces: examples with `name` and `notes`, in splits by piece.

    Args:
      reader: of `musax.datasets.pieces`, such as `pop909` or `midi_folder`.
      directory: the unpacked archive of the corpus.
    """

    def read(split: str) -> _Pieces:
        return _Pieces(reader(directory, TASK_SPLITS[split]))

    return FunctionSource({split: functools.partial(read, split) for split in TASK_SPLITS})


def music_vocabulary(encoding: PieceEncoding = PERFORMANCE) -> TokenVocabulary:
    """Return a vocabulary of an encoding's events, above the ids of padding, EOS and SOS."""
    return TokenVocabulary(encoding.codec.num_classes)


# ----------------------------------------------------------------------------- preprocessors


def vary_notes(
    example: dict,
    rng: np.random.Generator,
    transpose: tuple[int, int] = (-5, 6),
    stretch: float = 0.05,
    pitch_range: tuple[int, int] = PIANO_RANGE,
) -> dict:
    """Transpose and stretch a piece, as Oore et al. 2018 (section 3.2) do.

    Args:
      example: with `notes`.
      rng: draws both.
      transpose: least and greatest number of semitones, limited so that no pitch leaves
        `pitch_range`. Drums stay.
      stretch: durations are multiplied by 1 - stretch to 1 + stretch.
      pitch_range: lowest and highest pitch.
    """
    notes = example["notes"].copy()
    pitched = ~notes["is_drum"]
    if pitched.any():
        pitches = notes["pitch"][pitched]
        low = min(max(transpose[0], pitch_range[0] - int(pitches.min())), 0)
        high = max(min(transpose[1], pitch_range[1] - int(pitches.max())), 0)
        notes["pitch"][pitched] += int(rng.integers(low, high + 1))
    factor = rng.uniform(1 - stretch, 1 + stretch)
    for name in ("onset", "offset"):
        notes[name] *= factor
    return {**example, "notes": notes}


def heard_notes(notes: np.ndarray, encoding: PieceEncoding = PERFORMANCE) -> np.ndarray:
    """Return the notes that an encoding can express: all, or those that are not drums.

    Raises:
      EmptyPieceError: there are no notes, or none but drums in an encoding without them.
    """
    heard = notes if encoding.codec.has("drum") else notes[~notes["is_drum"]]
    if not len(heard):
        what = "no notes" if not len(notes) else "no notes but those of drums"
        raise EmptyPieceError(f"{what}: a piece needs one at least")
    return heard


def encode_piece(notes: np.ndarray, encoding: PieceEncoding = PERFORMANCE) -> np.ndarray:
    """Return tokens int32 [n]: SOS and the events of a note array, without EOS.

    The silence before the first note is left out.

    Raises:
      EmptyPieceError: see `heard_notes`.
      ValueError: the notes last for hours, see `musax.notes.check_length`.
    """
    heard = heard_notes(notes, encoding)
    shifted = heard.copy()
    check_length(heard, "notes")
    for name in ("onset", "offset"):
        shifted[name] -= heard["onset"].min()
    events = music_vocabulary(encoding).encode_array(encoding.encode(shifted))
    return np.concatenate([np.array([SOS], np.int32), events])


def tokenize_piece(example: dict, encoding: PieceEncoding = PERFORMANCE) -> list[dict]:
    """Return `tokens` int32 [n + 1], SOS to EOS, of `notes`; nothing for a piece without any."""
    try:
        tokens = encode_piece(example["notes"], encoding)
    except EmptyPieceError:
        return []
    return [{"tokens": np.append(tokens, np.int32(EOS_ID))}]


def music_task(
    source: Source,
    encoding: PieceEncoding = PERFORMANCE,
    *,
    transpose: tuple[int, int] = (-5, 6),
    stretch: float = 0.05,
    pitch_range: tuple[int, int] = PIANO_RANGE,
    name: str = "music",
    **options: Any,
) -> Task:
    """Return a task of pieces of music as sequences of events.

    Args:
      source: of raw examples with `notes`, see `piece_source`.
      encoding: of `musax.events.pieces`.
      transpose, stretch, pitch_range: in training, see `vary_notes`.
      name: of the task.
      options: see `perceiver_ar.tasks.sequence_task`.
    """
    vary = functools.partial(
        vary_notes, transpose=transpose, stretch=stretch, pitch_range=pitch_range
    )
    return sequence_task(
        name,
        source,
        [functools.partial(tokenize_piece, encoding=encoding)],
        music_vocabulary(encoding),
        augment=[vary],
        **options,
    )
