"""Statistics of generated pieces beside those of a corpus, and shares of copied music.

Conventions
-----------
Pieces are `musax.notes` arrays; no function changes them. Times are in seconds, pitches in
semitones. Drums count in measures of times and velocities, not of pitches or copies. A measure
of one piece that has too few notes is NaN, and pieces with NaN are left out of means.

A number says little alone: report that of held-out pieces of the corpus beside that of samples.

* Measures of a piece (`MEASURES`, `evaluate`): in-key share (Mogren 2016, "C-RNN-GAN", scale
  consistency), pitch-class entropy (Wu & Yang 2020, "The Jazz Transformer"), duration entropy,
  note density and polyphony.
* Distances of the distributions of features (`FEATURES`, `compare`), as Yang & Lerch 2020, "On the
  evaluation of generative models in music", section 4.
* Copies (`copy_rate`, `longest_copies`): n-grams of notes that occur in training pieces, compared
  as one of `VIEWS`.

Letters in shapes: N notes, M values, B bins.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from musax.metrics import sequences
from musax.notes import validate_notes

Pieces = Sequence[np.ndarray]

#: The major scale of C, by pitch class.
_MAJOR = np.array([1, 0, 1, 0, 1, 1, 0, 1, 0, 1, 0, 1])

#: Lengths, in notes, of the n-grams whose copies `evaluate` counts.
COPY_LENGTHS = (8, 16, 32)


def validate(pieces: Pieces, what: str = "pieces") -> None:
    """Raise ValueError unless all pieces are valid note arrays, and one has notes."""
    for i, notes in enumerate(pieces):
        validate_notes(notes, f"{what}[{i}]")
    if not any(len(notes) for notes in pieces):
        raise ValueError(f"{len(pieces)} {what} without notes: expected notes in one at least")


# ---------------------------------------------------------------------------- measures of a piece


def in_key_share(notes: np.ndarray) -> float:
    """Return the share of notes in the major scale that fits a piece best, 0 to 1.

    Natural minor scales have the notes of a major one.
    """
    counts = _pitch_classes(notes)
    if not counts.sum():
        return float("nan")
    scales = np.array([np.roll(_MAJOR, key) for key in range(12)])
    return float((scales @ counts).max() / counts.sum())


def pitch_class_entropy(notes: np.ndarray) -> float:
    """Return the entropy of the pitch classes of a piece, in bits, 0 to 3.585 (log2 12)."""
    return _entropy_bits(_pitch_classes(notes))


def duration_entropy(notes: np.ndarray) -> float:
    """Return the entropy of the durations of a piece, in bits, 0 to 5.

    Durations are counted in the 32 bins of equal ratios of `FEATURES["duration"]`.
    """
    return _entropy_bits(FEATURES["duration"].counts(notes))


def note_density(notes: np.ndarray) -> float:
    """Return notes per second, from the first onset to the last offset."""
    seconds = notes["offset"].max(initial=-np.inf) - notes["onset"].min(initial=np.inf)
    return float(len(notes) / seconds) if seconds > 0 else float("nan")


def mean_polyphony(notes: np.ndarray) -> float:
    """Return the mean number of notes that sound at an onset."""
    return float(polyphony(notes).mean()) if len(notes) else float("nan")


def _pitch_classes(notes: np.ndarray) -> np.ndarray:
    """Return the number of pitched notes of each class, int64 [12]."""
    return np.bincount(notes["pitch"][~notes["is_drum"]] % 12, minlength=12)


def _entropy_bits(counts: np.ndarray) -> float:
    if not counts.sum():
        return float("nan")
    share = counts[counts > 0] / counts.sum()
    return float(-np.sum(share * np.log2(share))) + 0.0


#: Name with unit -> measure of a piece.
MEASURES: Mapping[str, Callable[[np.ndarray], float]] = {
    "in-key share": in_key_share,
    "pitch-class entropy, bits": pitch_class_entropy,
    "duration entropy, bits": duration_entropy,
    "notes per second": note_density,
    "notes at once": mean_polyphony,
}


def evaluate(pieces: Pieces, training: Pieces | None = None) -> dict[str, float]:
    """Return all measures of pieces, in the order of `MEASURES`, and their copies of training ones.

    Args:
      pieces: generated, or held out.
      training: the model's training pieces; None leaves the copies out.

    Returns:
      The mean of each measure over pieces; then, for each of `COPY_LENGTHS`, "copied N-grams", the
      `copy_rate` of transposed n-grams of N notes, and "longest copy, notes", the median of
      `longest_copies`. NaN where no piece has enough notes.

    Raises:
      ValueError: an array is no valid note array, or no piece has notes.
    """
    validate(pieces)
    found = {name: _mean([measure(p) for p in pieces]) for name, measure in MEASURES.items()}
    if training is not None:
        for length in COPY_LENGTHS:
            found[f"copied {length}-grams"] = copy_rate(pieces, training, length)
        found["longest copy, notes"] = float(np.median(longest_copies(pieces, training)))
    return found


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")


# --------------------------------------------------------------------------- features and distances


def durations(notes: np.ndarray) -> np.ndarray:
    """Return float64 [N], s."""
    return notes["offset"] - notes["onset"]


def onset_intervals(notes: np.ndarray) -> np.ndarray:
    """Return the times from each onset to the next later one, float64 [M], s."""
    return np.diff(np.unique(notes["onset"]))


def polyphony(notes: np.ndarray) -> np.ndarray:
    """Return the notes that sound at each distinct onset, new ones included, int64 [M]."""
    onsets, offsets = np.sort(notes["onset"]), np.sort(notes["offset"])
    at = np.unique(onsets)
    begun = np.searchsorted(onsets, at, side="right")
    return begun - np.searchsorted(offsets, at, side="right")


def notes_per_second(notes: np.ndarray) -> np.ndarray:
    """Return the number of onsets in each whole second from the first onset on, int64 [M]."""
    if not len(notes):
        return np.zeros(0, np.int64)
    return np.bincount((notes["onset"] - notes["onset"].min()).astype(np.int64))


@dataclasses.dataclass(frozen=True)
class Feature:
    """A property of pieces that has many values in each.

    Attributes:
      values: function of a piece, to [M].
      edges: [B + 1], of its histogram; values beyond are counted in the outer bins.
      unit: of the values.
      circular: the values have no order, so Wasserstein distances are undefined.
    """

    values: Callable[[np.ndarray], np.ndarray]
    edges: np.ndarray
    unit: str
    circular: bool = False

    def pooled(self, pieces: Pieces) -> np.ndarray:
        """Return the values of all pieces, float64 [M].

        Raises:
          ValueError: they have no values.
        """
        values = np.concatenate([np.zeros(0), *(self.values(notes) for notes in pieces)])
        if not values.size:
            raise ValueError(
                f"{len(pieces)} pieces have too few notes to compare: expected longer ones"
            )
        return values

    def counts(self, notes: np.ndarray) -> np.ndarray:
        """Return the number of values of a piece in each bin, int64 [B]."""
        return self._histogram(self.values(notes))

    def histogram(self, pieces: Pieces) -> np.ndarray:
        """Return the number of values of all pieces in each bin, int64 [B]; see `pooled`."""
        return self._histogram(self.pooled(pieces))

    def _histogram(self, values: np.ndarray) -> np.ndarray:
        return np.histogram(np.clip(values, self.edges[0], self.edges[-1]), self.edges)[0]


def _whole(low: int, high: int) -> np.ndarray:
    """Return edges of bins of one whole number each."""
    return np.arange(low, high + 2) - 0.5


def _pitches(notes: np.ndarray) -> np.ndarray:
    return notes["pitch"][~notes["is_drum"]]


#: Name -> feature. Times have bins of equal ratios.
FEATURES: Mapping[str, Feature] = {
    "pitch": Feature(_pitches, _whole(0, 127), "semitones"),
    "pitch class": Feature(lambda notes: _pitches(notes) % 12, _whole(0, 11), "", circular=True),
    "duration": Feature(durations, np.geomspace(0.02, 8, 33), "s"),
    "onset interval": Feature(onset_intervals, np.geomspace(0.01, 4, 33), "s"),
    "polyphony": Feature(polyphony, _whole(0, 15), "notes"),
    "velocity": Feature(lambda notes: notes["velocity"], np.arange(0, 129, 4) - 0.5, "of 127"),
    "notes per second": Feature(notes_per_second, _whole(0, 40), "notes"),
}


@dataclasses.dataclass(frozen=True)
class Distance:
    """Distance between two sets of pieces in one feature.

    Attributes:
      overlap: area that both histograms cover; 1 if they are equal.
      kl: Kullback-Leibler divergence in nats, of the second histogram from the first, half a count
        added to each bin. 0 if they are equal.
      wasserstein: mean distance by which values have to be moved, in their unit; NaN for a circular
        feature.
    """

    overlap: float
    kl: float
    wasserstein: float


def compare(pieces: Pieces, reference: Pieces) -> dict[str, Distance]:
    """Return the distances of pieces from reference pieces, by `FEATURES`; all notes count alike.

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
    """Return the divergence of unnormalised q from unnormalised p, nats."""
    p, q = p / p.sum(), q / q.sum()
    return float(np.sum(p * np.log(p / q)))


# ----------------------------------------------------------------------------------------- copies

#: What n-grams of notes must share to be copies: pitches and times, rounded to `INTERVAL_STEP`
#: ("exact"); the same but for a transposition; or pitches alone, but for a transposition.
VIEWS = ("exact", "transposed", "pitches")

#: Times between onsets are compared in multiples of this, s.
INTERVAL_STEP = 0.05

#: Onsets are first rounded as event codes round them, s: sampled and read pieces become alike.
_RESOLUTION = 0.01


def copy_rate(pieces: Pieces, training: Pieces, length: int, view: str = "transposed") -> float:
    """Return the share of the n-grams of notes that occur in training pieces, 0 to 1.

    Notes are ordered by onset and pitch, so a chord is its notes upwards.

    Args:
      pieces: samples, or held-out pieces.
      training: the training pieces.
      length: notes, 2 or more.
      view: one of `VIEWS`.

    Returns:
      NaN if no piece has `length` notes.

    Raises:
      ValueError: an unknown view, or a length below 2.
    """
    if length < 2:
        raise ValueError(f"length={length}: expected 2 notes or more")
    ours, known = ([_steps(notes, view) for notes in part] for part in (pieces, training))
    return sequences.copied_share(ours, known, length - 1)


def longest_copies(pieces: Pieces, training: Pieces, view: str = "transposed") -> list[int]:
    """Return the notes of the longest n-gram of each piece that occurs in a training piece.

    Args:
      pieces, training, view: see `copy_rate`.

    Raises:
      ValueError: an unknown view.
    """
    ours, known = ([_steps(notes, view) for notes in part] for part in (pieces, training))
    longest = sequences.longest_copies(ours, known)
    return [steps + 1 if steps else 0 for steps in longest]


def _steps(notes: np.ndarray, view: str) -> np.ndarray:
    """Return a number for each step from a note to the next, int64 [N - 1]; drums are left out."""
    if view not in VIEWS:
        raise ValueError(f"view={view!r}: expected one of {', '.join(VIEWS)}")
    notes = notes[~notes["is_drum"]]
    onset = np.rint((notes["onset"] - notes["onset"].min(initial=np.inf)) / _RESOLUTION)
    order = np.lexsort((notes["pitch"], onset))
    pitch = notes["pitch"][order].astype(np.int64)
    interval = np.rint(np.diff(onset[order]) * (_RESOLUTION / INTERVAL_STEP)).astype(np.int64)
    change = np.diff(pitch) + 128
    return {
        "exact": (interval * 128 + pitch[:-1]) * 256 + change,
        "transposed": interval * 256 + change,
        "pitches": change,
    }[view]
