"""A folder of recordings with their notes beside them, as takes for training.

The notes of `song.wav` are `song.mid`, `song.csv`, `song.json` (see `musax.notes_io`) or `song.tsv`
(see `musax.datasets.recordings.load_note_table`), in the same folder. Recordings are cut into takes
of some seconds where few notes sound, and whole recordings are held out for validation.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from musax.audio import SAMPLE_RATES, audio_info, load_audio, normalize_peak
from musax.datasets.recordings import AUDIO_SUFFIXES, NOTE_SUFFIXES, load_notes, note_files
from musax.notes import NOTE_FIELDS
from t5x.data.prepared import write_dataset

#: How far from its place a cut may be moved to where fewer notes sound, s.
_REACH_S = 2.0
#: A cut may be on a grid of this, s.
_GRID_S = 0.01
_SHORTEST_TAKE_S = 1.0


@dataclasses.dataclass(frozen=True)
class Pair:
    """A recording and its notes, by path."""

    audio: Path
    notes: Path


def find_pairs(directory: str | Path) -> list[Pair]:
    """Return the recordings of a folder and its folders that have notes beside them, by path.

    Raises:
      FileNotFoundError: no such folder, or no recording with its notes in it.
      ValueError: a recording has notes in two files.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise FileNotFoundError(f"{directory}: no such folder")
    pairs = []
    for path in sorted(directory.rglob("*")):
        if path.suffix.lower() not in AUDIO_SUFFIXES or not path.is_file():
            continue
        found = note_files(path)
        if len(found) > 1:
            names = ", ".join(notes.name for notes in found)
            raise ValueError(f"{path}: notes in several files, {names}; keep one of them")
        pairs += [Pair(path, notes) for notes in found]
    if not pairs:
        raise FileNotFoundError(
            f"{directory}: no recording ({', '.join(AUDIO_SUFFIXES)}) with its notes beside it; "
            f"expected the same name with {', '.join(NOTE_SUFFIXES)}"
        )
    return pairs


def split_pairs(pairs: list[Pair], share: float, seed: int) -> tuple[list[Pair], list[Pair]]:
    """Return those to train on and those held out: a share of the recordings, at least one.

    Raises:
      ValueError: there is one recording alone, or the share is not between 0 and 1.
    """
    if not 0 < share < 1:
        raise ValueError(f"share={share}: expected a part between 0 and 1 to hold out")
    if len(pairs) < 2:
        raise ValueError(
            f"{pairs[0].audio}: one recording alone; two are needed, one of them to validate on"
        )
    count = min(max(round(share * len(pairs)), 1), len(pairs) - 1)
    held_out = set(np.random.default_rng(seed).permutation(len(pairs))[:count].tolist())
    kept = [pair for i, pair in enumerate(pairs) if i not in held_out]
    return kept, [pair for i, pair in enumerate(pairs) if i in held_out]


@dataclasses.dataclass(frozen=True)
class PairTakes:
    """The takes of recording number n, `{"audio": int16 [samples], "sample_rate", <note columns>}`.

    Attributes:
      pairs: recordings and their notes.
      sample_rate: of the takes, Hz.
      seconds: length of a take.
      drums: whether all notes are of drums, which CSV files need not say.
    """

    pairs: tuple[Pair, ...]
    sample_rate: int
    seconds: float
    drums: bool = False

    def __call__(self, number: int) -> Iterator[dict[str, Any]]:
        """Yield the takes of a recording; its peak is that of `musax.audio.normalize_peak`.

        Raises:
          ValueError: bad audio or notes; names the file.
        """
        pair = self.pairs[number]
        audio, _ = load_audio(pair.audio, self.sample_rate)
        notes = load_notes(pair.notes)
        if self.drums:
            notes["is_drum"] = True
        length = len(audio) / self.sample_rate
        audio = np.round(normalize_peak(audio) * 32767).astype(np.int16)
        for begin, end in _cuts(notes, length, self.seconds):
            part = _between(notes, begin, end)
            samples = audio[round(begin * self.sample_rate) : round(end * self.sample_rate)]
            yield {
                "audio": samples,
                "sample_rate": np.int32(self.sample_rate),
                **{name: part[name] for name in NOTE_FIELDS},
            }


def _cuts(notes: np.ndarray, length: float, seconds: float) -> list[tuple[float, float]]:
    """Return [begin, end) of takes of about `seconds`, cut where the fewest notes sound."""
    edges = [0.0]
    while length - edges[-1] > 1.5 * seconds:
        place = edges[-1] + seconds
        reach = min(_REACH_S, seconds / 4)
        times = place + _GRID_S * np.arange(-int(reach / _GRID_S), int(reach / _GRID_S) + 1)
        begun = np.searchsorted(np.sort(notes["onset"]), times, side="left")
        ended = np.searchsorted(np.sort(notes["offset"]), times, side="right")
        sounding = begun - ended
        fewest = times[sounding == sounding.min()]
        edges.append(float(fewest[np.argmin(np.abs(fewest - place))]))
    takes = list(zip(edges, [*edges[1:], length]))
    return [take for take in takes if take[1] - take[0] >= _SHORTEST_TAKE_S]


def _between(notes: np.ndarray, begin: float, end: float) -> np.ndarray:
    """Return the notes that begin in a take, with its times; they end in it at the latest."""
    part = notes[(notes["onset"] >= begin) & (notes["onset"] < end)].copy()
    part["onset"] -= begin
    part["offset"] = np.minimum(part["offset"], end) - begin
    return part


def write_pairs(
    directory: str | Path,
    folder: str | Path,
    *,
    hold_out: float = 0.1,
    seed: int = 0,
    sample_rate: int | None = None,
    seconds: float = 16.0,
    drums: bool = False,
    workers: int = 1,
    progress: Callable[[str, int], Callable[[Iterable], Iterable]] | None = None,
) -> list[dict[str, Any]]:
    """Write the splits "train" and "valid" (of drums "validation"), a shard for each recording.

    Args:
      directory: see `find_pairs`.
      folder: where the shards go.
      hold_out, seed: see `split_pairs`.
      sample_rate: of the takes, Hz; None for that of the shipped models, 16,000 or, of drums,
        44,100.
      seconds, drums: see `PairTakes`.
      workers: processes.
      progress: (what, how many) -> a wrapper of finished shards.

    Returns:
      For each split what `t5x.data.prepared.write_dataset` returns.

    Raises:
      ValueError, OSError: see `find_pairs`, `split_pairs` and `PairTakes`; notes are read before
        anything is written.
    """
    sample_rate = sample_rate or (44100 if drums else 16000)
    low, high = SAMPLE_RATES
    if not low <= sample_rate <= high:
        raise ValueError(f"sample_rate={sample_rate}: expected {low} to {high} Hz")
    if not _SHORTEST_TAKE_S <= seconds <= 600:
        raise ValueError(f"seconds={seconds}: expected {_SHORTEST_TAKE_S:g} to 600")
    names = ("train", "validation" if drums else "valid")
    splits = dict(zip(names, split_pairs(find_pairs(directory), hold_out, seed)))
    for pair in (pair for pairs in splits.values() for pair in pairs):
        _check_pair(pair)
    written = []
    for split, pairs in splits.items():
        takes = PairTakes(tuple(pairs), sample_rate, seconds, drums)
        wrap = progress(f"recordings of {split}", len(pairs)) if progress else iter
        written.append(
            write_dataset(takes, folder, split, len(pairs), workers=workers, progress=wrap)
        )
    return written


def _check_pair(pair: Pair) -> None:
    """Raise ValueError for a recording without notes, or that ends before them."""
    notes, length = load_notes(pair.notes), audio_info(pair.audio).seconds
    if not len(notes):
        raise ValueError(f"{pair.notes}: no notes; a recording without any teaches silence")
    late = float(notes["onset"].max())
    if late > length:
        raise ValueError(
            f"{pair.notes}: a note at {late:.2f} s, and {pair.audio.name} ends at {length:.2f} s: "
            "do they belong together?"
        )
