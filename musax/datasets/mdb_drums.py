"""MDB Drums: real drum tracks with annotated onsets (Southall et al. 2017; CC BY-NC-SA 4.0).

The annotations have two kinds: six classes, and 21 subclasses that distinguish strokes. Subclasses
are read as General MIDI pitches, so that they can be mapped like any other drum notes.
"""

import dataclasses
import os
from pathlib import Path

import numpy as np

from musax.notes import make_notes, sort_notes

NOTE_SECONDS = 0.05
#: General MIDI pitch of every subclass.
SUBCLASSES = {
    "KD": 36, "SD": 38, "SDB": 38, "SDD": 38, "SDF": 38, "SDG": 38, "SDNS": 38, "SST": 37,
    "CHH": 42, "OHH": 46, "PHH": 44, "HIT": 48, "MHT": 47, "HFT": 43, "LFT": 41, "RDC": 51,
    "RDB": 53, "CRC": 49, "CHC": 52, "SPC": 55, "TMB": 54,
}  # fmt: skip
#: Of every class; OT, other sounds, has none.
CLASSES = {"KD": 36, "SD": 38, "HH": 42, "TT": 47, "CY": 49}


class AnnotationError(ValueError):
    """An annotation file cannot be read; the message names it and the line."""


@dataclasses.dataclass(frozen=True)
class DrumTrack:
    """A recording and its annotations.

    Attributes:
      name: of the track.
      audio: path of the drums' recording.
      class_path, subclass_path: of its annotations.
    """

    name: str
    audio: Path
    class_path: Path
    subclass_path: Path

    def classes(self) -> np.ndarray:
        """Return hits of the five classes that are drums of a kit, as the pitches of `CLASSES`."""
        return read_annotations(self.class_path, CLASSES, ignored=("OT",))

    def subclasses(self) -> np.ndarray:
        """Return all hits, as the pitches of `SUBCLASSES`."""
        return read_annotations(self.subclass_path, SUBCLASSES)


def read_annotations(
    path: str | os.PathLike, pitches: dict[str, int], ignored: tuple[str, ...] = ()
) -> np.ndarray:
    """Return NOTE_DTYPE of lines "time label"; velocities are not annotated and set to 100.

    Raises:
      AnnotationError: a line is not of that form, or its label unknown.
    """
    onsets, found = [], []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), start=1):
        fields = line.split()
        if not fields or fields[-1] in ignored:
            continue
        try:
            time, label = fields
            onsets.append(float(time))
            found.append(pitches[label])
        except (ValueError, KeyError) as error:
            raise AnnotationError(
                f"{path}, line {number}: {line.strip()!r}; expected a time in s and one of "
                f"{', '.join([*pitches, *ignored])}"
            ) from error
    onset = np.asarray(onsets, float)
    return sort_notes(make_notes(onset, onset + NOTE_SECONDS, found, 100, 0, np.True_))


def read_mdb_drums(directory: str | os.PathLike) -> list[DrumTrack]:
    """Return the drum-only tracks below a folder that have both annotations, by name.

    Raises:
      FileNotFoundError: there are none.
    """
    root = Path(directory)
    tracks = []
    for audio in sorted(root.rglob("*_Drum.wav")):
        name = audio.name.removesuffix("_Drum.wav")
        kinds = [sorted(root.rglob(f"{name}_{kind}.txt")) for kind in ("class", "subclass")]
        if all(kinds):
            tracks.append(DrumTrack(name, audio, kinds[0][0], kinds[1][0]))
    if not tracks:
        raise FileNotFoundError(
            f"{directory}: no *_Drum.wav with *_class.txt and *_subclass.txt below it; give the "
            "folder of MDB Drums"
        )
    return tracks
