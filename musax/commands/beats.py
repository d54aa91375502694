"""Files with tempo changes and any metre, for models that know one tempo and count from 0."""

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from musax.commands.files import InputError
from musax.timeline import Timeline, load_timeline


@dataclasses.dataclass(frozen=True)
class Beats:
    """The time of a MIDI file beside that of a model with a constant tempo.

    Attributes:
      timeline: of the file.
      tempo: that of the model, quarter notes per minute.
      follows: whether the model's beats are the file's; otherwise seconds are the same in both.
      end: where the last note of the file ends, s.
      source: the file, for messages.
    """

    timeline: Timeline
    tempo: float
    follows: bool
    end: float
    source: Path

    @classmethod
    def of_file(cls, source: Path, notes: np.ndarray, tempo: float | None, model: str) -> "Beats":
        """Take a file's beats, at its commonest tempo, or those of a `tempo` that replaces it.

        Warns of a metre that the model does not know.
        """
        timeline = load_timeline(source)
        end = float(notes["offset"].max())
        if timeline.metres != ["4/4"]:
            warnings.warn(
                f"{source}: in {', '.join(timeline.metres)}, and {model} knows 4/4 alone: bars are "
                "counted as in the file, but what is written follows bars of 4/4",
                stacklevel=2,
            )
        if tempo is not None:
            return cls(timeline.at_tempo(tempo), tempo, False, end, source)
        tempo = timeline.tempo_between(float(notes["onset"].min()), end)
        return cls(timeline, tempo, not timeline.is_steady(0.0, end), end, source)

    def to_model(self, notes: np.ndarray) -> np.ndarray:
        """Return the notes in the model's time."""
        return self.timeline.to_tempo(notes, self.tempo) if self.follows else notes

    def model_seconds(self, seconds: tuple[float, float]) -> tuple[float, float]:
        """Return a span of the file in the model's time."""
        if not self.follows:
            return seconds
        begin, end = (self.timeline.quarters(np.array(seconds)) * 60.0 / self.tempo).tolist()
        return begin, end

    def bars(self, first: int, last: int) -> tuple[float, float]:
        """Return when a span of bars begins and ends in the model's time, s.

        Raises:
          InputError: the file has not so many.
        """
        quarters = np.array([self.timeline.bar(first)[0], self.timeline.bar(last)[1]])
        count = self.timeline.bars_until(self.end)
        if last > count:
            raise InputError(
                f"{self.source}: bars {first} to {last}: expected bars of 1 to {count}"
            )
        begin, end = self.timeline.seconds(quarters).tolist()
        return self.model_seconds((begin, end))

    def to_file(self, piece: Any) -> Any:
        """Return a `musax.results.Piece` of the model in the time of the file."""
        if not self.follows:
            return piece
        times = np.array([piece.seconds, piece.prompt_seconds]) * self.tempo / 60.0
        seconds, prompt_seconds = self.timeline.seconds(times).tolist()
        return dataclasses.replace(
            piece,
            notes=self.timeline.from_tempo(piece.notes, self.tempo),
            seconds=seconds,
            prompt_seconds=prompt_seconds,
        )
