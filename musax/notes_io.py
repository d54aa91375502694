"""Notes to and from CSV and JSON.

CSV has one row a note under the header `onset_s,offset_s,pitch,velocity,program,is_drum`; JSON is
`{"units": {...}, "notes": [{"onset": ..., ...}]}`. Times are seconds and survive a round trip
exactly.
"""

import csv
import io
import json
import os
from pathlib import Path

import numpy as np

from musax.notes import NOTE_FIELDS, empty_notes, notes_from_mapping, validate_notes
from t5x.files import write_text

CSV_HEADER = ("onset_s", "offset_s", "pitch", "velocity", "program", "is_drum")
_UNITS = {"onset": "s", "offset": "s", "pitch": "MIDI", "velocity": "MIDI", "program": "MIDI"}


def save_notes_csv(path: str | os.PathLike, notes: np.ndarray) -> None:
    """Write notes as CSV; the file appears complete or not at all."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_HEADER)
    writer.writerows((*row[:-1], int(row[-1])) for row in notes.tolist())
    write_text(path, text.getvalue())


def load_notes_csv(path: str | os.PathLike) -> np.ndarray:
    """Read notes from CSV with a header row; column order is free.

    `onset`/`onset_s`, `offset`/`offset_s` and `pitch` are required, the others default as in
    `make_notes`. Raises ValueError naming the file, the line and the column.
    """
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    if not rows:
        raise ValueError(f"{path}: empty file; expected the header {','.join(CSV_HEADER)}")
    names = [name.strip().removesuffix("_s") for name in rows[0]]
    unknown = set(names) - set(NOTE_FIELDS)
    if unknown:
        raise ValueError(f"{path}: unknown column(s) {sorted(unknown)}; know {CSV_HEADER}")
    columns: dict[str, list[float]] = {name: [] for name in names}
    for number, row in enumerate(rows[1:], start=2):
        if not row:
            continue
        if len(row) != len(names):
            raise ValueError(f"{path}: line {number}: {len(row)} fields, expected {len(names)}")
        for name, field in zip(names, row):
            columns[name].append(_number(field, f"{path}: line {number}: column {name!r}"))
    notes = notes_from_mapping(columns, str(path)) if rows[1:] else empty_notes()
    return validate_notes(notes, str(path))


def save_notes_json(path: str | os.PathLike, notes: np.ndarray) -> None:
    """Write notes as JSON; the file appears complete or not at all."""
    rows = [dict(zip(NOTE_FIELDS, row)) for row in notes.tolist()]
    write_text(path, json.dumps({"units": _UNITS, "notes": rows}, indent=1) + "\n")


def load_notes_json(path: str | os.PathLike) -> np.ndarray:
    """Read notes from JSON: a list of objects, or an object with such a list under `notes`.

    Raises ValueError naming the file and the note.
    """
    try:
        rows = json.loads(Path(path).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not JSON: {error}") from error
    rows = rows.get("notes") if isinstance(rows, dict) else rows
    if not isinstance(rows, list):
        raise ValueError(f"{path}: expected a list of notes, or an object with one under 'notes'")
    notes = [_json_note(row, f"{path}: note {index}") for index, row in enumerate(rows)]
    return validate_notes(np.concatenate(notes) if notes else empty_notes(), str(path))


def _json_note(row: object, source: str) -> np.ndarray:
    if not isinstance(row, dict):
        raise ValueError(f"{source}: expected an object, got {type(row).__name__}")
    unknown = set(row) - set(NOTE_FIELDS)
    if unknown:
        raise ValueError(f"{source}: unknown field(s) {sorted(unknown)}")
    bad = [name for name, value in row.items() if not isinstance(value, (int, float))]
    if bad:
        raise ValueError(f"{source}: field(s) {bad} must be numbers")
    return notes_from_mapping(row, source)


def _number(field: str, source: str) -> float:
    word = field.strip().lower()
    if word in ("true", "false"):
        return float(word == "true")
    try:
        return float(word)
    except ValueError:
        raise ValueError(f"{source}: {field!r} is not a number") from None
