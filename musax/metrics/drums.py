"""Agreement of estimated drum hits with the true ones, velocities included.

Conventions
-----------
Hits are NOTE_DTYPE arrays (`musax.notes`) whose pitches are classes already (map both sides to the
same level first). A hit agrees with one of the same class within 50 ms; each is paired at most once
(`musax.metrics.transcription.match_notes`). Scores are reported twice: averaged over records
("macro", as OaF Drums does; records without true hits do not count) and from the pooled counts of
all records ("micro", as most of the literature does). They differ.

Velocities are judged three ways. "velocity" is mir_eval's note-with-velocity: a straight line is
first fitted from the estimated velocities of a record to the true ones, and 0.1 of their range is
the tolerance. That is kind to constant velocities where the true ones vary little, so "absolute
velocity" asks for |Δ| < 12.7 of 127 as the velocities stand, and the mean error and the correlation
of the paired hits are reported as well.

Source: Callender et al., "Improving Perceptual Quality of Drum Transcription with the Expanded
Groove MIDI Dataset" (2020); Raffel et al., "mir_eval" (2014).
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from mir_eval import onset as onsets_metric

from musax.metrics.transcription import (
    ONSET_TOLERANCE,
    VELOCITY_TOLERANCE,
    Scores,
    countable,
    match_notes,
    match_velocities,
    validate,
)

MAX_VELOCITY = 127
#: Onsets of any class that are nearer than this are one, s.
SAME_ONSET = 0.03


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A record's hits beside the true ones.

    Attributes:
      ref, est: NOTE_DTYPE arrays.
      pairs: int [M, 2], indices of hits that agree in class and time.
    """

    ref: np.ndarray
    est: np.ndarray
    pairs: np.ndarray

    @classmethod
    def of(cls, ref: np.ndarray, est: np.ndarray, tolerance: float = ONSET_TOLERANCE):
        """Pair the hits of a record.

        Raises:
          ValueError: either side is not an array of valid notes.
        """
        validate(ref, est)
        ref, est = countable(ref), countable(est)
        pairs = match_notes(ref, est, onset_tolerance=tolerance, offset_ratio=None)
        return cls(ref, est, pairs)

    def only(self, pitch: int) -> "Comparison":
        """Return the hits of one class."""
        ref, est = self.ref["pitch"] == pitch, self.est["pitch"] == pitch
        places = np.cumsum(ref) - 1, np.cumsum(est) - 1
        kept = self.pairs[ref[self.pairs[:, 0]]]
        pairs = np.stack([places[i][kept[:, i]] for i in (0, 1)], axis=1)
        return Comparison(self.ref[ref], self.est[est], pairs)

    @property
    def velocity_pairs(self) -> np.ndarray:
        """Pairs whose velocities agree after the fit of mir_eval."""
        return match_velocities(self.ref, self.est, self.pairs)

    @property
    def absolute_velocity_pairs(self) -> np.ndarray:
        """Pairs whose velocities agree as they are."""
        ref, est = (notes["velocity"][self.pairs[:, i]] for i, notes in self._sides)
        return self.pairs[np.abs(ref - est) < VELOCITY_TOLERANCE * MAX_VELOCITY]

    @property
    def _sides(self):
        return (0, self.ref), (1, self.est)

    def differences(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return, by pair: onset difference (s, estimated - true), true and estimated velocity."""
        (_, ref), (_, est) = ((i, notes[self.pairs[:, i]]) for i, notes in self._sides)
        return est["onset"] - ref["onset"], ref["velocity"], est["velocity"]


_KINDS = {
    "onset": lambda c: c.pairs,
    "velocity": lambda c: c.velocity_pairs,
    "absolute velocity": lambda c: c.absolute_velocity_pairs,
}


def onset_scores(ref: np.ndarray, est: np.ndarray) -> Scores:
    """Return scores of class and onset of a record's hits."""
    return _scores(Comparison.of(ref, est), "onset")


def velocity_scores(ref: np.ndarray, est: np.ndarray, *, fitted: bool = True) -> Scores:
    """Return scores of class, onset and velocity; `fitted` as mir_eval, otherwise as they are."""
    return _scores(Comparison.of(ref, est), "velocity" if fitted else "absolute velocity")


def _scores(comparison: Comparison, kind: str) -> Scores:
    hits = len(_KINDS[kind](comparison))
    return Scores.of_counts(hits, len(comparison.ref), len(comparison.est))


def any_onset_scores(ref: np.ndarray, est: np.ndarray, *, merge: bool = True) -> Scores:
    """Return scores of onsets of any class, as `mir_eval.onset` counts them (50 ms).

    Args:
      merge: hits that begin within 30 ms of the first of them are one onset, on both sides;
        otherwise every hit is one, so that drums struck together have to be found each.
    """
    validate(ref, est)
    within = SAME_ONSET if merge else 0.0
    sides = (merge_onsets(notes["onset"], within) for notes in (ref, est))
    f1, precision, recall = onsets_metric.f_measure(*sides, window=ONSET_TOLERANCE)
    return Scores(precision, recall, f1)


def merge_onsets(onsets: np.ndarray, within: float = SAME_ONSET) -> np.ndarray:
    """Return ascending onsets without those that follow a kept one by less than `within` s."""
    kept: list[float] = []
    for onset in np.sort(onsets).tolist():
        if not kept or onset - kept[-1] >= within:
            kept.append(onset)
    return np.asarray(kept, float)


# --------------------------------------------------------------------------------------- evaluate


def evaluate(
    records: Iterable[tuple[np.ndarray, np.ndarray]], classes: Mapping[int, str] | None = None
) -> dict[str, float]:
    """Return all scores of a set of records.

    Args:
      records: (true, estimated) hits of each, classes as pitches.
      classes: names of the classes that get scores of their own, by pitch.

    Returns:
      For "onset", "velocity" and "absolute velocity": "<kind> <precision|recall|F1> <macro|micro>";
      "timing MAE" and "timing bias" in s, "velocity MAE" in MIDI units and "velocity correlation"
      over all pairs; "any onset F1 <macro|micro>"; and for each class "<name>: onset F1" and
      "<name>: velocity MAE" (micro), and "<name>: hits" (true ones).

    Raises:
      ValueError: no record has true hits.
    """
    comparisons = [Comparison.of(ref, est) for ref, est in records]
    counted = [c for c in comparisons if len(c.ref)]
    if not counted:
        raise ValueError("no record has true hits, so there is nothing to score")
    result: dict[str, float] = {}
    for kind in _KINDS:
        macro = np.mean([_scores(c, kind) for c in counted], axis=0)
        micro = _micro(comparisons, kind)
        for name, average in (("macro", macro), ("micro", micro)):
            for part, value in zip(("precision", "recall", "F1"), average):
                result[f"{kind} {part} {name}"] = float(value)
    result["any onset F1 macro"] = float(
        np.mean([any_onset_scores(c.ref, c.est).f1 for c in counted])
    )
    result |= _errors(comparisons)
    for pitch, name in (classes or {}).items():
        result |= _class_scores([c.only(pitch) for c in comparisons], name)
    return result


def _micro(comparisons: Sequence[Comparison], kind: str) -> Scores:
    hits = sum(len(_KINDS[kind](c)) for c in comparisons)
    counts = (sum(len(getattr(c, side)) for c in comparisons) for side in ("ref", "est"))
    return Scores.of_counts(hits, *counts)


def _errors(comparisons: Sequence[Comparison]) -> dict[str, float]:
    late, ref, est = (np.concatenate(x) for x in zip(*(c.differences() for c in comparisons)))
    varied = len(ref) > 1 and ref.std() > 0 and est.std() > 0
    return {
        "timing MAE": float(np.abs(late).mean()) if len(late) else float("nan"),
        "timing bias": float(late.mean()) if len(late) else float("nan"),
        "velocity MAE": float(np.abs(est - ref).mean()) if len(late) else float("nan"),
        "velocity correlation": float(np.corrcoef(ref, est)[0, 1]) if varied else 0.0,
    }


def _class_scores(comparisons: Sequence[Comparison], name: str) -> dict[str, float]:
    return {
        f"{name}: hits": float(sum(len(c.ref) for c in comparisons)),
        f"{name}: onset F1": _micro(comparisons, "onset").f1,
        f"{name}: velocity MAE": _errors(comparisons)["velocity MAE"],
    }
