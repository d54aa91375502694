"""Agreement of estimated notes with reference notes, by the protocol of MT3.

Source: Gardner et al., "MT3: Multi-Task Multitrack Music Transcription" (2022), and its code.

Conventions
-----------
Notes are NOTE_DTYPE arrays (`musax.notes`); no function changes them. A matching pairs each note at
most once; its size over the number of estimated notes is the precision, over the number of
reference notes the recall. Without estimated or without reference notes all scores are 0. Notes
without duration are not counted (as in `note_seq.sequences_lib.sequence_to_valued_intervals`).

* Onset: same pitch, onsets within 50 ms.
* Onset + offset: also offsets within the larger of 20 % of the reference duration and 50 ms.
* + velocity: also velocities within 0.1, where the reference is scaled to [0, 1] and the estimate
  fitted to it by least squares (`mir_eval.transcription_velocity`).
* Frame: piano rolls of 62.5 frames per second; see `frame_scores`.
* + program: per instrument, then weighted by the instruments' numbers of notes.

The matching is mir_eval's, note for note; only its search is sparse, so that a recital of tens of
thousands of notes needs neither minutes nor gigabytes.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from mir_eval import util

from musax.events import spec as events
from musax.events.spec import GRANULARITIES
from musax.notes import validate_notes

ONSET_TOLERANCE = 0.05  # s
OFFSET_RATIO = 0.2
OFFSET_MIN_TOLERANCE = 0.05  # s
VELOCITY_TOLERANCE = 0.1
FRAMES_PER_SECOND = 62.5
MIN_FRAME_NOTE = 0.05  # s
FRAME_VELOCITY_THRESHOLD = 30
TOLERANCES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)  # s

_DECIMALS = 4  # mir_eval compares distances rounded to 0.1 ms
#: Candidates of one pitch; more take gigabytes.
_MOST_PAIRS = 5_000_000


class Scores(NamedTuple):
    """Precision, recall and their harmonic mean, each in [0, 1]."""

    precision: float
    recall: float
    f1: float

    @classmethod
    def of(cls, precision: float, recall: float) -> "Scores":
        return cls(precision, recall, util.f_measure(precision, recall))

    @classmethod
    def of_counts(cls, hits: float, ref: float, est: float) -> "Scores":
        """Return scores from matched, reference and estimated counts; 0 where a count is 0."""
        return cls.of(hits / est if est else 0.0, hits / ref if ref else 0.0)


def validate(ref: np.ndarray, est: np.ndarray) -> None:
    """Raise ValueError, naming the side and the note, unless both are valid notes."""
    validate_notes(ref, "reference notes")
    validate_notes(est, "estimated notes")


def countable(notes: np.ndarray) -> np.ndarray:
    """Return the notes that have a duration."""
    return notes[notes["onset"] != notes["offset"]]


def without_drums(notes: np.ndarray) -> np.ndarray:
    return notes[~notes["is_drum"]]


# -------------------------------------------------------------------------------------- matching


def match_notes(
    ref: np.ndarray,
    est: np.ndarray,
    *,
    onset_tolerance: float = ONSET_TOLERANCE,
    offset_ratio: float | None = OFFSET_RATIO,
    offset_min_tolerance: float = OFFSET_MIN_TOLERANCE,
) -> np.ndarray:
    """Return a largest pairing of notes, the same as `mir_eval.transcription.match_notes`.

    Args:
      onset_tolerance, offset_min_tolerance: s.
      offset_ratio: of the reference duration; None does not look at offsets.

    Returns:
      int [M, 2], ascending: indices into `ref` and `est`.
    """
    ref_hit, est_hit = _near_onsets(ref, est, onset_tolerance)
    if offset_ratio is not None:
        distance = np.abs(ref["offset"][ref_hit] - est["offset"][est_hit])
        duration = ref["offset"][ref_hit] - ref["onset"][ref_hit]
        tolerance = np.maximum(offset_ratio * duration, offset_min_tolerance)
        close = np.around(distance, _DECIMALS) <= tolerance
        ref_hit, est_hit = ref_hit[close], est_hit[close]
    candidates: dict[int, list[int]] = {}
    for r, e in zip(ref_hit.tolist(), est_hit.tolist()):
        candidates.setdefault(e, []).append(r)
    pairs = sorted(util._bipartite_match(candidates).items())
    return np.asarray(pairs, np.int64).reshape(-1, 2)


def _near_onsets(ref: np.ndarray, est: np.ndarray, tolerance: float):
    """Return index pairs of notes of one pitch whose onsets are near, ordered by (ref, est)."""
    ref_hits, est_hits = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for pitch in np.intersect1d(ref["pitch"], est["pitch"]):
        rows = np.flatnonzero(ref["pitch"] == pitch)
        columns = np.flatnonzero(est["pitch"] == pitch)
        columns = columns[np.argsort(est["onset"][columns], kind="stable")]
        onsets, reach = est["onset"][columns], tolerance + 10.0**-_DECIMALS
        first = np.searchsorted(onsets, ref["onset"][rows] - reach)
        last = np.searchsorted(onsets, ref["onset"][rows] + reach, side="right")
        counts = last - first
        if counts.sum() > _MOST_PAIRS:
            raise ValueError(
                f"{counts.sum():,} pairs of notes of pitch {pitch} begin within {tolerance:g} s of "
                f"each other, {_MOST_PAIRS:,} can be compared: are notes repeated in a file?"
            )
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        ref_hits.append(np.repeat(rows, counts))
        est_hits.append(columns[np.repeat(first, counts) + within])
    ref_hit, est_hit = np.concatenate(ref_hits), np.concatenate(est_hits)
    distance = np.abs(ref["onset"][ref_hit] - est["onset"][est_hit])
    close = np.around(distance, _DECIMALS) <= tolerance
    ref_hit, est_hit = ref_hit[close], est_hit[close]
    order = np.lexsort((est_hit, ref_hit))
    return ref_hit[order], est_hit[order]


def match_velocities(ref: np.ndarray, est: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Return those of the matched `pairs` [M, 2] whose velocities agree.

    As `mir_eval.transcription_velocity`: reference velocities are scaled to [0, 1] over all of
    `ref`, a line maps the matched estimates onto them, and 0.1 is the tolerance. An estimate of
    constant velocity therefore scores whatever lies near the mean.
    """
    if not len(pairs):
        return pairs
    low, high = ref["velocity"].min(), ref["velocity"].max()
    target = (ref["velocity"][pairs[:, 0]] - low) / float(max(1, high - low))
    estimate = est["velocity"][pairs[:, 1]]
    design = np.vstack([estimate, np.ones(len(estimate))]).T
    slope, intercept = np.linalg.lstsq(design, target, rcond=None)[0]
    return pairs[np.abs(slope * estimate + intercept - target) < VELOCITY_TOLERANCE]


def note_scores(
    ref: np.ndarray, est: np.ndarray, *, velocity: bool = False, **tolerances
) -> Scores:
    """Return scores of the notes as they are given, drums included and programs ignored.

    Args:
      velocity: also ask velocities to agree.
      tolerances: as in `match_notes`; `offset_ratio=None` scores onsets only.
    """
    validate(ref, est)
    ref, est = countable(ref), countable(est)
    pairs = match_notes(ref, est, **tolerances)
    if velocity:
        pairs = match_velocities(ref, est, pairs)
    return Scores.of_counts(len(pairs), len(ref), len(est))


# ------------------------------------------------------------------------------ the single scores


def onset_scores(ref: np.ndarray, est: np.ndarray, *, velocity: bool = False) -> Scores:
    """Return scores of onset and pitch (and velocity) of pitched notes."""
    return note_scores(without_drums(ref), without_drums(est), offset_ratio=None, velocity=velocity)


def onset_offset_scores(ref: np.ndarray, est: np.ndarray, *, velocity: bool = False) -> Scores:
    """Return scores of onset, offset and pitch (and velocity) of pitched notes."""
    return note_scores(without_drums(ref), without_drums(est), velocity=velocity)


def drum_onset_scores(ref: np.ndarray, est: np.ndarray) -> Scores:
    """Return scores of onset and drum key of percussion, whatever the kit."""
    return note_scores(ref[ref["is_drum"]], est[est["is_drum"]], offset_ratio=None)


def lengthen_short_notes(notes: np.ndarray) -> np.ndarray:
    """Return a copy in which notes last at least 50 ms, and drums exactly that."""
    longer = notes.copy()
    short = notes["is_drum"] | (notes["offset"] - notes["onset"] < MIN_FRAME_NOTE)
    longer["offset"][short] = notes["onset"][short] + MIN_FRAME_NOTE
    return longer


def piano_roll(notes: np.ndarray, frames_per_second: float = FRAMES_PER_SECOND) -> np.ndarray:
    """Return summed velocities, int32 [128, frames]: a note fills ⌊onset·fps⌋ to ⌊offset·fps⌋ - 1.

    The cells of `pretty_midi.PrettyMIDI.get_piano_roll` without pedal and bends.
    """
    start = (notes["onset"] * frames_per_second).astype(np.int64)
    end = (notes["offset"] * frames_per_second).astype(np.int64)
    changes = np.zeros((128, int(end.max(initial=0)) + 1), np.int32)
    np.add.at(changes, (notes["pitch"], start), notes["velocity"])
    np.subtract.at(changes, (notes["pitch"], end), notes["velocity"])
    return changes.cumsum(axis=1, dtype=np.int32)[:, :-1]


def frame_scores(
    ref: np.ndarray,
    est: np.ndarray,
    *,
    frames_per_second: float = FRAMES_PER_SECOND,
    velocity_threshold: int = FRAME_VELOCITY_THRESHOLD,
) -> Scores:
    """Return scores of the (pitch, frame) cells that sound, pitched notes only.

    Short notes are lengthened to 50 ms. A reference cell counts if its summed velocity is above
    `velocity_threshold` (30, as Cerberus has it), an estimated one if it is above 0.
    """
    validate(ref, est)
    sides = [lengthen_short_notes(without_drums(notes)) for notes in (ref, est)]
    pitch, frame, ref_change, est_change = _sounding_changes(sides[0], sides[1], frames_per_second)
    # Each pitch ends in silence, so that one running sum serves all.
    ref_on = np.cumsum(ref_change) > velocity_threshold
    est_on = np.cumsum(est_change) > 0
    cells = np.where(np.append(pitch[1:], -1) == pitch, np.append(frame[1:], 0) - frame, 0)
    hits, refs, ests = (int(cells[on].sum()) for on in (ref_on & est_on, ref_on, est_on))
    return Scores.of_counts(hits, refs, ests)


def _sounding_changes(
    ref: np.ndarray, est: np.ndarray, frames_per_second: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return pitch, frame and change of the summed velocity of either side, by pitch and frame.

    The cells of `piano_roll`, in memory that does not grow with the length of the piece.
    """
    columns = []
    for notes, is_ref in ((ref, 1), (est, 0)):
        for time, sign in ((notes["onset"], 1), (notes["offset"], -1)):
            frame = (time * frames_per_second).astype(np.int64)
            change = sign * notes["velocity"].astype(np.int64)
            columns.append((notes["pitch"], frame, change * is_ref, change * (1 - is_ref)))
    pitch, frame, ref_change, est_change = (np.concatenate(parts) for parts in zip(*columns))
    order = np.lexsort((frame, pitch))
    return pitch[order], frame[order], ref_change[order], est_change[order]


# ------------------------------------------------------------------------------------- instruments


def map_programs(notes: np.ndarray, granularity: str) -> np.ndarray:
    """Return a copy with the programs of pitched notes made coarser; drums keep theirs.

    Args:
      granularity: "flat" (all 0), "midi_class" (first program of each family of eight), "full".
    """
    mapped = notes.copy()
    programs = events.map_programs(notes["program"], granularity)
    mapped["program"] = np.where(notes["is_drum"], notes["program"], programs)
    return mapped


def program_scores(
    ref: np.ndarray, est: np.ndarray, granularity: str = "full"
) -> dict[str, Scores]:
    """Return scores of notes whose instrument must agree too.

    Each (program, is_drum) of either side is scored separately: pitched notes by onset and offset,
    drums by onset. Their precisions are averaged with the numbers of estimated notes as weights,
    their recalls with those of the reference.

    Returns:
      {"Onset + offset + program": all, "Drum onset": drums, "Nondrum onset + offset + program": …}
    """
    validate(ref, est)
    ref, est = (countable(map_programs(notes, granularity)) for notes in (ref, est))
    counts = {True: np.zeros(3, np.int64), False: np.zeros(3, np.int64)}  # hits, ref, est
    keys = [notes["is_drum"] * 128 + notes["program"] for notes in (ref, est)]
    for key in np.union1d(*keys):
        part_ref, part_est = ref[keys[0] == key], est[keys[1] == key]
        is_drum = bool(key >= 128)
        pairs = match_notes(part_ref, part_est, offset_ratio=None if is_drum else OFFSET_RATIO)
        counts[is_drum] += (len(pairs), len(part_ref), len(part_est))
    return {
        "Onset + offset + program": Scores.of_counts(*(counts[True] + counts[False]).tolist()),
        "Drum onset": Scores.of_counts(*counts[True].tolist()),
        "Nondrum onset + offset + program": Scores.of_counts(*counts[False].tolist()),
    }


def tolerance_sweep(
    ref: np.ndarray, est: np.ndarray, tolerances: Sequence[float] = TOLERANCES
) -> dict[float, Scores]:
    """Return scores of pitched notes by tolerance (s) of onsets, the least tolerance of offsets."""
    ref, est = without_drums(ref), without_drums(est)
    return {
        tolerance: note_scores(ref, est, onset_tolerance=tolerance, offset_min_tolerance=tolerance)
        for tolerance in tolerances
    }


# --------------------------------------------------------------------------------------- evaluate


def evaluate(ref: np.ndarray, est: np.ndarray) -> dict[str, float]:
    """Return all scores of one track under the names of the reference's metrics, in its order.

    The reference runs its tolerance sweep on pitched notes that its frame metric has already
    lengthened to 50 ms; so does this (on copies). `tolerance_sweep` scores notes as they are.
    """
    scores = {
        "Onset {}": onset_scores(ref, est),
        "Onset + offset {}": onset_offset_scores(ref, est),
        "Onset + velocity {}": onset_scores(ref, est, velocity=True),
        "Onset + offset + velocity {}": onset_offset_scores(ref, est, velocity=True),
    }
    result = _named(scores, ("precision", "recall", "F1"))
    result |= _named({"Frame {}": frame_scores(ref, est)}, ("Precision", "Recall", "F1"))
    for granularity in GRANULARITIES:
        by_name = program_scores(ref, est, granularity)
        named = {f"{name} {{}} ({granularity})": value for name, value in by_name.items()}
        result |= _named(named, ("precision", "recall", "F1"))
    longer_ref, longer_est = (lengthen_short_notes(notes) for notes in (ref, est))
    sweep = tolerance_sweep(longer_ref, longer_est)
    named = {f"Onset + offset {{}} ({tolerance})": value for tolerance, value in sweep.items()}
    return result | _named(named, ("precision", "recall", "F1"))


def _named(scores: Mapping[str, Scores], parts: Sequence[str]) -> dict[str, float]:
    return {
        name.format(part): float(value)
        for name, three in scores.items()
        for part, value in zip(parts, three)
    }


def mean_scores(tracks: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean over tracks of every score that each of them has; {} without tracks."""
    names = [name for name in tracks[0] if all(name in track for track in tracks)] if tracks else []
    return {name: float(np.mean([track[name] for track in tracks])) for name in names}
