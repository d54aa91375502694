import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from musax.events.codec import (
    Codec,
    Event,
    EventRange,
    bin_to_velocity,
    num_velocity_bins,
    velocity_to_bin,
)
from tests.musax.events.cases import golden, make_codec


@given(st.integers(0, 1387))
def test_ids_and_events_are_a_bijection(index):
    codec = make_codec(1)
    event = codec.decode_event_index(index)
    assert codec.encode_event(event) == index
    assert codec.encode(event.type, np.array([event.value])).tolist() == [index]
    low, high = codec.event_type_range(event.type)
    assert low <= index <= high
    assert codec.is_shift_event_index(index) == (event.type == "shift")


@pytest.mark.parametrize("name", golden("codec.json"))
def test_golden_ids(name):
    case = golden("codec.json")[name]
    kwargs = {"steps_per_second": 100, "max_shift_seconds": 10, "num_velocity_bins": 127}
    kwargs |= case["kwargs"]
    codec = make_codec(
        kwargs["num_velocity_bins"],
        kwargs["steps_per_second"] * kwargs["max_shift_seconds"],
        kwargs["steps_per_second"],
    )
    assert codec.num_classes == case["num_classes"]
    assert num_velocity_bins(codec) == kwargs["num_velocity_bins"]
    ranges = {name: list(codec.event_type_range(name)) for name in codec.event_types}
    assert ranges == case["ranges"]
    for index, event_type, value in case["events"]:
        assert codec.decode_event_index(index) == Event(event_type, value)
    bins = np.arange(len(case["bin_to_velocity"]))
    assert velocity_to_bin(np.arange(128), bins[-1]).tolist() == case["velocity_to_bin"]
    assert bin_to_velocity(bins, bins[-1]).tolist() == case["bin_to_velocity"]


@pytest.mark.parametrize("index", [-2, -1, 1388])
def test_unknown_ids(index):
    with pytest.raises(ValueError, match=str(index)):
        make_codec(1).decode_event_index(index)


def test_values_out_of_range_and_unknown_types():
    codec = make_codec(1)
    with pytest.raises(ValueError, match=r"0\.\.127"):
        codec.encode_event(Event("pitch", 128))
    with pytest.raises(ValueError, match="not all in"):
        codec.encode("velocity", np.array([0, 2]))
    with pytest.raises(ValueError, match="unknown event type 'pedal'; this codec has shift"):
        codec.event_type_range("pedal")


@pytest.mark.parametrize(
    "arguments",
    [
        (0, 100, []),
        (10, 0, []),
        (10, 100, [EventRange("shift", 0, 1)]),
        (10, 100, [EventRange("a", 0, 1), EventRange("a", 0, 1)]),
        (10, 100, [EventRange("a", 1, 0)]),
    ],
)
def test_impossible_codecs(arguments):
    with pytest.raises(ValueError):
        Codec(*arguments)


def test_codecs_compare_by_content():
    assert make_codec(1) == make_codec(1) != make_codec(2)
    assert hash(make_codec(1)) == hash(make_codec(1))
