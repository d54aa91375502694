"""Beats and bars of MIDI files."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musax.midi_file import TempoMap
from musax.notes import make_notes
from musax.timeline import Timeline, load_timeline
from tests.midi_files import metre, midi_file, tempo


def timeline(*metas):
    """The timeline of a file with meta messages at ticks."""
    return load_timeline(midi_file(metas))


def bar_seconds(line, number):
    return line.seconds(np.array(line.bar(number))).tolist()


@pytest.mark.parametrize(
    ("metas", "number", "expected"),
    [
        ([], 2, [2.0, 4.0]),
        ([(0, metre(3, 4))], 2, [1.5, 3.0]),
        ([(0, metre(6, 8))], 2, [1.5, 3.0]),
        ([(0, metre(3, 4)), (1, tempo(60))], 2, [3.0, 6.0]),
        # A count-in bar at 60, then 120.
        ([(0, tempo(60)), (1920, tempo(120))], 1, [0.0, 4.0]),
        ([(0, tempo(60)), (1920, tempo(120))], 2, [4.0, 6.0]),
        # Two bars of 3/4, then 4/4.
        ([(0, metre(3, 4)), (2880, metre(4, 4))], 3, [3.0, 5.0]),
        # A signature within a bar begins a new one.
        ([(0, metre(4, 4)), (960, metre(2, 4))], 1, [0.0, 1.0]),
        ([(0, metre(4, 4)), (960, metre(2, 4))], 2, [1.0, 2.0]),
    ],
)
def test_bars_are_the_files(metas, number, expected):
    line = timeline(*metas)
    np.testing.assert_allclose(bar_seconds(line, number), expected, atol=2e-3)
    assert line.bars_until(sum(expected) / 2) == number


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 9999), st.integers(100_000, 2_000_000)), max_size=5))
def test_seconds_and_quarters_are_inverses(changes):
    ticks = np.array([0, *sorted({tick for tick, _ in changes})])
    us = np.array([500_000, *[us for _, us in changes][: len(ticks) - 1]])
    line = Timeline(TempoMap(ticks, us, 480), np.array([[0, 4, 4]]))
    quarters = np.linspace(0, 30, 50)
    np.testing.assert_allclose(line.quarters(line.seconds(quarters)), quarters, atol=1e-9)
    notes = make_notes(quarters, quarters + 0.5, 60)
    back = line.from_tempo(line.to_tempo(notes, 90.0), 90.0)
    for name in ("onset", "offset"):
        np.testing.assert_allclose(back[name], notes[name], atol=1e-9)


def test_a_bar_that_begins_where_a_time_is_does_not_count():
    line = timeline()
    assert [line.bars_until(seconds) for seconds in (0.0, 2.0, 2.1, 4.0)] == [1, 1, 2, 2]


@pytest.mark.parametrize("over_and_power", [(0, 2), (4, 200)])
def test_impossible_time_signatures_are_passed_over(over_and_power):
    data = midi_file([(0, metre(3, 4))])
    broken = data.replace(b"\xff\x58\x04\x03\x02", b"\xff\x58\x04" + bytes(over_and_power))
    assert broken != data
    assert load_timeline(broken).metres == ["4/4"]


def test_the_commonest_tempo_and_steadiness():
    line = timeline((0, tempo(60)), (1920, tempo(120)))
    assert line.tempo_between(0.0, 5.0) == 60
    assert line.tempo_between(3.0, 9.0) == 120
    assert timeline((0, tempo(60)), (960, tempo(120)), (3840, tempo(60))).tempo_between(0, 7) == 60
    assert line.is_steady(4.0, 9.0)
    assert not line.is_steady(0.0, 9.0)
    assert line.metres == ["4/4"]
    assert timeline((0, metre(6, 8)), (480, metre(2, 4))).metres == ["6/8", "2/4"]
    with pytest.raises(ValueError, match="counted from 1"):
        line.bar(0)
