"""The Groove MIDI Dataset and its expansion E-GMD: performances on drums, as their csv lists them.

Groove (Gillick et al. 2019): 1,150 recordings of ten drummers, `info.csv`. E-GMD (Callender et al.
2020): the same played again through 43 kits, `e-gmd-v1.0.0.csv` with a column kit_name.
"""

import csv
import dataclasses
import functools
import warnings
from pathlib import Path

import numpy as np

from musax.midi import load_midi
from t5x.user_paths import user_path

GMD_CSV = "info.csv"
EGMD_CSV = "e-gmd-v1.0.0.csv"
SPLITS = ("train", "validation", "test")
#: Columns of E-GMD's csv, in order; Groove's has the same but for the last.
EGMD_COLUMNS: tuple[str, ...] = (
    "drummer",
    "session",
    "id",
    "style",
    "bpm",
    "beat_type",
    "time_signature",
    "duration",
    "split",
    "midi_filename",
    "audio_filename",
    "kit_name",
)


class GrooveError(ValueError):
    """A Groove or E-GMD folder or its csv is missing or malformed."""


@dataclasses.dataclass(frozen=True)
class DrumPerformance:
    """One recording, a row of the csv.

    Attributes:
      drummer, session, id, style, beat_type, time_signature: as in the csv.
      bpm: quarter notes per minute.
      duration: s.
      split: "train", "validation" or "test".
      midi_path: of a file that is there.
      audio_path: None where the recording is missing.
      kit_name: None for Groove, whose kit is one.
    """

    drummer: str
    session: str
    id: str
    style: str
    bpm: float
    beat_type: str
    time_signature: str
    duration: float
    split: str
    midi_path: Path
    audio_path: Path | None = None
    kit_name: str | None = None

    def load(self) -> np.ndarray:
        """Return the performed notes: NOTE_DTYPE [N], all drums, sorted by onset, times in s."""
        return _load_drums(self.midi_path).copy()


@functools.lru_cache(maxsize=4096)
def _load_drums(path: Path) -> np.ndarray:
    notes = load_midi(path)
    return notes[notes["is_drum"]]


def read_groove(directory: str | Path, split: str | None = None) -> list[DrumPerformance]:
    """Return the performances of a Groove or E-GMD folder, in the order of the csv.

    Args:
      directory: the folder that holds the csv.
      split: one of `SPLITS`; None for all.

    Returns:
      Rows whose MIDI file exists; others are counted in a warning.

    Raises:
      GrooveError: no csv, missing columns, a field that is not a number, or no MIDI file at all.
    """
    if split is not None and split not in SPLITS:
        raise GrooveError(f"split {split!r}: expected one of {', '.join(SPLITS)}")
    directory = user_path(directory)
    path = next((p for n in (EGMD_CSV, GMD_CSV) if (p := directory / n).is_file()), None)
    if path is None:
        raise GrooveError(
            f"{directory}: neither {GMD_CSV} nor {EGMD_CSV}; give the folder that the archive of "
            "Groove or E-GMD unpacks to"
        )
    with open(path, newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        needed = set(EGMD_COLUMNS) - {"kit_name"}
        missing = needed - set(reader.fieldnames or ())
        if missing:
            raise GrooveError(f"{path}: missing column(s) {', '.join(sorted(missing))}")
        rows = [(reader.line_num, row) for row in reader]
    wanted = [(line, row) for line, row in rows if split is None or row["split"] == split]
    found = [
        _performance(row, directory, f"{path}:{line}")
        for line, row in wanted
        if row["midi_filename"] and (directory / row["midi_filename"]).is_file()
    ]
    absent = len(wanted) - len(found)
    if not found:
        raise GrooveError(
            f"{path}: "
            + (f"none of {absent} MIDI files is there" if absent else f"no rows of split {split}")
            + "; unpack the archive again"
        )
    if absent:
        warnings.warn(
            f"{path}: {absent} of {len(wanted)} rows left out, their MIDI files are missing",
            stacklevel=2,
        )
    return found


def _performance(row: dict[str, str], directory: Path, where: str) -> DrumPerformance:
    if row["split"] not in SPLITS:
        raise GrooveError(f"{where}: split {row['split']!r}, expected one of {', '.join(SPLITS)}")
    numbers = {}
    for name in ("bpm", "duration"):
        try:
            numbers[name] = float(row[name])
        except (TypeError, ValueError):
            raise GrooveError(f"{where}: {name} {row[name]!r} is not a number") from None
    text = ("drummer", "session", "id", "style", "beat_type", "time_signature", "split")
    audio = directory / row["audio_filename"] if row["audio_filename"] else None
    return DrumPerformance(
        **{name: row[name] for name in text},
        **numbers,
        midi_path=directory / row["midi_filename"],
        audio_path=audio if audio is not None and audio.is_file() else None,
        kit_name=row.get("kit_name") or None,
    )
