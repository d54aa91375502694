"""Transcription scores against the MT3 vectors, mir_eval and pretty_midi."""

import json

import mir_eval
import numpy as np
import pretty_midi
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musax.metrics import transcription as T
from musax.notes import empty_notes, make_notes
from tests.vectors import golden_dir

CASES = json.loads((golden_dir("mt3") / "metrics_cases.json").read_text())
EVENT_COUNTS = {"Invalid events", "Dropped events"}  # counted by the decoder, not here


def golden_notes(rows):
    return make_notes(*zip(*rows)) if rows else empty_notes()


def random_notes(rng, count, programs=(0,), drums=0.0):
    onset = np.round(rng.uniform(0, 6, count), int(rng.integers(1, 5)))
    return make_notes(
        onset,
        onset + rng.choice([0.0, 0.02, 0.05, 0.3, 1.0], count) * rng.choice([1.0, 1.1], count),
        rng.integers(60, 66, count),
        rng.integers(1, 128, count),
        rng.choice(programs, count),
        rng.random(count) < drums,
    )


def estimate_of(rng, ref):
    est = ref[rng.random(len(ref)) < 0.8].copy()
    est["onset"] = np.maximum(0, est["onset"] + rng.choice([0, 0.01, 0.05, -0.05], len(est)))
    est["offset"] = np.maximum(est["onset"], est["offset"] + rng.normal(0, 0.05, len(est)))
    est["velocity"] = np.clip(est["velocity"] + rng.integers(-20, 20, len(est)), 1, 127)
    return np.concatenate([est, random_notes(rng, 5)])


def pairs(count=40, **options):
    for seed in range(count):
        rng = np.random.default_rng(seed)
        ref = random_notes(rng, int(rng.integers(0, 60)), **options)
        yield ref, estimate_of(rng, ref)


def mir_eval_arguments(ref, est, velocity=False):
    for notes in (T.countable(ref), T.countable(est)):
        yield np.stack([notes["onset"], notes["offset"]], axis=1)
        yield pretty_midi.note_number_to_hz(notes["pitch"])
        if velocity:
            yield notes["velocity"]


# ---------------------------------------------------------------------------------- the reference


def test_frames_are_the_cells_of_piano_rolls():
    for ref, est in pairs(30, drums=0.2):
        rolls = [T.piano_roll(T.lengthen_short_notes(T.without_drums(n))) for n in (ref, est)]
        frames = max(roll.shape[1] for roll in rolls)
        ref_on, est_on = (
            np.pad(roll, [(0, 0), (0, frames - roll.shape[1])]) > threshold
            for roll, threshold in zip(rolls, (T.FRAME_VELOCITY_THRESHOLD, 0))
        )
        counts = (ref_on & est_on).sum(), ref_on.sum(), est_on.sum()
        assert T.frame_scores(ref, est) == T.Scores.of_counts(*map(int, counts))


def test_late_and_crowded_notes_take_no_memory():
    late = make_notes([0.0, 1e7], [1.0, 1e7 + 1], 60)
    assert T.evaluate(late, late)["Frame F1"] == 1.0
    crowded = make_notes(np.zeros(50_000), np.ones(50_000), 60)
    with pytest.raises(ValueError, match=r"pairs of notes of pitch 60 begin within 0\.05 s"):
        T.evaluate(crowded, crowded)


@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_the_sweep_does_not_count_drums(case):
    ref, est = golden_notes(case["ref"]), golden_notes(case["est"])
    drums = make_notes([0.1, 1.0, 2.0], [0.11, 1.01, 2.01], [36, 38, 42], 90, 0, True)
    sweep = T.tolerance_sweep(np.concatenate([ref, drums[:2]]), np.concatenate([est, drums]))
    for tolerance, scores in sweep.items():
        for part in ("precision", "recall", "F1"):
            expected = case[f"Onset + offset {part} ({tolerance})"]
            assert getattr(scores, part.lower()) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_equals_the_reference(case):
    ref, est = golden_notes(case["ref"]), golden_notes(case["est"])
    before = ref.copy(), est.copy()
    expected = case["transcription_metrics"]
    scores = T.evaluate(ref, est)
    assert set(scores) == set(expected) - EVENT_COUNTS
    for name, value in scores.items():
        assert value == pytest.approx(expected[name], abs=1e-9), name
    np.testing.assert_array_equal(ref, before[0])
    np.testing.assert_array_equal(est, before[1])


@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_scores_of_untouched_notes_equal_the_reference(case):
    ref, est = golden_notes(case["ref"]), golden_notes(case["est"])
    got = {}
    for granularity in T.GRANULARITIES:
        for name, value in T.program_scores(ref, est, granularity).items():
            got[name, granularity] = value
    for tolerance, value in T.tolerance_sweep(ref, est).items():
        got["Onset + offset", str(tolerance)] = value
    for (name, argument), scores in got.items():
        for part, value in zip(("precision", "recall", "F1"), scores):
            key = f"{name} {part} ({argument})"
            assert value == pytest.approx(case[key], abs=1e-9), key


# --------------------------------------------------------------------------- mir_eval, pretty_midi


@pytest.mark.parametrize("offset_ratio", [None, 0.2, 0.5])
@pytest.mark.parametrize("tolerance", [0.01, 0.05, 0.5])
def test_matching_is_that_of_mir_eval(offset_ratio, tolerance):
    for ref, est in pairs():
        ref, est = T.countable(ref), T.countable(est)
        options = {"onset_tolerance": tolerance, "offset_ratio": offset_ratio}
        ours = T.match_notes(ref, est, offset_min_tolerance=tolerance, **options)
        theirs = mir_eval.transcription.match_notes(
            *mir_eval_arguments(ref, est), offset_min_tolerance=tolerance, **options
        )
        np.testing.assert_array_equal(ours, np.reshape(theirs, (-1, 2)))


@pytest.mark.parametrize("offset_ratio", [None, 0.2])
@pytest.mark.filterwarnings("ignore:.*notes are empty")
def test_velocity_scores_are_those_of_mir_eval(offset_ratio):
    for ref, est in pairs():
        theirs = mir_eval.transcription_velocity.precision_recall_f1_overlap(
            *mir_eval_arguments(ref, est, velocity=True), offset_ratio=offset_ratio
        )
        ours = T.note_scores(ref, est, velocity=True, offset_ratio=offset_ratio)
        np.testing.assert_allclose(ours, theirs[:3], atol=1e-12)


def to_pretty_midi(notes):
    midi = pretty_midi.PrettyMIDI()
    for program in np.unique(notes["program"]):
        track = pretty_midi.Instrument(int(program))
        for n in notes[notes["program"] == program]:
            track.notes.append(
                pretty_midi.Note(int(n["velocity"]), int(n["pitch"]), n["onset"], n["offset"])
            )
        midi.instruments.append(track)
    return midi


@pytest.mark.parametrize("fps", [62.5, 100.0])
def test_piano_roll_is_that_of_pretty_midi(fps):
    for ref, _ in pairs(programs=(0, 5)):
        if len(ref):
            theirs = to_pretty_midi(ref).get_piano_roll(fs=fps)
            ours = T.piano_roll(ref, fps)
            np.testing.assert_array_equal(ours, theirs[:, : ours.shape[1]])
            assert not theirs[:, ours.shape[1] :].any()


def test_frame_scores_by_hand():
    ref = make_notes([0.0, 0.0], [1.6, 1.6], [60, 64], [100, 30])  # the second is too soft to count
    est = make_notes([0.8, 0.0], [2.4, 0.01], [60, 70], [1, 1])  # the second is lengthened to 50 ms
    scores = T.frame_scores(ref, est)
    assert scores.recall == pytest.approx(50 / 100)
    assert scores.precision == pytest.approx(50 / (100 + 3))
    soft = T.frame_scores(ref, est, velocity_threshold=29)
    assert soft.recall == pytest.approx(50 / 200)


def test_overlapping_soft_notes_add_up_in_frames():
    two = make_notes([0.0, 0.0], 1.0, 60, 20, [0, 40])
    assert T.frame_scores(two, two).f1 == 1.0
    assert T.frame_scores(two[:1], two[:1]).f1 == 0.0


# --------------------------------------------------------------------------------------- programs


def test_program_scores_by_hand():
    ref = make_notes([0, 1, 2, 3], [0.5, 1.5, 2.5, 3.5], 60, 100, [0, 1, 40, 0], [0, 0, 0, 1])
    est = make_notes([0, 1, 2, 3], [0.5, 1.5, 2.5, 3.9], 60, 100, [0, 3, 40, 0], [0, 0, 0, 1])
    for granularity, hits in (("flat", 3), ("midi_class", 3), ("full", 2)):
        scores = T.program_scores(ref, est, granularity)
        assert scores["Nondrum onset + offset + program"].recall == pytest.approx(hits / 3)
        assert scores["Drum onset"].f1 == 1.0  # the drum's offset does not matter
        assert scores["Onset + offset + program"].precision == pytest.approx((hits + 1) / 4)
    assert T.drum_onset_scores(ref, est).f1 == 1.0
    assert T.onset_scores(ref, est).f1 == 1.0
    assert T.evaluate(ref, est)["Drum onset F1 (full)"] == 1.0


@given(st.integers(0, 1000), st.sampled_from(T.GRANULARITIES))
@settings(max_examples=30, deadline=None)
def test_program_maps_are_idempotent_and_leave_drums(seed, granularity):
    notes = random_notes(np.random.default_rng(seed), 30, programs=range(128), drums=0.3)
    once = T.map_programs(notes, granularity)
    np.testing.assert_array_equal(T.map_programs(once, granularity), once)
    np.testing.assert_array_equal(once[notes["is_drum"]], notes[notes["is_drum"]])


def test_unknown_granularity():
    with pytest.raises(ValueError, match="midi_class"):
        T.map_programs(empty_notes(), "families")


# ------------------------------------------------------------------------------- properties, edges


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_properties(seed):
    rng = np.random.default_rng(seed)
    ref = random_notes(rng, int(rng.integers(1, 50)), programs=(0, 9, 40), drums=0.2)
    est = estimate_of(rng, ref)
    scores = T.evaluate(ref, est)
    assert all(0 <= value <= 1 for value in scores.values())
    swapped = T.evaluate(est, ref)
    assert swapped["Onset precision"] == scores["Onset recall"]
    shuffled = T.evaluate(ref, est[rng.permutation(len(est))])
    assert shuffled["Onset + offset F1"] == scores["Onset + offset F1"]
    assert scores["Onset + offset F1"] <= scores["Onset F1"] + 1e-12
    assert scores["Onset + offset F1 (0.01)"] <= scores["Onset + offset F1 (0.5)"] + 1e-12
    own = T.evaluate(ref, ref)
    pitched = T.countable(T.without_drums(ref))
    assert own["Onset F1"] == (1.0 if len(pitched) else 0.0)


def test_nothing_to_compare_gives_zeros():
    notes = make_notes([0.0, 1.0], [0.5, 1.5], [60, 62])
    drums = make_notes(0.0, 0.1, 36, is_drum=True)
    for ref, est in [(empty_notes(), notes), (notes, empty_notes()), (empty_notes(),) * 2]:
        assert set(T.evaluate(ref, est).values()) == {0.0}
    assert T.evaluate(drums, drums)["Onset F1"] == 0.0
    assert T.evaluate(drums, drums)["Onset + offset + program F1 (full)"] == 1.0


def test_bad_notes_are_named_by_side():
    good, bad = make_notes(0.0, 1.0, 60), make_notes(0.0, 1.0, 200)
    with pytest.raises(ValueError, match=r"estimated notes.*pitch"):
        T.evaluate(good, bad)
    with pytest.raises(ValueError, match=r"reference notes.*pitch"):
        T.evaluate(bad, good)


def test_mean_over_tracks():
    tracks = [{"a": 0.5, "b": 1.0}, {"a": 1.0}]
    assert T.mean_scores(tracks) == {"a": 0.75}
    assert T.mean_scores([]) == {}
