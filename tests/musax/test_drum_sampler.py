"""Playing drums: onsets, layers, takes, choked hi-hats, stand-ins."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musax.drum_pitches import STAND_INS
from musax.notes import empty_notes, make_notes
from musax.rendering.drum_pads import DrumKit, Layer, Pad
from musax.rendering.drum_sampler import render_drums, sounding_notes

RATE = 1000


def steps(level: float, length: int = 400) -> np.ndarray:
    return np.full(length, level, np.float32)


def pad(*layers: tuple[int, list[np.ndarray]], exponent: float = 0.0) -> Pad:
    lows = [1, *(high + 1 for high, _ in layers)]
    made = [Layer(low, high, tuple(takes)) for low, (high, takes) in zip(lows, layers)]
    return Pad(tuple(made), 1.0, exponent)


def kit(**pads: Pad) -> DrumKit:
    """Pads by pitch; takes are constants, so that samples tell which take sounds."""
    return DrumKit("steps", RATE, {int(name[1:]): pad for name, pad in pads.items()})


def hits(*rows: tuple[float, int, int]) -> np.ndarray:
    onset, pitch, velocity = (list(column) for column in zip(*rows))
    return make_notes(onset, np.array(onset) + 0.1, pitch, velocity, 0, True)


def test_a_hit_is_its_take_at_its_sample():
    out = render_drums(hits((0.1234, 36, 100)), kit(p36=pad((127, [steps(0.5)]))))
    assert len(out) == 123 + 400
    assert not out[:123].any()
    np.testing.assert_array_equal(out[123:], steps(0.5))


def test_velocity_chooses_the_layer_and_the_level():
    soft_and_hard = pad((63, [steps(1.0)]), (127, [steps(2.0)]), exponent=2.0)
    drums = kit(p36=soft_and_hard)
    levels = [
        render_drums(hits((0.0, 36, v)), drums)[0] / soft_and_hard.amplitude(v)
        for v in (1, 63, 64, 127)
    ]
    np.testing.assert_allclose(levels, [1, 1, 2, 2], rtol=1e-6)
    rising = [np.abs(render_drums(hits((0.0, 36, v)), drums)).max() for v in range(1, 128)]
    assert (np.diff(rising) > 0).all()


def test_takes_go_round_without_repeating():
    drums = kit(p51=pad((127, [steps(1.0, 5), steps(2.0, 5), steps(3.0, 5)])))
    notes = hits(*((0.1 * i, 51, 100) for i in range(40)))
    in_order = render_drums(notes, drums)[::100]
    np.testing.assert_allclose(in_order, np.resize([1, 2, 3], 40))
    out = render_drums(notes, drums, rng=np.random.default_rng(0), velocity_db=0, detune_cents=0)
    chosen = out[::100]
    assert (np.diff(chosen) != 0).all()
    assert len({tuple(chosen[i : i + 3]) for i in range(0, 36, 3)}) > 2


@pytest.mark.parametrize("closing", [42, 22, 44, 46])
def test_any_hit_of_the_hi_hat_ends_the_open_one(closing):
    drums = kit(p46=pad((127, [steps(1.0)])), p42=pad((127, [steps(0.0, 10)])))
    out = render_drums(hits((0.0, 46, 100), (0.1, closing, 100)), drums, seconds=1.0)
    alone = render_drums(hits((0.0, 46, 100)), drums, seconds=1.0)
    np.testing.assert_array_equal(out[:100], alone[:100])
    late = slice(130, 400)
    assert out[late].any() == (closing == 46)
    assert alone[late].all()
    if closing != 46:
        assert (np.diff(out[100:120]) < 0).all()  # fades, no click


def test_cymbals_ring_on_and_drums_are_damped_when_struck_again():
    drums = kit(p49=pad((127, [steps(1.0)])), p38=pad((127, [steps(1.0)])))
    twice = [render_drums(hits((0.0, p, 100), (0.2, p, 100)), drums) for p in (49, 38)]
    assert twice[0][300] == 2.0
    assert twice[1][199] == twice[1][300] == 1.0


def test_hits_at_one_time_do_not_stop_each_other():
    drums = kit(p36=pad((127, [steps(1.0)])), p42=pad((127, [steps(2.0)])))
    out = render_drums(hits((0.0, 36, 100), (0.0, 42, 100), (0.0, 36, 90)), drums)
    np.testing.assert_array_equal(out, steps(4.0))


def test_randomness_follows_the_seed_and_keeps_onsets():
    rng = np.random.default_rng(3)
    sound = np.exp(-np.arange(300) / 60).astype(np.float32)
    drums = kit(p36=pad((127, [sound, 0.9 * sound])))
    notes = hits(*((0.05 + 0.5 * i, 36, 90) for i in range(8)))
    one, same, other = (
        render_drums(notes, drums, rng=np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)
    starts = np.flatnonzero((np.abs(one[1:]) > 0.3) & (np.abs(one[:-1]) < 0.05)) + 1
    np.testing.assert_allclose(starts / RATE, notes["onset"], atol=0.0011)
    moved = render_drums(notes, drums, rng=rng, timing_s=0.01)
    assert not np.array_equal(moved[:60] != 0, one[:60] != 0)


def test_seconds_cut_or_fill_and_silence_is_empty():
    drums = kit(p36=pad((127, [steps(1.0)])))
    assert len(render_drums(hits((0.5, 36, 100)), drums, seconds=0.6)) == 600
    assert len(render_drums(hits((0.9, 36, 100)), drums, seconds=0.6)) == 600
    assert len(render_drums(hits((0.0, 36, 100)), drums, seconds=2.0)) == 2000
    assert len(render_drums(empty_notes(), drums)) == 0
    with pytest.raises(ValueError, match="seconds=-1"):
        render_drums(empty_notes(), drums, seconds=-1)
    with pytest.raises(ValueError, match="render_drums: note 0"):
        render_drums(hits((0.0, 36, 0)), drums)


def test_what_is_no_drum_is_neither_played_nor_listed():
    piano = make_notes([0.0], [1.0], [36], 100)
    drums = kit(p36=pad((127, [steps(1.0)])))
    assert not render_drums(piano, drums, seconds=1.0).any()
    assert not len(sounding_notes(piano, drums))


@settings(max_examples=60, deadline=None)
@given(
    st.sets(st.sampled_from([22, 26, 35, 36, 37, 38, 40, 42, 43, 44, 46, 48, 49, 51, 53, 59])),
    st.lists(st.integers(20, 80), min_size=1, max_size=20),
)
def test_sounding_notes_are_those_that_make_a_sound(pitches, played):
    drums = DrumKit("some", RATE, {p: pad((127, [steps(1.0, 20)])) for p in pitches})
    notes = hits(*((0.1 * i, pitch, 100) for i, pitch in enumerate(played)))
    sounding = sounding_notes(notes, drums)
    assert [n in sounding for n in notes] == [
        render_drums(notes[i : i + 1], drums, seconds=3.0).any() for i in range(len(notes))
    ]
    for pitch in sounding["pitch"].tolist():
        assert pitch in pitches or pitches & set(STAND_INS[pitch])
    assert 53 not in sounding["pitch"] or 53 in pitches
    if not pitches & {46, 26}:
        assert not np.isin(sounding["pitch"], (46, 26)).any()
