"""Peak picking: from frame-wise network outputs to hits.

Letters in shapes: T frames, K classes of the network, G groups of the level that is read.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import scipy.ndimage

from drums.labels import LOWEST, MAX_VELOCITY
from drums.vocabularies import CLASSES, FULL, Level, get_level
from musax.notes import empty_notes, make_notes, sort_notes

NOTE_SECONDS = 0.05  # drums do not end; the reference writes this
REFERENCE_THRESHOLD = 0.5
REFRACTORY_SECONDS = 0.03
_MAX_LOG_NONE = -1e-9

#: Where the pitches of a map are not those of the classes.
PITCH_MAPS: Mapping[str, Mapping[int, int]] = {
    "gm": {48: 50, 45: 47},  # General MIDI's high and middle tom
    "roland": {50: 48, 47: 45},  # the pads Tom1 and Tom2
}


class Frames(NamedTuple):
    """Outputs of a network, float32 [T, K] each: onset probability, velocity 0 to 1, offset."""

    onsets: np.ndarray
    velocities: np.ndarray
    offsets: np.ndarray

    @classmethod
    def join(cls, parts: Sequence["Frames"]) -> "Frames":
        """Concatenate parts in time."""
        return cls(*(np.concatenate(columns) for columns in zip(*parts)))

    def between(self, start: int, end: int | None = None) -> "Frames":
        """Return the frames from `start` up to, but without, `end`."""
        return Frames(*(x[start:end] for x in self))


@dataclasses.dataclass(frozen=True)
class PickingConfig:
    """Parameters of the peak picking.

    Attributes:
      thresholds: onset probability of each group of a level, by level; 0.5 for others.
      refractory_seconds: least distance between hits of a group.
      velocity_knots: raw velocities, ascending, and
      velocity_values: calibrated ones (both 0 to 1), by class; linear in between.
    """

    thresholds: Mapping[str, Sequence[float]] = dataclasses.field(default_factory=dict)
    refractory_seconds: float = REFRACTORY_SECONDS
    velocity_knots: Sequence[Sequence[float]] = ()
    velocity_values: Sequence[Sequence[float]] = ()

    def threshold(self, level: str) -> np.ndarray:
        """Return the thresholds of a level's groups, float64 [G]."""
        groups = get_level(level).size
        return np.broadcast_to(np.asarray(self.thresholds.get(level, 0.5), float), (groups,))

    def calibrate(self, velocities: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """Map raw velocities [N] of hits of the given classes [N] to the scale of the data."""
        result = velocities.astype(np.float64)
        for k, (knots, values) in enumerate(zip(self.velocity_knots, self.velocity_values)):
            mine = classes == k
            result[mine] = np.interp(velocities[mine], knots, values)
        return result


def group_probabilities(onsets: np.ndarray, level: Level) -> np.ndarray:
    """Return P(any member has an onset), [T, K] -> [T, G], for independent members."""
    if level.name == FULL:
        return onsets
    none = np.log1p(-np.minimum(onsets.astype(np.float64), 1 - 1e-7)) @ level.members
    return -np.expm1(np.minimum(none, _MAX_LOG_NONE))


def local_maxima(values: np.ndarray, radius: int) -> np.ndarray:
    """Return bool [T, G]: maxima within `radius` frames to each side; of equal ones the first."""
    highest = scipy.ndimage.maximum_filter1d(values, 2 * radius + 1, axis=0, mode="constant")
    peak = values == highest
    # A plateau is one peak: drop those with an equal value up to `radius` frames before.
    for step in range(1, min(radius, len(values) - 1) + 1):
        peak[step:] &= values[step:] != values[:-step]
    return peak


class Picker:
    """Find hits in frames that arrive in blocks; block boundaries do not affect the result.

    Args:
      config: thresholds and the like.
      model_level: the classes of the network, K.
      level: the groups that are distinguished, G; coarser than the network's only if that is "18".
      frames_per_second: Hz.
      threshold: of all groups, in place of the configuration's.
      pitch_map: "gm", "roland", or None for the pitches of the level.

    Raises:
      ValueError: an unknown level or map, or a level that the network does not support.
    """

    def __init__(
        self,
        config: PickingConfig,
        model_level: str,
        level: str,
        frames_per_second: float,
        threshold: float | None = None,
        pitch_map: str | None = None,
    ):
        if model_level not in (FULL, level):
            raise ValueError(
                f"level {level!r}: this model distinguishes the classes of {model_level!r} alone"
            )
        if pitch_map is not None and pitch_map not in PITCH_MAPS:
            raise ValueError(f"pitch map {pitch_map!r} is not one of {', '.join(PITCH_MAPS)}")
        self._config, self._level, self._rate = config, get_level(level), frames_per_second
        # A network without finer classes has one member a group.
        same = model_level == level
        self._members = np.eye(self._level.size) if same else self._level.members
        self._merged = not same
        self._threshold = config.threshold(level) if threshold is None else threshold
        self._pitches = self._level.pitches
        if pitch_map is not None:
            table = PITCH_MAPS[pitch_map]
            self._pitches = np.array([table.get(int(p), int(p)) for p in self._pitches])
        self._radius = max(1, round(config.refractory_seconds * frames_per_second))
        self._held: Frames | None = None
        self._start = 0  # number of the first held frame
        self._done = 0  # frames before this one are decided

    @property
    def delay_frames(self) -> int:
        """Number of frames after a hit that are needed to detect it."""
        return self._radius

    @property
    def names(self) -> dict[int, str]:
        """The name of the drum that each pitch of the hits stands for."""
        return dict(zip(self._pitches.tolist(), self._level.names))

    def push(self, frames: Frames) -> np.ndarray:
        """Return the hits that the new frames make final, NOTE_DTYPE, by onset."""
        self._held = frames if self._held is None else Frames.join([self._held, frames])
        return self._settle(self._start + len(self._held.onsets) - self._radius)

    def flush(self) -> np.ndarray:
        """Return the hits in the last frames."""
        if self._held is None:
            return empty_notes()
        return self._settle(self._start + len(self._held.onsets))

    def _settle(self, end: int) -> np.ndarray:
        if self._held is None or end <= self._done:
            return empty_notes()
        held, first = self._held, self._done - self._start
        merged = group_probabilities(held.onsets, self._level) if self._merged else held.onsets
        peaks = local_maxima(merged, self._radius) & (merged > self._threshold)
        frame, group = np.nonzero(peaks[first : end - self._start])
        notes = self._notes(held, frame + first, group)
        # Two radii: a frame that is decided next looks one back, as did those it is compared with.
        keep = max(self._start, end - 2 * self._radius)
        self._held, self._start, self._done = held.between(keep - self._start), keep, end
        return notes

    def _notes(self, held: Frames, frame: np.ndarray, group: np.ndarray) -> np.ndarray:
        """Return notes of groups [N] in frames [N]; the likeliest member sets time and velocity."""
        likely = held.onsets[frame] * self._members.T[group]
        member = likely.argmax(axis=1) if len(frame) else np.zeros(0, np.int64)
        onset = (frame + self._start + held.offsets[frame, member]) / self._rate
        loud = self._config.calibrate(held.velocities[frame, member], member)
        velocity = np.clip(np.rint(loud * MAX_VELOCITY), 1, MAX_VELOCITY).astype(int)
        onset = np.maximum(onset, 0.0)
        notes = make_notes(onset, onset + NOTE_SECONDS, self._pitches[group], velocity, 0, np.True_)
        return sort_notes(notes)


def pick(frames: Frames, picker: Picker) -> np.ndarray:
    """Return the hits of a whole recording, NOTE_DTYPE, by onset."""
    return sort_notes(np.concatenate([picker.push(frames), picker.flush()]))


def reference_notes(
    probabilities: np.ndarray, velocities: np.ndarray, frames_per_second: float
) -> np.ndarray:
    """Return OaF Drums' notes: each cell above 0.5 is a note of 50 ms, without peak picking.

    Args:
      probabilities, velocities: [T, 88], pitches 21 to 108.
      frames_per_second: Hz.

    Returns:
      NOTE_DTYPE, by onset. Velocities are ⌊127 v⌋, but never the 0 that MIDI reads as an end.
    """
    frame, column = np.nonzero(probabilities > REFERENCE_THRESHOLD)
    loud = np.clip(velocities[frame, column], 0.0, 1.0) * MAX_VELOCITY
    onset = frame / frames_per_second
    velocity = np.maximum(loud.astype(int), 1)
    return make_notes(onset, onset + NOTE_SECONDS, column + LOWEST, velocity, 0, np.True_)


def oaf_frames(probabilities: np.ndarray, velocities: np.ndarray) -> Frames:
    """Return OaF Drums' rolls [T, 88] as frames of the 18 classes: the likeliest pitch of each."""
    columns = [[p - LOWEST for p in drum.pitches] for drum in CLASSES]
    best = [probabilities[:, c].argmax(axis=1) for c in columns]
    rows = np.arange(len(probabilities))
    picked = [np.asarray(c)[b] for c, b in zip(columns, best)]
    onsets = np.stack([probabilities[rows, p] for p in picked], axis=1)
    loud = np.stack([velocities[rows, p] for p in picked], axis=1)
    return Frames(onsets, np.clip(loud, 0.0, 1.0), np.zeros_like(onsets))
