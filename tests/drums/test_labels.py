import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drums.labels import class_targets, reference_rolls
from drums.picking import Frames, Picker, PickingConfig, pick
from drums.vocabularies import CLASSES, map_notes
from musax.notes import make_notes, sort_notes
from tests.vectors import golden_dir

GOLDEN = np.load(golden_dir("drums") / "labels.npz")
RATES = {"fps86": 44100 / 512, "fps100": 100.0}


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("level", [None, "3-hit", "8-hit"])
def test_rolls_are_the_references(rate, level):
    pitch, start, end, velocity = GOLDEN["notes"].T
    notes = make_notes(start, end, pitch.astype(int), velocity.astype(int), 0, True)
    suffix = f"_{level}" if level else ""
    frames = len(GOLDEN[f"{rate}_onsets"])
    rolls = reference_rolls(notes, RATES[rate], frames, int(GOLDEN["max_velocity"]), level)
    for roll, kind in zip(rolls, ("onsets", "velocities")):
        np.testing.assert_allclose(roll, GOLDEN[f"{rate}_{kind}{suffix}"], atol=1e-7)


# Hits of one class are at least five frames apart, so that peaks cannot merge.
STEPS = st.lists(st.integers(5, 40), min_size=1, max_size=12)


@given(
    st.lists(
        st.tuples(st.integers(0, 17), STEPS), min_size=1, max_size=5, unique_by=lambda x: x[0]
    ),
    st.floats(0, 0.0099),
    st.integers(1, 127),
)
def test_labels_decode_to_the_notes_they_came_from(parts, shift, velocity):
    columns = [(np.cumsum(steps) / 100 + shift, CLASSES[k].pitches[0]) for k, steps in parts]
    onset = np.concatenate([times for times, _ in columns])
    pitch = np.concatenate([[p] * len(times) for times, p in columns])
    velocities = (np.arange(len(onset)) * 37 + velocity) % 127 + 1
    notes = sort_notes(make_notes(onset, onset + 0.05, pitch, velocities, 0, True))
    targets = class_targets(notes, "18", 100.0, int(onset.max() * 100) + 10)
    frames = Frames(targets.onsets, targets.velocities, targets.offsets)
    found = pick(frames, Picker(PickingConfig(), "18", "18", 100.0, threshold=0.6))
    assert len(found) == len(notes)
    key = np.lexsort((found["pitch"], np.round(found["onset"], 4)))
    true = np.lexsort((notes["pitch"], np.round(notes["onset"], 4)))
    np.testing.assert_allclose(found["onset"][key], notes["onset"][true], atol=1e-6)
    np.testing.assert_array_equal(found["pitch"][key], notes["pitch"][true])
    np.testing.assert_array_equal(found["velocity"][key], notes["velocity"][true])


def test_the_loudest_of_a_cell_counts_and_neighbours_never_hide_a_hit():
    notes = make_notes([0.1, 0.101, 0.11], 0.2, [36, 35, 36], [50, 90, 70], 0, True)
    targets = class_targets(notes, "9", 100.0, 20, neighbour=0.5)
    assert targets.onsets[9:13, 0].tolist() == [0.5, 1.0, 1.0, 0.5]
    np.testing.assert_allclose(targets.velocities[10:12, 0] * 127, [90, 70], rtol=1e-6)
    np.testing.assert_allclose(targets.offsets[10, 0], 0.1, atol=1e-5)
    assert targets.onsets[:, 1:].sum() == 0


def test_notes_outside_are_left_out():
    notes = make_notes([-0.5, 5.0], 6.0, 36, 100, 0, True)
    assert class_targets(notes, "9", 100.0, 20).weights.sum() == 0
    assert map_notes(notes, "9")["pitch"].tolist() == [36, 36]
