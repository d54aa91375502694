"""Tempo and bars of a MIDI file: seconds, quarter notes and bar numbers."""

import dataclasses
import os
import warnings
from collections.abc import Callable

import numpy as np

from musax.midi_file import MidiWarning, TempoMap, parse, read_source


@dataclasses.dataclass(frozen=True)
class Timeline:
    """Tempo and bars of a MIDI file.

    Attributes:
      tempo_map: ticks and seconds.
      signatures: int64 [S, 3], see `musax.midi_file.MidiFile`.
    """

    tempo_map: TempoMap
    signatures: np.ndarray

    def quarters(self, seconds: np.ndarray | float) -> np.ndarray:
        """Return quarter notes from the beginning to each time, s."""
        return self.tempo_map.ticks_at(np.asarray(seconds)) / self.tempo_map.ticks_per_quarter

    def seconds(self, quarters: np.ndarray | float) -> np.ndarray:
        """Return the times, s, of quarter notes from the beginning; the inverse of `quarters`."""
        return self.tempo_map.seconds(np.asarray(quarters) * self.tempo_map.ticks_per_quarter)

    def tempo_between(self, begin: float, end: float) -> float:
        """Return the tempo that lasts longest between two times, s; quarter notes per minute."""
        changes = self.tempo_map.seconds(self.tempo_map.ticks.astype(np.float64))
        edges = np.clip(np.append(changes, np.inf), begin, max(begin, end))
        lasting: dict[int, float] = {}
        for us, seconds in zip(self.tempo_map.us.tolist(), np.diff(edges).tolist()):
            lasting[us] = lasting.get(us, 0.0) + seconds
        return 6e7 / max(lasting, key=lasting.__getitem__)

    def is_steady(self, begin: float, end: float) -> bool:
        """Return whether the tempo does not change between two times, s."""
        changes = self.tempo_map.seconds(self.tempo_map.ticks.astype(np.float64))
        at = np.searchsorted(changes, [begin, end], side="right") - 1
        return len(np.unique(self.tempo_map.us[at[0] : max(at[1], at[0]) + 1])) == 1

    def bar(self, number: int) -> tuple[float, float]:
        """Return when bar `number`, counted from 1, begins and ends, in quarter notes.

        A time signature that comes within a bar begins a new one, as notation programs have it.

        Raises:
          ValueError: the number is below 1.
        """
        if number < 1:
            raise ValueError(f"bar {number}: bars are counted from 1")
        starts, lengths, first = self._metre_spans()
        at = int(np.searchsorted(first, number - 1, side="right")) - 1
        begin = starts[at] + (number - 1 - first[at]) * lengths[at]
        end = begin + lengths[at]
        return float(begin), float(min(end, starts[at + 1]) if at + 1 < len(starts) else end)

    def bars_until(self, seconds: float) -> int:
        """Return how many bars begin before a time, s; at least 1."""
        starts, lengths, first = self._metre_spans()
        quarter = float(self.quarters(seconds)) - 1e-6
        at = max(int(np.searchsorted(starts, quarter, side="right")) - 1, 0)
        return int(first[at] + max(quarter - starts[at], 0.0) // lengths[at]) + 1

    def _metre_spans(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return start and bar length in quarters, and the bars before, of each time signature."""
        starts = self.signatures[:, 0] / self.tempo_map.ticks_per_quarter
        lengths = self.signatures[:, 1] * 4.0 / self.signatures[:, 2]
        counts = np.ceil(np.diff(starts) / lengths[:-1] - 1e-9)
        return starts, lengths, np.concatenate([[0.0], np.cumsum(counts)])

    def at_tempo(self, tempo: float) -> "Timeline":
        """Return the same metres at a constant tempo, quarter notes per minute."""
        us = np.array([6e7 / tempo])
        return Timeline(
            TempoMap(np.zeros(1, np.int64), us, self.tempo_map.ticks_per_quarter), self.signatures
        )

    def to_tempo(self, notes: np.ndarray, tempo: float) -> np.ndarray:
        """Return notes on the same beats of a constant tempo, quarter notes per minute."""
        return self._retimed(notes, lambda times: self.quarters(times) * 60.0 / tempo)

    def from_tempo(self, notes: np.ndarray, tempo: float) -> np.ndarray:
        """Return notes on the same beats of the file; the inverse of `to_tempo`."""
        return self._retimed(notes, lambda times: self.seconds(times * tempo / 60.0))

    def _retimed(self, notes: np.ndarray, times: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        moved = notes.copy()
        for name in ("onset", "offset"):
            moved[name] = times(notes[name])
        return moved

    @property
    def metres(self) -> list[str]:
        """The time signatures in the order in which they first come, such as ["3/4"]."""
        return list(dict.fromkeys(f"{over}/{under}" for _, over, under in self.signatures.tolist()))


def load_timeline(source: str | os.PathLike | bytes) -> Timeline:
    """Return tempo and bars of a Standard MIDI file; in format 2, of its first track.

    Raises:
      MidiError, OSError: see `musax.midi.load_midi`.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MidiWarning)  # reading the notes says it
        contents = parse(*read_source(source))
    return Timeline(contents.tempo_maps[0], contents.signatures)
