"""Encoding of notes as events, for transcription."""

import dataclasses

import numpy as np

GRANULARITIES = ("flat", "midi_class", "full")


@dataclasses.dataclass(frozen=True)
class EncodingSpec:
    """Which events stand for notes, and in which order.

    Attributes:
      offsets: whether notes have ends and velocities. Otherwise each note is one `pitch` event.
      ties: whether a segment starts with the notes that sound on from before it.
      granularity: "full" keeps programs, "midi_class" keeps one program per General MIDI family
        of 8, "flat" writes no program.
      canonical: False orders events as the MT3 reference does: by their exact time, and only at
        equal times offsets first, then by (is_drum, program, pitch). True orders events of one
        *step* that way, resolves overlaps of one pitch before encoding, and gives every note at
        least one step, so that decoding returns exactly the quantised notes.
      onsets_before_offsets: within a step, onsets come first; implies `canonical`. An onset of a
        sounding pitch ends it, so no offset is written for a note that ends where its pitch
        is struck again.
    """

    offsets: bool = True
    ties: bool = False
    granularity: str = "full"
    canonical: bool = False
    onsets_before_offsets: bool = False

    def __post_init__(self):
        if self.granularity not in GRANULARITIES:
            raise ValueError(
                f"granularity {self.granularity!r} is not one of {', '.join(GRANULARITIES)}"
            )
        if self.ties and not self.offsets:
            raise ValueError("ties need offsets: without ends no note sounds into a segment")
        if self.onsets_before_offsets:
            object.__setattr__(self, "canonical", True)

    @property
    def programs(self) -> bool:
        """Whether program events are written."""
        return self.offsets and self.granularity != "flat"


ONSETS = EncodingSpec(offsets=False)
NOTES = EncodingSpec()
NOTES_WITH_TIES = EncodingSpec(ties=True)
PIANO = EncodingSpec(granularity="flat", onsets_before_offsets=True)


def map_programs(programs: np.ndarray, granularity: str) -> np.ndarray:
    """Map programs (int [N]) to a granularity: all 0, first of their family of 8, or unchanged."""
    if granularity == "full":
        return programs
    if granularity == "midi_class":
        return programs // 8 * 8
    if granularity == "flat":
        return np.zeros_like(programs)
    raise ValueError(f"granularity {granularity!r} is not one of {', '.join(GRANULARITIES)}")
