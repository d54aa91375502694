"""Training targets from notes.

Letters in shapes: T frames, P pitches, K classes.
"""

from typing import NamedTuple

import numpy as np

from drums.vocabularies import map_rolls, pitch_table

LOWEST, HIGHEST = 21, 108  # MIDI pitches of OaF Drums' rolls
MAX_VELOCITY = 127


def reference_rolls(
    notes: np.ndarray,
    frames_per_second: float,
    num_frames: int,
    max_velocity: int | None = None,
    level: str | None = "8-hit",
) -> tuple[np.ndarray, np.ndarray]:
    """Return OaF Drums' targets: an onset fills exactly the frame ⌊onset · fps⌋.

    Args:
      notes: NOTE_DTYPE [N]; of several in one cell the latest gives the velocity.
      frames_per_second: Hz.
      num_frames: T; later notes are left out.
      max_velocity: the loudest of the record, which becomes 1; None takes that of `notes`.
      level: the mapping of the rolls, or None for none.

    Returns:
      onsets, velocities: float32 [T, 88], pitches 21 to 108.
    """
    notes = notes[np.argsort(notes["onset"], kind="stable")]
    shape = (num_frames, HIGHEST - LOWEST + 1)
    onsets, velocities = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    frame = (notes["onset"] * frames_per_second).astype(np.int64)
    column = notes["pitch"] - LOWEST
    kept = (frame >= 0) & (frame < num_frames) & (column >= 0) & (column < shape[1])
    loudest = max_velocity or int(notes["velocity"].max(initial=1))
    onsets[frame[kept], column[kept]] = 1.0
    velocities[frame[kept], column[kept]] = notes["velocity"][kept] / loudest
    return map_rolls(onsets, velocities, level) if level else (onsets, velocities)


class Targets(NamedTuple):
    """Training targets of this package's own networks, float32 [T, K] each.

    Attributes:
      onsets: 1 in the frame nearest to an onset, less beside it, 0 elsewhere.
      velocities: velocity / 127, in the same cells.
      offsets: onset minus the time of the frame, in frames, in the same cells.
      weights: 1 in the nearest frame, `neighbour` beside it: where velocity and offset count.
    """

    onsets: np.ndarray
    velocities: np.ndarray
    offsets: np.ndarray
    weights: np.ndarray


def class_targets(
    notes: np.ndarray,
    level: str,
    frames_per_second: float,
    num_frames: int,
    neighbour: float = 0.5,
) -> Targets:
    """Return the targets of the classes of a level.

    Args:
      notes: NOTE_DTYPE [N], times from frame 0, whose centre is time 0; of several in one cell
        the loudest counts.
      level: see `drums.vocabularies`.
      frames_per_second: Hz.
      num_frames: T.
      neighbour: target and weight of the frames beside the nearest.
    """
    table = pitch_table(level)
    group = table[notes["pitch"]]
    order = np.argsort(notes["velocity"], kind="stable")
    order = order[group[order] >= 0]
    at = notes["onset"][order] * frames_per_second
    group, velocity = group[order], notes["velocity"][order] / MAX_VELOCITY
    targets = Targets(*(np.zeros((num_frames, table.max() + 1), np.float32) for _ in range(4)))
    nearest = np.rint(at).astype(np.int64)
    # The nearest frames come last, so that no neighbour overwrites them.
    for step, weight in ((-1, neighbour), (1, neighbour), (0, 1.0)):
        frame = nearest + step
        inside = (frame >= 0) & (frame < num_frames)
        cell = frame[inside], group[inside]
        targets.onsets[cell] = targets.weights[cell] = weight
        targets.velocities[cell] = velocity[inside]
        targets.offsets[cell] = (at - frame)[inside]
    return targets
