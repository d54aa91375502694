"""What pieces of music are like, and what of them was there before.

Two sets of pieces, such as samples of a model and the data, are compared by the distributions of
simple features (as Yang & Lerch 2020, "On the evaluation of generative models in music", section
4), and by the runs of notes that they share. A number says little alone: beside that of samples
belongs the same of held-out pieces, which nobody copied.

Pieces are `musax.notes` arrays. Letters in shapes: N notes, M values, B bins.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

import numpy as np

Pieces = Sequence[np.ndarray]


# ------------------------------------------------------------------------------------- features


def durations(notes: np.ndarray) -> np.ndarray:
    """float64 [N], s."""
    return notes["offset"] - notes["onset"]


def onset_intervals(notes: np.ndarray) -> np.ndarray:
    """float64 [M], s between an onset and the next later one; what begins together is one."""
    return np.diff(np.unique(notes["onset"]))


def polyphony(notes: np.ndarray) -> np.ndarray:
    """int64 [M], notes that sound at each onset, those that begin there included."""
    onsets, offsets = np.sort(notes["onset"]), np.sort(notes["offset"])
    at = np.unique(onsets)
    begun = np.searchsorted(onsets, at, side="right")
    return begun - np.searchsorted(offsets, at, side="right")


def notes_per_second(notes: np.ndarray) -> np.ndarray:
    """int64 [M], onsets in each whole second from the first one on."""
    if not len(notes):
        return np.zeros(0, np.int64)
    return np.bincount((notes["onset"] - notes["onset"].min()).astype(np.int64))


@dataclasses.dataclass(frozen=True)
class Feature:
    """A property of pieces.

    Attributes:
      values: notes -> [M].
      edges: [B + 1], of its histogram; values beyond are counted in the outer bins.
      unit: of the values.
      circular: there is no order, so that no distance is moved.
    """

    values: Callable[[np.ndarray], np.ndarray]
    edges: np.ndarray
    unit: str
    circular: bool = False

    def pooled(self, pieces: Pieces) -> np.ndarray:
        """The values of all pieces, float64 [M].

        Raises:
          ValueError: there are none.
        """
        values = np.concatenate([np.zeros(0), *(self.values(notes) for notes in pieces)])
        if not values.size:
            raise ValueError(
                f"{len(pieces)} pieces have too few notes to compare; give longer ones"
            )
        return values

    def histogram(self, pieces: Pieces) -> np.ndarray:
        """Number of values in each bin, int64 [B]."""
        inside = np.clip(self.pooled(pieces), self.edges[0], self.edges[-1])
        return np.histogram(inside, self.edges)[0]


def _whole(low: int, high: int) -> np.ndarray:
    """Edges of bins of one whole number each."""
    return np.arange(low, high + 2) - 0.5


#: Name -> feature. Times have bins of equal ratios.
FEATURES: Mapping[str, Feature] = {
    "pitch": Feature(lambda notes: notes["pitch"], _whole(0, 127), "semitones"),
    "pitch class": Feature(lambda notes: notes["pitch"] % 12, _whole(0, 11), "", circular=True),
    "duration": Feature(durations, np.geomspace(0.02, 8, 33), "s"),
    "onset interval": Feature(onset_intervals, np.geomspace(0.01, 4, 33), "s"),
    "polyphony": Feature(polyphony, _whole(0, 15), "notes"),
    "velocity": Feature(lambda notes: notes["velocity"], np.arange(0, 129, 4) - 0.5, "of 127"),
    "notes per second": Feature(notes_per_second, _whole(0, 40), "notes"),
}


@dataclasses.dataclass(frozen=True)
class Distance:
    """Between two sets of pieces, in one feature.

    Attributes:
      overlap: area that both histograms cover; 1 if they are equal.
      kl: Kullback-Leibler divergence in nats, of the second histogram from the first, each bin
        counted half a time more. 0 if they are equal.
      wasserstein: how far values have to be moved on average, in their unit; NaN without an order.
    """

    overlap: float
    kl: float
    wasserstein: float


def compare(pieces: Pieces, reference: Pieces) -> dict[str, Distance]:
    """Distances of pieces from reference pieces, by `FEATURES`; notes of a set count alike.

    Raises:
      ValueError: a set has no notes.
    """
    from scipy.stats import wasserstein_distance

    found = {}
    for name, feature in FEATURES.items():
        ours, theirs = feature.histogram(pieces), feature.histogram(reference)
        moved = float("nan")
        if not feature.circular:
            moved = float(wasserstein_distance(feature.pooled(pieces), feature.pooled(reference)))
        overlap = float(np.minimum(ours / ours.sum(), theirs / theirs.sum()).sum())
        found[name] = Distance(overlap, _divergence(theirs + 0.5, ours + 0.5), moved)
    return found


def _divergence(p: np.ndarray, q: np.ndarray) -> float:
    """Of unnormalised q from unnormalised p, nats."""
    p, q = p / p.sum(), q / q.sum()
    return float(np.sum(p * np.log(p / q)))


# --------------------------------------------------------------------------------------- copies

#: How two runs of notes may differ and still be the same: by nothing but `INTERVAL_STEP`; by a
#: transposition; or by that and all times.
VIEWS = ("exact", "transposed", "pitches")

#: Times between onsets are compared in multiples of so many seconds.
INTERVAL_STEP = 0.05

#: As events have them; what is sampled and what was read from a file are then rounded alike.
_RESOLUTION = 0.01


def copy_rate(pieces: Pieces, training: Pieces, length: int, view: str = "transposed") -> float:
    """Share of the runs of `length` notes of pieces that occur in training pieces.

    Notes are ordered by onset and pitch; chords so become runs upwards.

    Args:
      pieces: samples, or held-out pieces.
      training: what was trained on.
      length: notes, 2 or more.
      view: of `VIEWS`.

    Returns:
      From 0 to 1; NaN if no piece is so long.

    Raises:
      ValueError: an unknown view, or a length below 2.
    """
    if length < 2:
        raise ValueError(f"length={length}: expected 2 notes or more")
    ours, known = (
        _all_runs([_moves(notes, view) for notes in part], length - 1)
        for part in (pieces, training)
    )
    return float(np.isin(ours, known).mean()) if ours.size else float("nan")


def longest_copies(pieces: Pieces, training: Pieces, view: str = "transposed") -> list[int]:
    """Notes of the longest run of each piece that occurs in a training piece; 0 without any."""
    moves = [_moves(notes, view) for notes in training]

    @functools.cache
    def known(length: int) -> np.ndarray:
        return np.sort(_all_runs(moves, length))

    def occurs(piece: np.ndarray, length: int) -> bool:
        runs, there = _runs(piece, length), known(length)
        at = np.searchsorted(there, runs)
        return bool(np.any(there[np.minimum(at, len(there) - 1)] == runs)) if len(there) else False

    def longest(piece: np.ndarray) -> int:
        low, high = 0, 1  # `low` moves occur, `high` do not
        while occurs(piece, high):
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if occurs(piece, middle) else (low, middle)
        return low + 1 if low else 0

    return [longest(_moves(notes, view)) for notes in pieces]


def _moves(notes: np.ndarray, view: str) -> np.ndarray:
    """A number for each way from a note to the next, uint64 [N - 1]; drums are left out."""
    if view not in VIEWS:
        raise ValueError(f"view={view!r}: expected one of {', '.join(VIEWS)}")
    notes = notes[~notes["is_drum"]]
    onset = np.rint((notes["onset"] - notes["onset"].min(initial=np.inf)) / _RESOLUTION)
    order = np.lexsort((notes["pitch"], onset))
    pitch = notes["pitch"][order].astype(np.int64)
    interval = np.rint(np.diff(onset[order]) * (_RESOLUTION / INTERVAL_STEP)).astype(np.int64)
    change = np.diff(pitch) + 128
    move = {
        "exact": (interval * 128 + pitch[:-1]) * 256 + change,
        "transposed": interval * 256 + change,
        "pitches": change,
    }
    return _mixed(move[view].astype(np.uint64))


def _mixed(x: np.ndarray) -> np.ndarray:
    """Scatters numbers over all uint64 (SplitMix64 of Steele et al. 2014)."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


#: Of the polynomials below; odd, so that it has an inverse.
_BASE = 0xD1342543DE82EF95


def _runs(moves: np.ndarray, length: int) -> np.ndarray:
    """A hash for each run of `length` moves, uint64 [len(moves) - length + 1].

    Polynomials modulo 2^64, all from one running sum, as Karp & Rabin 1987.
    """
    if len(moves) < length:
        return np.zeros(0, np.uint64)
    power, inverse = _powers(_BASE, len(moves)), _powers(pow(_BASE, -1, 1 << 64), len(moves))
    total = np.append(np.uint64(0), np.cumsum(moves * power, dtype=np.uint64))
    return (total[length:] - total[:-length]) * inverse[: len(total) - length]


def _all_runs(moves: Sequence[np.ndarray], length: int) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.uint64), *(_runs(piece, length) for piece in moves)])


def _powers(base: int, count: int) -> np.ndarray:
    """1, base, base^2, ... modulo 2^64."""
    factors = np.full(count, base, np.uint64)
    factors[:1] = 1
    return np.cumprod(factors, dtype=np.uint64)
