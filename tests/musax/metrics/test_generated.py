import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musax.metrics import generated
from musax.metrics.generated import VIEWS, compare, copy_rate, evaluate, longest_copies
from musax.notes import empty_notes, make_notes, shift_notes


def piece(seed, count=200, drums=False):
    rng = np.random.default_rng(seed)
    onset = np.cumsum(rng.choice([0.0, 0.2, 0.4, 0.6], count))
    return make_notes(
        onset, onset + 0.35, rng.integers(40, 90, count), rng.integers(1, 128, count), 0, drums
    )


def transposed(notes, semitones):
    notes = notes.copy()
    notes["pitch"] += semitones
    return notes


def stretched(notes, factor):
    notes = notes.copy()
    notes["onset"] *= factor
    notes["offset"] *= factor
    return notes


def test_features_of_a_few_notes():
    notes = make_notes([0.5, 0.5, 1.0, 2.7], [1.0, 1.5, 3.0, 3.0], [60, 64, 72, 61])
    np.testing.assert_allclose(generated.durations(notes), [0.5, 1.0, 2.0, 0.3])
    np.testing.assert_allclose(generated.onset_intervals(notes), [0.5, 1.7])
    np.testing.assert_array_equal(generated.polyphony(notes), [2, 2, 2])
    np.testing.assert_array_equal(generated.notes_per_second(notes), [3, 0, 1])
    counted = {name: f.histogram([notes]) for name, f in generated.FEATURES.items()}
    assert counted["pitch"][[60, 61, 64, 72]].tolist() == [1, 1, 1, 1]
    assert counted["pitch class"][[0, 1, 4]].tolist() == [2, 1, 1]
    for name, feature in generated.FEATURES.items():
        assert counted[name].sum() == len(feature.pooled([notes])), name


def test_distances():
    pieces = [piece(i) for i in range(4)]
    for distance in compare(pieces, pieces).values():
        assert distance.overlap == pytest.approx(1)
        assert distance.kl == pytest.approx(0)
        assert not distance.wasserstein > 0
    higher = compare([transposed(notes, 12) for notes in pieces], pieces)
    assert higher["pitch"].wasserstein == pytest.approx(12)
    assert higher["pitch"].overlap < 0.85
    assert higher["pitch"].kl > 0.1
    assert higher["pitch class"].overlap == pytest.approx(1)
    assert math.isnan(higher["pitch class"].wasserstein)
    slower = compare([stretched(notes, 1.5) for notes in pieces], pieces)
    assert slower["duration"].wasserstein == pytest.approx(0.175)
    assert slower["pitch"].overlap == pytest.approx(1)
    with pytest.raises(ValueError, match="1 pieces have too few notes"):
        compare(pieces, [empty_notes()])


def test_measures_of_known_pieces():
    scale = make_notes(np.arange(7.0), np.arange(7.0) + 0.5, [62, 64, 66, 67, 69, 71, 73])
    chromatic = make_notes(np.arange(12.0), np.arange(12.0) + 0.5, np.arange(48, 60))
    drums = make_notes([0.0], [0.1], 38, is_drum=[True])
    assert generated.in_key_share(scale) == 1.0
    assert generated.in_key_share(chromatic) == pytest.approx(7 / 12)
    assert generated.pitch_class_entropy(chromatic) == pytest.approx(math.log2(12))
    assert generated.pitch_class_entropy(scale[:1]) == generated.duration_entropy(scale) == 0.0
    assert generated.note_density(scale) == pytest.approx(7 / 6.5)
    assert generated.mean_polyphony(scale) == 1.0
    found = evaluate([scale, chromatic, drums, empty_notes()])
    assert list(found) == list(generated.MEASURES)
    assert found["in-key share"] == pytest.approx((1 + 7 / 12) / 2)
    with pytest.raises(ValueError, match="1 pieces without notes"):
        evaluate([empty_notes()])
    broken = scale.copy()
    broken["pitch"][2] = 200
    with pytest.raises(ValueError, match=r"pieces\[1\]"):
        evaluate([scale, broken])


def test_evaluate_counts_copies():
    training = [piece(i) for i in range(3)]
    found = evaluate([transposed(training[1], 2), piece(8)], training)
    assert found["copied 16-grams"] == pytest.approx(0.5)
    assert 100 <= found["longest copy, notes"] < 105


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 60), st.integers(-12, 12), st.floats(0.5, 2.0))
def test_measures_mind_neither_key_nor_order_and_keep_their_ranges(seed, count, semitones, shift):
    notes = piece(seed, count)
    other = shift_notes(transposed(notes, semitones), shift)
    other = other[np.random.default_rng(seed).permutation(count)]
    low, high = zip((0, 1), (0, math.log2(12)), (0, 5), (0, np.inf), (1, count))
    ours, theirs = (np.array(list(evaluate([x]).values())) for x in (notes, other))
    np.testing.assert_allclose(ours, theirs, atol=1e-9)
    assert (np.array(low) <= ours).all()
    assert (ours <= np.array(high) + 1e-9).all()


# ---------------------------------------------------------------------------------------- copies


def rates(pieces, training, length=16):
    return [copy_rate(pieces, training, length, view) for view in VIEWS]


def test_views_say_what_a_copy_may_differ_in():
    training = [piece(i) for i in range(5)]
    copied = [training[3]]
    assert rates(copied, training) == [1, 1, 1]
    # Times are rounded as events are, from the first note on; a drum changes nothing.
    late = np.concatenate([shift_notes(training[3], 0.123), piece(9, drums=True)])
    late["onset"] += np.random.default_rng(0).uniform(-0.001, 0.001, len(late))
    assert rates([late], training)[0] > 0.9
    assert rates([transposed(training[3], 5)], training) == [0, 1, 1]
    assert rates([stretched(training[3], 1.4)], training) == [0, 0, 1]
    assert rates([piece(8)], training) == [0, 0, 0]


@pytest.mark.parametrize("view", VIEWS)
def test_the_longest_copy_is_found(view):
    training = [piece(i) for i in range(5)]
    planted = piece(7)
    first = training[2][50:87]
    shift = planted["onset"][99] + 0.7 - first["onset"][0]
    rest = shift_notes(planted[100:], first["onset"][-1] + shift + 0.7 - planted["onset"][100])
    sample = np.concatenate([planted[:100], shift_notes(first, shift), rest])
    # In `piece` chords may stand in any order; runs go upwards.
    sample = sample[np.lexsort((sample["pitch"], sample["onset"].round(2)))]
    found = longest_copies([sample, training[0], empty_notes()], training, view)
    assert 30 <= found[0] <= 45
    assert found[1:] == [200, 0]
    assert longest_copies([sample], [], view) == [0]


NOTES = st.lists(
    st.tuples(st.sampled_from([1, 2]), st.integers(60, 62)), min_size=0, max_size=40
).map(lambda rows: make_notes(0.1 * np.cumsum([r[0] for r in rows]), 99, [r[1] for r in rows]))


@settings(max_examples=80, deadline=None)
@given(st.lists(NOTES, min_size=1, max_size=3), st.lists(NOTES, max_size=3), st.integers(2, 6))
def test_as_compared_one_by_one(pieces, training, length):
    def runs(notes):
        steps = np.rint(notes["onset"] * 10).astype(int)
        rows = list(zip(np.diff(steps).tolist(), np.diff(notes["pitch"]).tolist()))
        return [tuple(rows[i : i + length - 1]) for i in range(len(rows) - length + 2)]

    known = {run for notes in training for run in runs(notes)}
    ours = [run in known for notes in pieces for run in runs(notes)]
    found = copy_rate(pieces, training, length)
    assert math.isnan(found) if not ours else found == pytest.approx(np.mean(ours))
    longest = max(longest_copies(pieces, training))
    assert any(ours) == (longest >= length)


def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match="view='rhythm'"):
        copy_rate([piece(0)], [piece(1)], 8, "rhythm")
    with pytest.raises(ValueError, match="length=1"):
        copy_rate([piece(0)], [piece(1)], 1)
