import numpy as np
import pytest

from drums.labels import class_targets
from drums.picking import Frames, Picker, PickingConfig, pick
from drums.tuning import tune
from drums.vocabularies import LEVELS, map_notes
from musax.metrics.drums import onset_scores
from musax.notes import make_notes

RATE = 100.0


def record(seed):
    """Kicks heard at probability 0.4 to 0.6 with too low velocities, snares at 0.8, among noise."""
    rng = np.random.default_rng(seed)
    onset = np.arange(40) * 0.25 + 0.2
    pitch = np.where(np.arange(40) % 2, 38, 36)
    velocity = rng.integers(20, 120, 40)
    notes = make_notes(onset, onset + 0.05, pitch, velocity, 0, True)
    targets = class_targets(notes, "18", RATE, 1050)
    sure = np.full(18, 0.8, np.float32)
    sure[0] = 0.5
    noise = rng.random(targets.onsets.shape, np.float32) * np.where(np.arange(18) == 0, 0.25, 0.6)
    onsets = np.maximum(targets.onsets * sure, noise.astype(np.float32))
    velocities = 0.5 * targets.velocities + 0.1
    return Frames(onsets, velocities.astype(np.float32), targets.offsets), notes


@pytest.fixture(scope="module")
def tuned():
    return tune([record(seed) for seed in range(3)], "18", RATE)


def test_thresholds_separate_hits_from_noise(tuned):
    assert set(tuned.thresholds) == set(LEVELS)
    kick, snare = tuned.thresholds["18"][:2]
    assert 0.25 < kick < 0.5
    assert 0.6 < snare < 0.8
    frames, notes = record(9)
    for level, least in (("18", 0.99), ("3-hit", 0.3)):
        found = pick(frames, Picker(tuned, "18", level, RATE))
        found = found[np.isin(found["pitch"], (36, 38))]
        truth = map_notes(notes, level)
        assert onset_scores(truth, found).f1 > least
    default = pick(frames, Picker(PickingConfig(), "18", "18", RATE))
    assert onset_scores(notes, default[np.isin(default["pitch"], (36, 38))]).f1 < 0.9


def test_velocities_are_put_back_on_their_scale(tuned):
    frames, notes = record(9)
    found = pick(frames, Picker(tuned, "18", "18", RATE))
    kicks, true = found[found["pitch"] == 36], notes[notes["pitch"] == 36]
    assert len(kicks) == len(true)
    assert np.abs(kicks["velocity"] - true["velocity"]).mean() < 4
    for knots, values in zip(tuned.velocity_knots, tuned.velocity_values):
        assert (np.diff(knots) > 0).all()
        assert (np.diff(values) >= 0).all()


def test_of_a_class_that_is_never_struck_nothing_is_claimed(tuned):
    assert tuned.thresholds["18"][17] == pytest.approx(
        np.median(tuned.thresholds["18"][:2]), abs=0.2
    )


def test_nothing_heard():
    quiet = Frames(*(np.zeros((50, 18), np.float32) for _ in range(3)))
    found = tune([(quiet, make_notes([0.1], 0.2, 36, 100, 0, True))], "18", RATE)
    assert found.velocity_knots[0] == (0.0, 1.0)
    assert all(0 < t < 1 for t in found.thresholds["9"])
