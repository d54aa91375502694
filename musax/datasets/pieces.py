"""Symbolic corpora as lists of pieces, each with its own split by piece.

A directory is the unpacked archive of the corpus. Splits never cut a piece: POP909 by song
number, lakh64 by its own train and valid folders, the chorales by the split the file carries,
MAESTRO by its table, others by `splits.hash_split` of what all versions of a piece share.
"""

import csv
import dataclasses
import functools
import io
import json
import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from musax.datasets.splits import SPLITS, TASK_SPLITS, hash_split
from musax.midi import MidiError, load_midi
from musax.notes import empty_notes, make_notes

POP909_FIRST_VALID, POP909_FIRST_TEST = 801, 831
_SIXTEENTH_S = 0.15  # chorales have no tempo of their own


@dataclasses.dataclass(frozen=True)
class Piece:
    """A piece of music: its name and a function that reads its note table."""

    name: str
    load: Callable[[], np.ndarray]

    def load_or_empty(self) -> np.ndarray:
        """Return the notes; none, with a warning that names the file, if it cannot be read.

        Corpora collected from the web have such files.
        """
        try:
            return self.load()
        except (MidiError, OSError) as error:
            warnings.warn(f"{error}; the piece is left out", stacklevel=2)
            return empty_notes()


def pop909(directory: str | Path, split: str) -> list[Piece]:
    """Return POP909 (Wang et al., ISMIR 2020): songs 1-800 train, 801-830 valid, 831-909 test."""
    _check_split(split)
    paths = {int(p.stem): p for p in Path(directory).glob("[0-9]*/[0-9]*.mid")}
    _check_found(paths, directory, "NNN/NNN.mid")
    first = {"train": 1, "valid": POP909_FIRST_VALID, "test": POP909_FIRST_TEST}[split]
    last = {"train": POP909_FIRST_VALID, "valid": POP909_FIRST_TEST, "test": 10**6}[split]
    return [_midi_piece(paths[n]) for n in sorted(paths) if first <= n < last]


def lakh64_trios(directory: str | Path, split: str) -> list[Piece]:
    """Return 64-bar melody, bass and drums excerpts of Lakh; folder valid in two halves."""
    return _lakh64(directory, split, "trio")


def lakh64_melodies(directory: str | Path, split: str) -> list[Piece]:
    """Return 64-bar melodies of Lakh, 120 beats a minute, in sixteenths; splits as of trios."""
    return _lakh64(directory, split, "melody")


def _lakh64(directory: str | Path, split: str, kind: str) -> list[Piece]:
    _check_split(split)
    folder = "train" if split == "train" else "valid"
    paths = sorted(Path(directory).glob(f"samples/{folder}/{kind}/*.mid"))
    _check_found(paths, directory, f"samples/{folder}/{kind}/*.mid")
    if split != "train":
        paths = paths[: len(paths) // 2] if split == "valid" else paths[len(paths) // 2 :]
    return [_midi_piece(p) for p in paths]


def jsb_chorales(directory: str | Path, split: str) -> list[Piece]:
    """Return J. S. Bach's chorales in sixteenths, 229 / 76 / 77 pieces; held notes are one note."""
    _check_split(split)
    path = Path(directory) / "Jsb16thSeparated.json"
    _check_found(path.exists(), directory, path.name)
    chorales = json.loads(path.read_text())[split]
    load = functools.partial(grid_to_notes, step_s=_SIXTEENTH_S)
    return [
        Piece(f"jsb-{split}-{i}", functools.partial(load, grid)) for i, grid in enumerate(chorales)
    ]


def grid_to_notes(grid, step_s: float) -> np.ndarray:
    """Return the notes of `[steps, voices]` MIDI pitches (-1 = rest); equal neighbours are held."""
    columns = []
    for voice in np.asarray(grid, float).T:
        starts = np.flatnonzero(np.diff(voice, prepend=np.nan) != 0)
        ends = np.append(starts[1:], len(voice))
        sounding = voice[starts] > 0
        columns.append(np.stack([starts, ends, voice[starts]])[:, sounding])
    starts, ends, pitches = np.concatenate(columns, axis=1)
    notes = make_notes(starts * step_s, ends * step_s, pitches.astype(int), 80)
    return notes[np.lexsort((notes["pitch"], notes["onset"]))]


# --------------------------------------------------------------------------- folders and tables


def midi_folder(directory: str | Path, split: str) -> list[Piece]:
    """Return all .mid and .midi files below a folder, split by their paths in it."""
    pieces = [_midi_piece(path, directory) for path in _midi_files(directory, split)]
    return [piece for piece in pieces if hash_split(piece.name) == split]


def maestro(directory: str | Path, split: str) -> list[Piece]:
    """Return MAESTRO (Hawthorne et al., ICLR 2019), any version: splits of its .csv or .json."""
    _check_split(split)
    folder = Path(directory)
    tables = sorted(folder.glob("maestro-v*.csv")) or sorted(folder.glob("maestro-v*.json"))
    _check_found(tables, directory, "maestro-v*.csv or maestro-v*.json")
    rows = _read_table(tables[-1], ("split", "midi_filename"))
    return _listed(
        tables[-1], [r["midi_filename"] for r in rows if TASK_SPLITS.get(r["split"]) == split]
    )


def asap(directory: str | Path, split: str) -> list[Piece]:
    """Return ASAP (Foscarin et al., ISMIR 2020): all performances of a title in one split."""
    _check_split(split)
    table = Path(directory) / "metadata.csv"
    _check_found(table.exists(), directory, table.name)
    rows = _read_table(table, ("composer", "title", "midi_performance"))
    titles = [f"{row['composer']}/{row['title']}" for row in rows]
    return _listed(
        table, [r["midi_performance"] for r, t in zip(rows, titles) if hash_split(t) == split]
    )


def giant_midi(directory: str | Path, split: str) -> list[Piece]:
    """Return GiantMIDI-Piano (Kong et al. 2022): files "surname, first name, title, video id.mid".

    A csv of the corpus beside them decides about the split, if it has that column; for other files
    surname, first name and title do.
    """
    paths = _midi_files(directory, split)
    known: dict[str, str] = {}
    for table in sorted(Path(directory).glob("*.csv")):
        for row in _read_table(table):
            if place := TASK_SPLITS.get(row.get("split", "")):
                known |= {row[key]: place for key in ("audio_name", "youtube_id") if row.get(key)}

    def place_of(path: Path) -> str:
        title, _, video = path.stem.rpartition(", ")
        return known.get(path.stem) or known.get(video) or hash_split(title or video)

    return [_midi_piece(path, directory) for path in paths if place_of(path) == split]


def lakh(directory: str | Path, split: str) -> list[Piece]:
    """Return the Lakh MIDI Dataset (Raffel 2016): lmd_full, lmd_matched or clean_midi.

    Split by song: in clean_midi that is the title, whatever the artist and the version (.1, .2); in
    lmd_matched the track, the first one for a file that was matched to several, which is taken
    once; lmd_full has no songs, there it is the file.
    """
    found: dict[str, tuple[Piece, str]] = {}
    for path in _midi_files(directory, split):
        piece = _midi_piece(path)
        if _LAKH_TRACK.fullmatch(path.parent.name):
            song = path.parent.name
        elif re.fullmatch("[0-9a-f]{32}", path.stem):
            song = path.stem
        else:
            piece = _midi_piece(path, directory)
            song = re.sub(r"\.\d+$", "", path.stem).casefold()
        found.setdefault(piece.name, (piece, song))
    return [piece for piece, song in found.values() if hash_split(song) == split]


_LAKH_TRACK = re.compile("TR[A-Z]{5}[0-9A-F]{11}")


def _midi_files(directory: str | Path, split: str) -> list[Path]:
    _check_split(split)
    files = (p for p in Path(directory).rglob("*") if p.suffix.lower() in (".mid", ".midi"))
    found = sorted(path for path in files if path.is_file())
    _check_found(found, directory, ".mid or .midi file")
    return found


def _read_table(path: Path, columns: Sequence[str] = ()) -> list[dict[str, str]]:
    """Return the rows of a table: csv with commas or tabs, or MAESTRO's JSON of rows or of columns.

    Raises:
      ValueError: naming the file that is no such table, or the column that it lacks.
    """
    try:
        text = path.read_text("utf-8-sig")
        rows = _json_rows(json.loads(text)) if path.suffix == ".json" else _csv_rows(text)
    except (ValueError, LookupError, AttributeError, TypeError, csv.Error) as error:
        raise ValueError(f"{path}: not a table: {error}; download it again") from error
    missing = [name for name in columns if not rows or name not in rows[0]]
    if missing:
        raise ValueError(f"{path}: no column {missing[0]!r}; use the table the corpus came with")
    return rows


def _csv_rows(text: str) -> list[dict[str, str]]:
    file = io.StringIO(text, newline="")
    if "\t" in text.partition("\n")[0]:
        reader = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE, restval="")
    else:
        reader = csv.DictReader(file, restval="")
    return list(reader)


def _json_rows(content) -> list[dict[str, str]]:
    if isinstance(content, list):
        return [dict(row) for row in content]
    return [{k: v[i] for k, v in content.items()} for i in content["midi_filename"]]


def _listed(table: Path, names: Sequence[str]) -> list[Piece]:
    """Return the pieces of a table's paths; warn of missing ones, raise if all are missing."""
    paths = [path for name in names if (path := table.parent / name).is_file()]
    if names:
        _check_found(paths, table.parent, f"file that {table.name} lists, such as {names[0]!r}")
    if len(paths) < len(names):
        absent = len(names) - len(paths)
        message = f"{table}: {absent} of {len(names)} files are missing and left out"
        warnings.warn(message, stacklevel=3)
    return [_midi_piece(path, table.parent) for path in paths]


def _midi_piece(path: Path, directory: str | Path | None = None) -> Piece:
    """Return a piece named by its path in a directory, or by its file's name."""
    name = path.with_suffix("").relative_to(directory or path.parent).as_posix()
    return Piece(name, functools.partial(load_midi, path, strict=True))  # no half of a piece


def _check_split(split: str) -> None:
    if split not in SPLITS:
        raise ValueError(f"split {split!r}: expected one of {', '.join(SPLITS)}")


def _check_found(found, directory: str | Path, expected: str) -> None:
    if not found:
        raise FileNotFoundError(f"{directory}: no {expected} there; give the corpus's own folder")
