"""The event codec: a bijection between typed events and consecutive integers.

Ids run through the time shifts 0..max_shift_steps first, then through the event ranges in the
order given (MT3, arXiv 2111.03017, section 3.2).
"""

import dataclasses
import functools

import numpy as np

SHIFT = "shift"


@dataclasses.dataclass(frozen=True)
class EventRange:
    """Events of one type, with the values min_value..max_value inclusive."""

    type: str
    min_value: int
    max_value: int

    @property
    def size(self) -> int:
        """Number of values."""
        return self.max_value - self.min_value + 1


@dataclasses.dataclass(frozen=True)
class Event:
    """One event, for example Event("pitch", 60)."""

    type: str
    value: int


@dataclasses.dataclass(frozen=True)
class Codec:
    """Maps events to ids 0..num_classes-1 and back.

    Attributes:
      max_shift_steps: largest time shift that one event can express, in steps.
      steps_per_second: time resolution in Hz.
      event_ranges: the other events, in id order.
    """

    max_shift_steps: int
    steps_per_second: float
    event_ranges: tuple[EventRange, ...]

    def __init__(self, max_shift_steps: int, steps_per_second: float, event_ranges):
        if max_shift_steps < 1 or steps_per_second <= 0:
            raise ValueError(
                f"max_shift_steps={max_shift_steps} must be at least 1 and "
                f"steps_per_second={steps_per_second} positive"
            )
        ranges = tuple(event_ranges)
        names = [SHIFT, *(r.type for r in ranges)]
        if len(set(names)) < len(names):
            raise ValueError(f"event types must differ from each other and from 'shift': {names}")
        empty = [r for r in ranges if r.size < 1]
        if empty:
            raise ValueError(f"event ranges without values: {empty}")
        object.__setattr__(self, "max_shift_steps", max_shift_steps)
        object.__setattr__(self, "steps_per_second", steps_per_second)
        object.__setattr__(self, "event_ranges", ranges)

    @functools.cached_property
    def all_ranges(self) -> tuple[EventRange, ...]:
        """Every range in id order, shifts first."""
        return (EventRange(SHIFT, 0, self.max_shift_steps), *self.event_ranges)

    @functools.cached_property
    def _first_ids(self) -> dict[str, tuple[int, EventRange]]:
        firsts = np.cumsum([0, *(r.size for r in self.all_ranges)]).tolist()
        return {r.type: (first, r) for first, r in zip(firsts, self.all_ranges)}

    @functools.cached_property
    def num_classes(self) -> int:
        """Number of ids."""
        return sum(r.size for r in self.all_ranges)

    @functools.cached_property
    def event_types(self) -> tuple[str, ...]:
        """Type names in id order; `type_indices` counts in this order."""
        return tuple(r.type for r in self.all_ranges)

    @functools.cached_property
    def type_indices(self) -> np.ndarray:
        """int32 [num_classes]: for each id, the position of its type in `event_types`."""
        sizes = [r.size for r in self.all_ranges]
        return np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)

    @functools.cached_property
    def values(self) -> np.ndarray:
        """int32 [num_classes]: the value of each id."""
        spans = [np.arange(r.min_value, r.max_value + 1, dtype=np.int32) for r in self.all_ranges]
        return np.concatenate(spans)

    def has(self, event_type: str) -> bool:
        """Return whether the codec has this event type."""
        return event_type in self._first_ids

    def event_type_range(self, event_type: str) -> tuple[int, int]:
        """Return (first id, last id) of an event type; raise ValueError for an unknown type."""
        first, span = self._lookup(event_type)
        return first, first + span.size - 1

    def encode_event(self, event: Event) -> int:
        """Return the id of an event; raise ValueError for an unknown type or bad value."""
        first, span = self._lookup(event.type)
        if not span.min_value <= event.value <= span.max_value:
            raise ValueError(
                f"{event}: value must be in {span.min_value}..{span.max_value} for {event.type!r}"
            )
        return first + event.value - span.min_value

    def encode(self, event_type: str, values: np.ndarray) -> np.ndarray:
        """Return int32 ids of many values of one type; raise ValueError for one out of range."""
        first, span = self._lookup(event_type)
        values = np.asarray(values)
        if values.size and (values.min() < span.min_value or values.max() > span.max_value):
            raise ValueError(
                f"{event_type!r} values {values.min()}..{values.max()} are not all in "
                f"{span.min_value}..{span.max_value}"
            )
        return (values + (first - span.min_value)).astype(np.int32)

    def decode_event_index(self, index: int) -> Event:
        """Return the event of an id; raise ValueError for an id outside 0..num_classes-1."""
        if not 0 <= index < self.num_classes:
            raise ValueError(f"event id {index} is not in 0..{self.num_classes - 1}")
        return Event(self.event_types[self.type_indices[index]], int(self.values[index]))

    def is_shift_event_index(self, index):
        """Return whether an id (or each id of an array) is a time shift."""
        return (index >= 0) & (index <= self.max_shift_steps)

    def _lookup(self, event_type: str) -> tuple[int, EventRange]:
        try:
            return self._first_ids[event_type]
        except KeyError:
            raise ValueError(
                f"unknown event type {event_type!r}; this codec has {', '.join(self._first_ids)}"
            ) from None


def note_codec(
    steps_per_second: float = 100, max_shift_seconds: float = 10, num_velocity_bins: int = 127
) -> Codec:
    """Return MT3's codec: shift, pitch, velocity (0 is note-off), tie, program, drum.

    Args:
      steps_per_second: time resolution, Hz.
      max_shift_seconds: longest time shift of one event, s.
      num_velocity_bins: velocity levels besides note-off.
    """
    top = 127
    return Codec(
        max_shift_steps=int(steps_per_second * max_shift_seconds),
        steps_per_second=steps_per_second,
        event_ranges=[
            EventRange("pitch", 0, top),
            EventRange("velocity", 0, num_velocity_bins),
            EventRange("tie", 0, 0),
            EventRange("program", 0, top),
            EventRange("drum", 0, top),
        ],
    )


def velocity_to_bin(velocity, num_velocity_bins: int):
    """Return the bin of MIDI velocities (scalar or array): 0 for 0, else ceil(bins * v / 127)."""
    scaled = np.ceil(num_velocity_bins * np.asarray(velocity) / 127).astype(np.int32)
    return int(scaled) if np.ndim(velocity) == 0 else scaled


def bin_to_velocity(velocity_bin, num_velocity_bins: int):
    """Return the MIDI velocity of a bin (scalar or array): floor(127 * bin / bins)."""
    velocity = (127 * np.asarray(velocity_bin) / num_velocity_bins).astype(np.int32)
    return int(velocity) if np.ndim(velocity_bin) == 0 else velocity


def num_velocity_bins(codec: Codec) -> int:
    """Return the number of velocity bins of a codec, without bin 0 (note-off)."""
    low, high = codec.event_type_range("velocity")
    return high - low
