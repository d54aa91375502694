"""Tune thresholds and velocity curves on validation data.

Letters in shapes: T frames, K classes, G groups of a level.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from drums.picking import Frames, Picker, PickingConfig, group_probabilities, local_maxima, pick
from drums.vocabularies import CLASSES, FULL, LEVELS, get_level, map_notes, pitch_table
from musax.metrics.transcription import match_notes

CANDIDATES = np.round(np.arange(0.06, 0.92, 0.02), 2)
KNOTS = 9
_MIN_HITS = 30  # of a class, to tune it

Record = tuple[Frames, np.ndarray]  # the network's outputs, and the true notes


def tune(
    records: Sequence[Record],
    model_level: str,
    frames_per_second: float,
    config: PickingConfig | None = None,
) -> PickingConfig:
    """Return the configuration with the best thresholds at every level, and calibrated velocities.

    Args:
      records: of validation data.
      model_level: the classes of the network.
      frames_per_second: Hz.
      config: the refractory time.
    """
    config = config or PickingConfig()
    levels = LEVELS if model_level == FULL else (model_level,)
    thresholds = {
        level: tuple(
            tune_thresholds(records, model_level, level, frames_per_second, config).tolist()
        )
        for level in levels
    }
    tuned = dataclasses.replace(
        config, thresholds=thresholds, velocity_knots=(), velocity_values=()
    )
    knots, values = velocity_curves(records, model_level, frames_per_second, tuned)
    return dataclasses.replace(tuned, velocity_knots=knots, velocity_values=values)


def tune_thresholds(
    records: Sequence[Record],
    model_level: str,
    level: str,
    frames_per_second: float,
    config: PickingConfig,
) -> np.ndarray:
    """Return the threshold of each group [G] with the highest pooled F1.

    Groups that are hardly ever struck get the median of the others.
    """
    groups = get_level(level)
    counts = np.zeros((3, len(CANDIDATES), groups.size))  # hits, true, estimated
    lowest = float(CANDIDATES[0])
    for frames, notes in records:
        picker = Picker(config, model_level, level, frames_per_second, threshold=lowest)
        found = pick(frames, picker)
        sure = _certainty(found, frames, model_level, level, frames_per_second, config)
        truth = map_notes(notes, level)
        for i, threshold in enumerate(CANDIDATES):
            counts[:, i] += _counts(truth, found[sure > threshold], groups.pitches)
    hits, true, estimated = counts
    f1 = 2 * hits / np.maximum(true + estimated, 1)
    # Near the best the curve is flat and noisy: take the middle of what is within 0.2 % of it.
    near = f1 >= f1.max(axis=0) - 0.002
    best = np.array([np.median(CANDIDATES[near[:, g]]) for g in range(groups.size)])
    known = true[0] >= _MIN_HITS
    typical = np.median(best[known]) if known.any() else 0.5
    return np.round(np.where(known, best, typical), 3)


def _certainty(notes, frames: Frames, model_level, level, frames_per_second, config) -> np.ndarray:
    """Return the probability [N] of each picked note: that of the peak nearest to its onset."""
    groups = get_level(level)
    merged = group_probabilities(frames.onsets, groups) if model_level == FULL else frames.onsets
    radius = max(1, round(config.refractory_seconds * frames_per_second))
    peaks = np.where(local_maxima(merged, radius), merged, 0.0)
    group = np.searchsorted(np.sort(groups.pitches), notes["pitch"])
    group = np.argsort(groups.pitches)[group]
    near = np.rint(notes["onset"] * frames_per_second).astype(int)
    around = np.clip(near[:, None] + np.arange(-2, 3), 0, len(merged) - 1)
    return peaks[around, group[:, None]].max(axis=1, initial=0.0)


def _counts(truth: np.ndarray, found: np.ndarray, pitches: np.ndarray) -> np.ndarray:
    """Count hits, true and estimated notes of each group, [3, G]."""
    pairs = match_notes(truth, found, offset_ratio=None)
    return np.array(
        [
            [(x == pitch).sum() for pitch in pitches]
            for x in (truth["pitch"][pairs[:, 0]], truth["pitch"], found["pitch"])
        ]
    )


def velocity_curves(
    records: Sequence[Record],
    model_level: str,
    frames_per_second: float,
    config: PickingConfig,
) -> tuple[tuple[tuple[float, ...], ...], tuple[tuple[float, ...], ...]]:
    """Return, for each class, knots of raw velocities and the mean true velocities near them.

    Trained on squared errors, a network's velocities lean towards their mean where it is unsure;
    so do these curves, but no class stays too loud or too soft. They never fall.
    """
    pairs = [_velocity_pairs(*r, model_level, frames_per_second, config) for r in records]
    pitch, raw, true = (np.concatenate(x) for x in zip(*pairs))
    table = pitch_table(model_level)
    classes = len(CLASSES) if model_level == FULL else get_level(model_level).size
    everything = _curve(raw, true)
    curves = []
    for k in range(classes):
        mine = table[pitch] == k
        curves.append(_curve(raw[mine], true[mine]) if mine.sum() >= _MIN_HITS else everything)
    knots, values = zip(*curves)
    return knots, values


def _velocity_pairs(frames, notes, model_level, frames_per_second, config):
    """Return pitches, raw and true velocities (0 to 1) of the hits that are found."""
    found = pick(frames, Picker(config, model_level, model_level, frames_per_second))
    truth = map_notes(notes, model_level)
    pairs = match_notes(truth, found, offset_ratio=None)
    truth, found = truth[pairs[:, 0]], found[pairs[:, 1]]
    return truth["pitch"], found["velocity"] / 127, truth["velocity"] / 127


def _curve(raw: np.ndarray, true: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return (knots, values): means over equal shares of the hits, monotonic, from 0 to 1."""
    if len(raw) < _MIN_HITS:
        return (0.0, 1.0), (0.0, 1.0)
    order = np.argsort(raw)
    shares = np.array_split(order, min(KNOTS, len(raw) // 8))
    knots = np.array([raw[share].mean() for share in shares])
    values = np.maximum.accumulate([true[share].mean() for share in shares])
    knots, first = np.unique(np.round(knots, 4), return_index=True)
    values = np.round(values[first], 4)
    return tuple(knots.tolist()), tuple(values.tolist())
