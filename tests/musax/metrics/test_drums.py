import mir_eval
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from musax.metrics import drums as m
from musax.notes import make_notes


def hits(onset, pitch=36, velocity=100):
    onset = np.asarray(onset, float)
    return make_notes(onset, onset + 0.05, pitch, velocity, 0, True)


REF = hits([0.1, 0.2, 0.5, 0.9], [36, 38, 36, 42], [100, 60, 80, 20])
EST = hits([0.11, 0.19, 0.6, 0.9], [36, 38, 36, 42], [90, 66, 80, 50])


def test_onsets_by_hand():
    assert m.onset_scores(REF, EST) == pytest.approx((0.75, 0.75, 0.75))
    assert m.onset_scores(REF, hits([0.1])).recall == 0.25
    assert m.onset_scores(REF, EST[:0]) == (0, 0, 0)


@given(
    st.lists(
        st.tuples(st.integers(0, 40), st.sampled_from([36, 38]), st.integers(1, 127)),
        min_size=1,
        max_size=15,
    ),
    st.lists(
        st.tuples(st.integers(0, 40), st.sampled_from([36, 38]), st.integers(1, 127)),
        min_size=1,
        max_size=15,
    ),
)
def test_equals_mir_eval(ref, est):
    sides = [hits(*np.array(rows).T * np.array([[0.03], [1], [1]])) for rows in (ref, est)]
    interval, hz, velocity = (
        [f(x) for x in sides]
        for f in (
            lambda x: np.stack([x["onset"], x["offset"]], axis=1),
            lambda x: mir_eval.util.midi_to_hz(x["pitch"]),
            lambda x: x["velocity"],
        )
    )
    onset = mir_eval.transcription.precision_recall_f1_overlap(
        interval[0], hz[0], interval[1], hz[1], offset_ratio=None
    )[:3]
    assert m.onset_scores(*sides) == pytest.approx(onset)
    fitted = mir_eval.transcription_velocity.precision_recall_f1_overlap(
        interval[0], hz[0], velocity[0], interval[1], hz[1], velocity[1], offset_ratio=None
    )[:3]
    assert m.velocity_scores(*sides) == pytest.approx(fitted)


def test_velocities_as_they_are():
    # |100 - 90| and |60 - 66| are near, |20 - 50| is not.
    assert m.velocity_scores(REF, EST, fitted=False).recall == 0.5
    # A line through them helps whoever is wrong by a factor.
    half = EST.copy()
    half["velocity"] = REF["velocity"] // 2
    assert m.velocity_scores(REF, half, fitted=False).recall < 0.5
    assert m.velocity_scores(REF, half).recall == 0.75


def test_evaluation_of_a_set():
    silent = (hits([]), hits([0.3]))
    scores = m.evaluate([(REF, EST), (hits([1.0]), hits([1.0])), silent], {36: "kick", 42: "hat"})
    assert scores["onset F1 macro"] == pytest.approx((0.75 + 1.0) / 2)
    assert scores["onset F1 micro"] == pytest.approx(2 * 4 / (5 + 6))
    assert scores["timing MAE"] == pytest.approx((0.01 + 0.01 + 0 + 0) / 4)
    assert scores["timing bias"] == pytest.approx(0.0, abs=1e-9)
    assert scores["velocity MAE"] == pytest.approx((10 + 6 + 30 + 0) / 4)
    assert 0 < scores["velocity correlation"] < 1
    assert scores["kick: hits"] == 3
    assert scores["kick: onset F1"] == pytest.approx(2 * 2 / (3 + 4))
    assert scores["hat: velocity MAE"] == 30
    with pytest.raises(ValueError, match="no record has true hits"):
        m.evaluate([silent])


def test_constant_velocities_correlate_with_nothing():
    flat = EST.copy()
    flat["velocity"] = 80
    assert m.evaluate([(REF, flat)])["velocity correlation"] == 0.0


def test_onsets_of_anything():
    assert m.merge_onsets(np.array([0.1, 0.0, 0.02, 0.031, 0.2])).tolist() == [0.0, 0.031, 0.1, 0.2]
    together = hits([0.1, 0.11, 0.5], [36, 42, 38])
    one = hits([0.105, 0.5])
    assert m.any_onset_scores(together, one) == (1, 1, 1)
    assert m.any_onset_scores(together, one, merge=False).recall == pytest.approx(2 / 3)


def test_bad_notes_name_their_side():
    bad = REF.copy()
    bad["velocity"][1] = 0
    with pytest.raises(ValueError, match="estimated notes: note 1"):
        m.onset_scores(REF, bad)
