"""Sets of recordings with known notes, for the evaluation of transcribers.

A set is a list of `Recording`s: files with their notes beside them (`folder_set`), or excerpts of
POP909's test songs played through a soundfont (`rendered_set`), or test trios of Lakh (`band_set`).
"""

import dataclasses
from pathlib import Path

import numpy as np

from musax.audio import load_audio, normalize_peak, to_float
from musax.midi import load_midi
from musax.notes import make_notes, sort_notes, trim_overlapping_notes, validate_notes
from musax.notes_io import load_notes_csv, load_notes_json

AUDIO_SUFFIXES = (".flac", ".wav", ".mp3", ".ogg", ".opus", ".aif", ".aiff")
RENDER_RATE = 16000
_SHORTEST_NOTE_S = 0.012  # what trimming leaves of unisons


@dataclasses.dataclass(frozen=True)
class Recording:
    """Audio, float32 mono [samples], and the notes in it."""

    name: str
    audio: np.ndarray
    sample_rate: int
    notes: np.ndarray

    @property
    def seconds(self) -> float:
        """Length, s."""
        return len(self.audio) / self.sample_rate


def folder_set(directory: str | Path) -> list[Recording]:
    """Read the audio files of a folder that have their notes beside them, by name.

    The notes of `x.flac` are in `x` with one of `NOTE_SUFFIXES`, `x.tsv` before the others.

    Raises:
      FileNotFoundError: no such folder, or no audio file with its truth in it.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise FileNotFoundError(f"{directory}: no such folder")
    recordings = []
    for path in sorted(directory.iterdir()):
        if path.suffix.lower() not in AUDIO_SUFFIXES:
            continue
        truth = next(iter(note_files(path)), None)
        if truth is not None:
            audio, sample_rate = load_audio(path)
            recordings.append(Recording(path.stem, audio, sample_rate, load_notes(truth)))
    if not recordings:
        raise FileNotFoundError(
            f"{directory}: no audio file ({', '.join(AUDIO_SUFFIXES)}) with its notes beside it; "
            f"expected the same name with {' or '.join(NOTE_SUFFIXES)}"
        )
    return recordings


def note_files(audio: Path) -> list[Path]:
    """Return the files of notes beside a recording, under its name."""
    return [path for s in NOTE_SUFFIXES if (path := audio.with_suffix(s)).is_file()]


def load_notes(path: Path) -> np.ndarray:
    """Return the notes of a file of one of `NOTE_SUFFIXES`, by onset.

    Raises:
      ValueError: the file cannot be read as what its suffix says; names it.
    """
    return sort_notes(_NOTE_READERS[path.suffix.lower()](path))


def load_note_table(path: str | Path) -> np.ndarray:
    """Read notes of a text table: onset s, offset s, MIDI pitch, velocity (1 to 127), `#` comments.

    Raises:
      ValueError: the file is no such table; names the file.
    """
    try:
        rows = np.loadtxt(path, ndmin=2)
    except ValueError as error:
        raise ValueError(f"{path}: not a table of numbers ({error})") from error
    if not rows.size:
        rows = np.zeros((0, 4))
    if rows.shape[1] < 3:
        raise ValueError(
            f"{path}: {rows.shape[1]} columns; expected onset, offset, pitch and velocity"
        )
    velocity = rows[:, 3] if rows.shape[1] > 3 else np.full(len(rows), 100)
    notes = make_notes(rows[:, 0], rows[:, 1], rows[:, 2].astype(int), velocity.astype(int))
    return sort_notes(validate_notes(notes, str(path)))


def rendered_set(
    soundfont: str, pop909: str | Path, *, pieces: int = 16, seconds: float = 30.0
) -> list[Recording]:
    """Render piano excerpts from the middle of POP909 test songs, dry, by a soundfont.

    Deterministic. Songs are spread evenly over the split; all tracks play General MIDI program 0.

    Args:
      soundfont: name or path, see `musax.rendering.soundfonts.find_soundfont`.
      pop909: the dataset's folder.
      pieces: number of songs.
      seconds: length of an excerpt.
    """
    from musax.datasets.pieces import pop909 as songs
    from musax.rendering.synthesizer import Synthesizer

    synthesizer = Synthesizer(soundfont, RENDER_RATE)
    split = songs(pop909, "test")
    chosen = [split[i * len(split) // pieces] for i in range(min(pieces, len(split)))]
    recordings = []
    for song in chosen:
        notes = middle_excerpt(song.load(), seconds)
        audio = synthesizer.render(notes, seconds=seconds)
        audio = normalize_peak(audio)
        recordings.append(Recording(song.name, audio, RENDER_RATE, notes))
    return recordings


def band_set(
    soundfont: str, lakh64: str | Path, *, pieces: int = 16, seconds: float = 30.0
) -> list[Recording]:
    """Render excerpts of Lakh's test trios (melody, bass, drums), each part on a random instrument.

    Deterministic; see `musax.datasets.rendered_ensembles`, without its variations.

    Args:
      soundfont: name or path, see `musax.rendering.soundfonts.find_soundfont`.
      lakh64: the folder of the 64-bar excerpts.
      pieces: number of excerpts.
      seconds: length of an excerpt.
    """
    from musax.datasets.pieces import lakh64_trios
    from musax.datasets.rendered_ensembles import RenderedEnsembles
    from musax.datasets.rendered_midi import take_notes
    from musax.rendering.soundfonts import find_soundfont

    takes = RenderedEnsembles(
        lakh64_trios(lakh64, "test"), [], [str(find_soundfont(soundfont))],
        num_takes=pieces, seconds=seconds, sample_rate=RENDER_RATE, vary=False,
    )  # fmt: skip
    return [
        Recording(f"trio {i}", to_float(take["audio"]), RENDER_RATE, take_notes(take))
        for i, take in enumerate(takes)
    ]


def middle_excerpt(notes: np.ndarray, seconds: float) -> np.ndarray:
    """Return the pitched notes that begin in the middle `seconds` of a piece, as one piano's.

    Notes still sounding at the end are cut there; a pitch struck again ends before.
    """
    notes = notes[~notes["is_drum"]].copy()
    last = notes["offset"].max(initial=0.0)
    start = max(0.0, (last - seconds) / 2)
    notes = notes[(notes["onset"] >= start) & (notes["onset"] < start + seconds)]
    notes["onset"] -= start
    notes["offset"] = np.minimum(notes["offset"] - start, seconds)
    notes["program"] = 0
    notes = trim_overlapping_notes(sort_notes(notes))
    return sort_notes(notes[notes["offset"] - notes["onset"] > _SHORTEST_NOTE_S])


_NOTE_READERS = {
    ".tsv": load_note_table,
    ".mid": load_midi,
    ".midi": load_midi,
    ".csv": load_notes_csv,
    ".json": load_notes_json,
}
#: Files of notes: a table of numbers, MIDI, and those of `musax.notes_io`.
NOTE_SUFFIXES = tuple(_NOTE_READERS)
