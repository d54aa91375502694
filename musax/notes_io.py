"""Notes to and from CSV and JSON.

CSV has one row a note under the header `onset_s,offset_s,pitch,velocity,program,is_drum`; JSON is
`{"units": {...}, "notes": [{"onset": ..., ...}]}`. Times are seconds and survive a round trip
exactly. Files are written as UTF-8; those of spreadsheets, with a byte order mark, UTF-16, or
semicolons and decimal commas, are read too.
"""

import codecs
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
    text = _read_text(path)
    first_line = text.split("\n", 1)[0]
    delimiter = next((mark for mark in ";\t" if mark in first_line), ",")
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
    except csv.Error as error:
        raise ValueError(f"{path}: not CSV: {error}") from error
    if not rows:
        raise ValueError(f"{path}: empty file; expected the header {','.join(CSV_HEADER)}")
    names = [name.strip().removesuffix("_s") for name in rows[0]]
    unknown = set(names) - set(NOTE_FIELDS)
    if unknown:
        raise ValueError(f"{path}: unknown column(s) {sorted(unknown)}; know {CSV_HEADER}")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{path}: two columns for {twice} in {rows[0]}; keep one of them")
    columns: dict[str, list[float]] = {name: [] for name in names}
    for number, row in enumerate(rows[1:], start=2):
        if not row:
            continue
        if len(row) != len(names):
            raise ValueError(f"{path}: line {number}: {len(row)} fields, expected {len(names)}")
        for name, field in zip(names, row):
            if delimiter == ";":
                field = field.replace(",", ".")
            columns[name].append(_number(field, name, f"{path}: line {number}: column {name!r}"))
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
        rows = json.loads(_read_text(path))
    except (json.JSONDecodeError, RecursionError) as error:
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
    bad = [
        name
        for name, value in row.items()
        if not isinstance(value, (int, float)) or (isinstance(value, bool) and name != "is_drum")
    ]
    if bad:
        raise ValueError(f"{source}: field(s) {bad} must be numbers")
    return notes_from_mapping(row, source)


def _read_text(path: str | os.PathLike) -> str:
    """Decode a file as UTF-8, or as UTF-16 if its byte order mark says so."""
    data = Path(path).read_bytes()
    wide = data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    try:
        return data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        name = "UTF-16" if wide else "UTF-8"
        raise ValueError(f"{path}: not {name} text: {error}; save it as UTF-8") from error


def _number(field: str, name: str, source: str) -> float:
    word = field.strip().lower()
    if name == "is_drum" and word in ("true", "false"):
        return float(word == "true")
    try:
        return float(word)
    except ValueError:
        raise ValueError(f"{source}: {field!r} is not a number") from None
