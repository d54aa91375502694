import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drums.picking import (
    Frames,
    Picker,
    PickingConfig,
    group_probabilities,
    local_maxima,
    pick,
    reference_notes,
)
from drums.vocabularies import get_level


def random_frames(length, seed):
    rng = np.random.default_rng(seed)
    onsets = np.round(rng.random((length, 18)), 1).astype(np.float32)  # with plateaus
    offsets = rng.uniform(-0.5, 0.5, (length, 18)).astype(np.float32)
    return Frames(onsets, rng.random((length, 18), np.float32), offsets)


@given(st.integers(1, 80), st.integers(0, 5), st.lists(st.integers(1, 30), max_size=6))
def test_pieces_make_no_difference(length, seed, sizes):
    frames = random_frames(length, seed)
    config = PickingConfig(thresholds={"9": (0.6,) * 9})
    whole = pick(frames, Picker(config, "18", "9", 100.0))
    picker, parts, start = Picker(config, "18", "9", 100.0), [], 0
    for size in [*sizes, length]:
        parts.append(picker.push(frames.between(start, start + size)))
        start += size
    found = np.concatenate([*parts, picker.flush()])
    found = found[np.lexsort((found["pitch"], found["onset"]))]
    np.testing.assert_array_equal(found, whole[np.lexsort((whole["pitch"], whole["onset"]))])


@given(st.integers(0, 20), st.integers(1, 4))
def test_hits_keep_their_distance(seed, radius):
    values = random_frames(60, seed).onsets
    frame, group = np.nonzero(local_maxima(values, radius))
    for g in range(18):
        assert (np.diff(frame[group == g]) > radius).all()


def test_a_plateau_is_one_hit_and_the_first_of_it():
    values = np.zeros((9, 1))
    values[3:6] = 0.8
    assert np.flatnonzero(local_maxima(values, 1) & (values > 0)).tolist() == [3]


def test_groups_join_unsure_members():
    onsets = np.zeros((5, 18), np.float32)
    nine = get_level("9")
    closed, pedal = 7, 8
    onsets[2, closed], onsets[2, pedal] = 0.4, 0.35
    merged = group_probabilities(onsets, nine)
    assert merged[2, 5] == pytest.approx(1 - 0.6 * 0.65, abs=1e-6)
    frames = Frames(onsets, np.full((5, 18), 0.5, np.float32), np.zeros((5, 18), np.float32))
    notes = pick(frames, Picker(PickingConfig(), "18", "9", 100.0))
    assert notes["pitch"].tolist() == [42]
    assert not len(pick(frames, Picker(PickingConfig(), "18", "18", 100.0)))


def test_times_velocities_and_pitches():
    onsets, velocities, offsets = (np.zeros((10, 18), np.float32) for _ in range(3))
    onsets[4, 4], velocities[4, 4], offsets[4, 4] = 0.9, 0.25, -0.25  # high tom
    onsets[8, 0], velocities[8, 0] = 0.9, 0.0
    frames = Frames(onsets, velocities, offsets)
    notes = pick(frames, Picker(PickingConfig(), "18", "18", 100.0))
    np.testing.assert_allclose(notes["onset"], [0.0375, 0.08])
    assert notes["velocity"].tolist() == [32, 1]  # 0 would end a note in MIDI
    assert notes["pitch"].tolist() == [48, 36]
    assert notes["is_drum"].all()
    gm = pick(frames, Picker(PickingConfig(), "18", "18", 100.0, pitch_map="gm"))
    assert gm["pitch"].tolist() == [50, 36]
    roland = pick(frames, Picker(PickingConfig(), "18", "9", 100.0, pitch_map="roland"))
    assert roland["pitch"].tolist() == [48, 36]


def test_thresholds_and_velocity_curves_of_the_configuration():
    onsets = np.zeros((9, 18), np.float32)
    onsets[4, 0], onsets[4, 1] = 0.3, 0.3
    frames = Frames(onsets, np.full_like(onsets, 0.5), np.zeros_like(onsets))
    knots, values = ((0.0, 1.0),) * 18, ((0.0, 0.5),) * 18
    config = PickingConfig({"5": (0.2, 0.4, 0.4, 0.4, 0.4)}, 0.03, knots, values)
    notes = pick(frames, Picker(config, "18", "5", 100.0))
    assert notes["pitch"].tolist() == [36]
    assert notes["velocity"].tolist() == [32]
    assert len(pick(frames, Picker(config, "18", "5", 100.0, threshold=0.25))) == 2


def test_the_reference_takes_every_cell_above_one_half():
    probabilities, velocities = np.zeros((2, 20, 88))
    probabilities[3:5, 15] = 0.51, 0.7
    probabilities[8, 17] = 0.5  # not above
    velocities[3, 15], velocities[4, 15] = -0.2, 1.7
    notes = reference_notes(probabilities, velocities, 100.0)
    assert notes["pitch"].tolist() == [36, 36]
    np.testing.assert_allclose(notes["onset"], [0.03, 0.04])
    np.testing.assert_allclose(notes["offset"] - notes["onset"], 0.05)
    assert notes["velocity"].tolist() == [1, 127]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("9", "18"), "'18': this model distinguishes the classes of '9'"),
        (("18", "7"), "no drum classes called '7'"),
        (("18", "9", 100.0, None, "akai"), "'akai' is not one of gm, roland"),
    ],
)
def test_wrong_requests(arguments, message):
    model, level, *rest = arguments
    rest = rest or [100.0]
    with pytest.raises(ValueError, match=message):
        Picker(PickingConfig(), model, level, *rest)


def test_names_follow_the_pitches():
    by_level = Picker(PickingConfig(), "18", "9", 100.0).names
    assert [by_level[p] for p in (36, 50, 47, 46)] == ["kick", "high tom", "mid tom", "open hi-hat"]
    roland = Picker(PickingConfig(), "18", "9", 100.0, pitch_map="roland").names
    assert (roland[48], roland[45]) == ("high tom", "mid tom")
