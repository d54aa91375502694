"""Augmentation of drum performances: tempo, dynamics, and other instruments.

Nearly eight of ten notes in Groove are kick, snare and hi-hat. A transcriber also has to know toms,
bells, claps and cowbells, so the variations add rare instruments.
"""

import numpy as np

from musax.notes import empty_notes, make_notes, sort_notes

_CLOSED_HATS, _SNARES, _KICKS = (42, 22), (38, 40), (36, 35)
_TOMS = (50, 48, 47, 45, 58, 43)
#: Replacements of the closed hi-hat, with weights.
_TIMEKEEPERS = {51: 3, 59: 1, 53: 4, 49: 2, 57: 1, 55: 1, 46: 4, 26: 1, 44: 1, 54: 2, 56: 2, 70: 1}
#: Replacements of the snare.
_BACKBEATS = {37: 4, 39: 3, 40: 2, 48: 1, 43: 1, 75: 1}
#: Percussion that may be added to the beat.
_PERCUSSION = {39: 2, 54: 2, 56: 2, 64: 1, 70: 1, 75: 3, 37: 1}
_RANDOM_PADS = (
    *(36, 36, 38, 38, 40, 37, 37, 39, 42, 42, 22, 46, 46, 26, 44, 48, 50, 45, 47, 43, 58),
    *(49, 57, 55, 52, 51, 51, 59, 53, 53, 54, 56, 64, 70, 75),
)
_HIT_SECONDS = 0.1
_NEAREST_SECONDS = 0.012


def cut_drums(notes: np.ndarray, start: float, seconds: float) -> np.ndarray:
    """Return notes with onsets in [start, start + seconds), times from its start."""
    inside = (notes["onset"] >= start) & (notes["onset"] < start + seconds)
    cut = notes[inside].copy()
    cut["onset"] -= start
    cut["offset"] = np.clip(cut["offset"] - start, cut["onset"], seconds)
    return cut


def vary_drums(notes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return another performance of the same beat; may be empty if `notes` is.

    Stretches time by 0.8 to 1.25 and changes velocities; sometimes leaves notes out, gives the part
    of the hi-hat or the snare to something else, adds percussion or a fill on the toms.
    """
    if not len(notes):
        return notes.copy()
    notes = notes.copy()
    stretch = np.exp(rng.uniform(np.log(0.8), np.log(1.25)))
    notes["onset"] *= stretch
    notes["offset"] *= stretch
    if rng.random() < 0.25:
        notes = notes[rng.random(len(notes)) < rng.uniform(0.4, 1.0)]
    if rng.random() < 0.4:
        notes = _replace(notes, _CLOSED_HATS, _TIMEKEEPERS, rng)
    if rng.random() < 0.3:
        notes = _replace(notes, _SNARES, _BACKBEATS, rng)
    if rng.random() < 0.25:
        notes = _add_percussion(notes, rng)
    for _ in range(rng.choice(3, p=(0.6, 0.25, 0.15))):
        notes = _add_fill(notes, rng)
    notes["velocity"] = vary_velocities(notes["velocity"], rng)
    return drop_doubles(sort_notes(notes))


def vary_velocities(velocity: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Shift, spread and jitter velocities, int [N] in 1..127."""
    if not len(velocity):
        return velocity
    mean = velocity.mean()
    varied = mean + rng.uniform(0.6, 1.4) * (velocity - mean) + rng.uniform(-25, 12)
    varied = varied + rng.normal(0, rng.uniform(0, 8), len(velocity))
    return np.clip(np.round(varied), 1, 127).astype(velocity.dtype)


def random_hits(rng: np.random.Generator, seconds: float) -> np.ndarray:
    """Return hits without a beat: 3 to 9 pads, each on its own grid points or at random times."""
    pads = rng.choice(_RANDOM_PADS, rng.integers(3, 10))
    step = rng.uniform(0.08, 0.3)
    grid = np.arange(rng.uniform(0, 0.5), seconds, step)
    parts = [empty_notes()]
    for pad in np.unique(pads):
        if rng.random() < 0.7:
            onset = grid[rng.random(len(grid)) < rng.uniform(0.05, 0.4)]
            onset = np.abs(onset + rng.normal(0, 0.008, len(onset)))
        else:
            onset = rng.uniform(0, seconds, rng.poisson(seconds * rng.uniform(0.2, 1.5)))
        velocity = rng.normal(rng.uniform(40, 110), rng.uniform(5, 30), len(onset))
        parts.append(_hits(onset, pad, velocity))
    notes = sort_notes(np.concatenate(parts))
    return drop_doubles(notes[notes["onset"] < seconds])


def drop_doubles(notes: np.ndarray) -> np.ndarray:
    """Drop notes that strike a pad within 12 ms of the one before (sorted by onset)."""
    order = np.lexsort((notes["onset"], notes["pitch"]))
    pitch, onset = notes["pitch"][order], notes["onset"][order]
    double = np.zeros(len(notes), bool)
    double[order[1:]] = (pitch[1:] == pitch[:-1]) & (np.diff(onset) < _NEAREST_SECONDS)
    return notes[~double]


def _hits(onset, pitch, velocity) -> np.ndarray:
    onset = np.maximum(0.0, np.asarray(onset, float))
    velocity = np.clip(np.round(velocity), 1, 127).astype(int)
    return make_notes(onset, onset + _HIT_SECONDS, pitch, velocity, 0, True)


def _draw(weights: dict[int, int], rng: np.random.Generator) -> int:
    chances = np.array(list(weights.values()), float)
    return int(rng.choice(list(weights), p=chances / chances.sum()))


def _replace(notes, pitches, weights, rng: np.random.Generator) -> np.ndarray:
    """Move some or all hits on `pitches` to another instrument."""
    notes = notes.copy()
    share = 1.0 if rng.random() < 0.6 else rng.uniform(0.1, 0.7)
    mine = np.isin(notes["pitch"], pitches) & (rng.random(len(notes)) < share)
    notes["pitch"][mine] = _draw(weights, rng)
    return notes


def _add_percussion(notes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add hits that coincide with others (clap with snare, tambourine with hi-hat)."""
    source = (_SNARES, _CLOSED_HATS, _KICKS, tuple(np.unique(notes["pitch"])))[rng.integers(4)]
    chosen = notes[np.isin(notes["pitch"], source)]
    chosen = chosen[rng.random(len(chosen)) < rng.uniform(0.2, 1.0)]
    onset = chosen["onset"] + rng.normal(0, 0.006, len(chosen))
    velocity = rng.normal(rng.uniform(50, 105), 12, len(chosen))
    return np.concatenate([notes, _hits(onset, _draw(_PERCUSSION, rng), velocity)])


def _add_fill(notes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Replace all but the kick by a run down the toms, mostly ended by a crash."""
    if not len(notes):
        return notes
    count, step = int(rng.integers(3, 17)), rng.uniform(0.08, 0.22)
    start = rng.uniform(0, max(0.1, float(notes["onset"].max())))
    onset = start + step * np.arange(count)
    end = start + step * count
    # Downwards, each drum a few times, some drums left out.
    drums = np.asarray(_TOMS)[np.sort(rng.integers(len(_TOMS), size=count))]
    if rng.random() < 0.3:
        drums = rng.permutation(drums)
    played = rng.random(count) < rng.uniform(0.7, 1.0)
    velocity = rng.normal(rng.uniform(70, 110), 14, count)
    fill = _hits(onset + rng.normal(0, 0.007, count), drums, velocity)[played]
    replaced = (notes["onset"] >= start - 0.03) & (notes["onset"] < end - 0.03)
    kept = notes[~replaced | np.isin(notes["pitch"], _KICKS)]
    parts = [kept, fill]
    if rng.random() < 0.6:
        crash = rng.choice((49, 57, 55, 52))
        parts.append(_hits([end], crash, rng.normal(105, 12, 1)))
    return np.concatenate(parts)
