"""Symbolic corpora as lists of pieces, each with its own split by piece.

A directory is what the corpus's archive unpacks to. Splits never cut a piece: POP909 by song
number, lakh64 by its own train and valid folders, the chorales by the split the file carries.
"""

import dataclasses
import functools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from musax.midi import load_midi
from musax.notes import make_notes

SPLITS = ("train", "valid", "test")
POP909_FIRST_VALID, POP909_FIRST_TEST = 801, 831
_SIXTEENTH_S = 0.15  # chorales have no tempo of their own


@dataclasses.dataclass(frozen=True)
class Piece:
    """A piece of music: its name and a function that reads its note table."""

    name: str
    load: Callable[[], np.ndarray]


def pop909(directory: str | Path, split: str) -> list[Piece]:
    """POP909 (Wang et al., ISMIR 2020): songs 1-800 train, 801-830 valid, 831-909 test."""
    _check_split(split)
    paths = {int(p.stem): p for p in Path(directory).glob("[0-9]*/[0-9]*.mid")}
    _check_found(paths, directory, "NNN/NNN.mid")
    first = {"train": 1, "valid": POP909_FIRST_VALID, "test": POP909_FIRST_TEST}[split]
    last = {"train": POP909_FIRST_VALID, "valid": POP909_FIRST_TEST, "test": 10**6}[split]
    return [_midi_piece(paths[n]) for n in sorted(paths) if first <= n < last]


def lakh64_trios(directory: str | Path, split: str) -> list[Piece]:
    """64-bar melody, bass and drums excerpts of Lakh: folder train, folder valid in two halves."""
    _check_split(split)
    folder = "train" if split == "train" else "valid"
    paths = sorted(Path(directory).glob(f"samples/{folder}/trio/*.mid"))
    _check_found(paths, directory, f"samples/{folder}/trio/*.mid")
    if split != "train":
        paths = paths[: len(paths) // 2] if split == "valid" else paths[len(paths) // 2 :]
    return [_midi_piece(p) for p in paths]


def jsb_chorales(directory: str | Path, split: str) -> list[Piece]:
    """J. S. Bach's chorales on a sixteenth grid, 229 / 76 / 77 pieces; held notes are one note."""
    _check_split(split)
    path = Path(directory) / "Jsb16thSeparated.json"
    _check_found(path.exists(), directory, path.name)
    chorales = json.loads(path.read_text())[split]
    load = functools.partial(grid_to_notes, step_s=_SIXTEENTH_S)
    return [
        Piece(f"jsb-{split}-{i}", functools.partial(load, grid)) for i, grid in enumerate(chorales)
    ]


def grid_to_notes(grid, step_s: float) -> np.ndarray:
    """Notes of a `[steps, voices]` table of MIDI pitches (-1 = rest); equal neighbours are held."""
    columns = []
    for voice in np.asarray(grid, float).T:
        starts = np.flatnonzero(np.diff(voice, prepend=np.nan) != 0)
        ends = np.append(starts[1:], len(voice))
        sounding = voice[starts] > 0
        columns.append(np.stack([starts, ends, voice[starts]])[:, sounding])
    starts, ends, pitches = np.concatenate(columns, axis=1)
    notes = make_notes(starts * step_s, ends * step_s, pitches.astype(int), 80)
    return notes[np.lexsort((notes["pitch"], notes["onset"]))]


def _midi_piece(path: Path) -> Piece:
    return Piece(path.stem, functools.partial(load_midi, path))


def _check_split(split: str) -> None:
    if split not in SPLITS:
        raise ValueError(f"split {split!r}: expected one of {', '.join(SPLITS)}")


def _check_found(found, directory: str | Path, expected: str) -> None:
    if not found:
        raise FileNotFoundError(f"{directory}: no {expected} there; give the corpus's own folder")
