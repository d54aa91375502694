"""Results of models: notes of a recording, pieces, texts, scores; and how they are saved.

    transcriber.transcribe_file("song.wav").save("song.mid")
    for i, piece in enumerate(composer.compose(count=3)):
        piece.save(f"piece-{i}.png")

`save(path)` chooses the format by the suffix; the file appears complete or not at all.
"""

import dataclasses
import importlib.util
import io
import math
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from t5x.extras import how_to_install

if TYPE_CHECKING:
    from matplotlib.figure import Figure

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg")
NOTE_SUFFIXES = (".mid", ".midi", ".csv", ".json", ".png", *AUDIO_SUFFIXES)
TEXT_SUFFIXES = (".txt", ".json")
SCORE_SUFFIXES = (".json", ".csv")

#: Modules, and the extras that bring them, by the suffixes that need them.
_EXTRAS = {".png": ("matplotlib", "plots")}
#: Longest parts of a recording, and of a piece, that are drawn, s.
_RECORDING_SECONDS, _PIECE_SECONDS = 60.0, 120.0
_PICTURE_RATES = {"notes": 16_000, "drums": 44_100}  # Hz, of the recording under the notes
_RENDERING_RATE = 44_100


@dataclasses.dataclass(frozen=True)
class Transcription:
    """Transcription of a recording.

    Attributes:
      notes: `musax.notes` array [N], by onset; times in s.
      seconds: length of the recording.
      silent: every sample of the recording is 0.
      invalid_events: predicted events that make no sense, which were skipped.
      dropped_events: predicted events later than the end of their segment, which were skipped.
      unmatched_events: of decoding by a grammar, ends and ties of notes that turned out not to
        sound once the segments before were known; taken out of the tokens.
      drum_names: of drum models, names of the drums by pitch.
    """

    notes: np.ndarray
    seconds: float
    silent: bool
    invalid_events: int = 0
    dropped_events: int = 0
    unmatched_events: int = 0
    drum_names: Mapping[int, str] | None = None

    def save(self, path: str | os.PathLike, **options: Any) -> None:
        """Write the notes; suffixes, options and errors are those of `save_notes`."""
        save_notes(path, self.notes, **{"drum_names": self.drum_names, **options})


@dataclasses.dataclass(frozen=True)
class Piece:
    """A piece of music that a model composed or completed.

    Attributes:
      notes: `musax.notes` array [N] by onset, those that were given included; times in s.
      seconds: length, including the given part.
      prompt_seconds: where the new music begins, s.
      ended: the model ended the piece itself.
      tokens: int32 [L], the model's tokens.
      made: bool [L], the tokens that the model made; the others were given. None if unknown.
      tempo: quarter notes per minute.
    """

    notes: np.ndarray
    seconds: float
    prompt_seconds: float
    ended: bool
    tokens: np.ndarray
    made: np.ndarray | None = None
    tempo: float = 120.0

    def save(self, path: str | os.PathLike, **options: Any) -> None:
        """Write the piece; suffixes, options and errors are those of `save_notes`."""
        own = {"tempo": self.tempo, "seconds": self.seconds, "line": self.prompt_seconds or None}
        save_notes(path, self.notes, **{**own, **options})


@dataclasses.dataclass(frozen=True)
class Text:
    """A text that a model composed or completed.

    Attributes:
      text: all of it, including the given part.
      tokens: int32 [L], the model's tokens.
      made: bool [L], the tokens that the model made; the others were given.
    """

    text: str
    tokens: np.ndarray
    made: np.ndarray

    def save(self, path: str | os.PathLike) -> None:
        """Write the text (.txt), or text and tokens (.json).

        Raises:
          ValueError: another suffix.
          OSError: the file cannot be written.
        """
        from t5x.files import write_json, write_text

        if check_suffix(path, TEXT_SUFFIXES) == ".txt":
            write_text(path, self.text + "\n")
        else:
            write_json(path, dataclasses.asdict(self))


@dataclasses.dataclass(frozen=True)
class Score:
    """The likelihood of a piece or text.

    Attributes:
      nats: -log p of all tokens, or its estimate.
      tokens: number of tokens.
      estimate: "exact", or the name of the estimate, see the model's `score`.
    """

    nats: float
    tokens: int
    estimate: str

    @property
    def nats_per_token(self) -> float:
        """Mean of -log p."""
        return self.nats / self.tokens

    @property
    def bits_per_token(self) -> float:
        """Mean of -log2 p; for text of letters, bits per character."""
        return self.nats_per_token / math.log(2)

    def to_json(self) -> dict[str, Any]:
        """Return the attributes and both means by name."""
        means = {"nats_per_token": self.nats_per_token, "bits_per_token": self.bits_per_token}
        return {**dataclasses.asdict(self), **means}

    def save(self, path: str | os.PathLike) -> None:
        """Write `to_json` as .json, or as one row below its header as .csv.

        Raises:
          ValueError: another suffix.
          OSError: the file cannot be written.
        """
        import csv

        from t5x.files import write_json, write_text

        if check_suffix(path, SCORE_SUFFIXES) == ".json":
            write_json(path, self.to_json())
            return
        rows = io.StringIO()
        writer = csv.DictWriter(rows, list(self.to_json()), lineterminator="\n")
        writer.writeheader()
        writer.writerow(self.to_json())
        write_text(path, rows.getvalue())


# ---------------------------------------------------------------------------------------- writing


def check_suffix(path: str | os.PathLike, suffixes: Collection[str] = NOTE_SUFFIXES) -> str:
    """Return the suffix of a path in lower case, such as ".mid".

    Raises:
      ValueError: it is none of `suffixes`.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in suffixes:
        raise ValueError(f"{path}: suffix {suffix!r}, expected one of {', '.join(suffixes)}")
    return suffix


def check_extra(suffix: str) -> None:
    """Raise ImportError, which names the extra, if a format needs one that is not installed."""
    module, extra = _EXTRAS.get(suffix, ("", ""))
    if module and importlib.util.find_spec(module) is None:
        raise ImportError(
            f"format {suffix} needs {module}, which is not installed: {how_to_install(extra)}"
        )


def save_notes(
    path: str | os.PathLike,
    notes: np.ndarray,
    *,
    tempo: float = 120.0,
    first_beat: float = 0.0,
    source: str | os.PathLike | None = None,
    seconds: float | None = None,
    line: float | None = None,
    title: str | None = None,
    drum_names: Mapping[int, str] | None = None,
    soundfont: str | os.PathLike | None = None,
    kit: Any = None,
) -> None:
    """Write notes in the format of the suffix, complete or not at all.

    Args:
      path: .mid, .midi: a MIDI file. .csv, .json: see `musax.notes_io`. .png: a picture, of notes
        over the spectrum of `source`, or of a piano roll. .wav, .flac, .ogg: the notes played by a
        soundfont or drum kit.
      notes: `musax.notes` array [N].
      tempo, first_beat: of a MIDI file, see `musax.midi.save_midi`.
      source: for pictures, the recording that was transcribed; its first minute is drawn.
      seconds: for pictures of pieces, the length; None for the end of the last note.
      line: for pictures of pieces, a time to mark, s; up to two minutes around it are drawn.
      title: of pictures; None for the name of the recording, or of the file.
      drum_names: names of the drums by pitch; pictures then have a row for each drum.
      soundfont: path or name of an .sf2/.sf3 file; None for the bank that musax brings.
      kit: a `musax.rendering.drum_kits.DrumKit` that plays the notes, in place of a soundfont.

    Raises:
      ValueError: an unknown suffix, invalid notes, or a soundfont or recording that is missing.
      ImportError: the format needs an extra that is not installed.
      OSError: the file cannot be written.
    """
    suffix = check_suffix(path)
    if kit is None:
        check_extra(suffix)
    if suffix in (".mid", ".midi"):
        from musax.midi import save_midi

        save_midi(path, notes, tempo=tempo, first_beat=first_beat)
    elif suffix in (".csv", ".json"):
        from musax import notes_io

        save = notes_io.save_notes_csv if suffix == ".csv" else notes_io.save_notes_json
        save(path, notes)
    elif suffix == ".png":
        from musax.plots import save_figure

        if source is None and drum_names is None:
            figure = _draw_piece(notes, seconds, line, title or Path(path).name)
        else:
            figure = _draw_recording(notes, source, drum_names, title)
        save_figure(figure, path)
    elif kit is not None:
        _save_drum_rendering(path, notes, kit)
    else:
        save_rendering(path, notes, soundfont)


def _draw_piece(
    notes: np.ndarray, seconds: float | None, line: float | None, title: str
) -> "Figure":
    from musax.plots import plot_piano_roll

    length = float(notes["offset"].max(initial=0.0)) if seconds is None else seconds
    start = max((line or 0.0) - _PIECE_SECONDS / 2, 0.0)
    shown = min(max(length - start, 0.1), _PIECE_SECONDS)
    return plot_piano_roll(notes, start=start, seconds=shown, line=line, title=title)


def _draw_recording(
    notes: np.ndarray,
    source: str | os.PathLike | None,
    drum_names: Mapping[int, str] | None,
    title: str | None,
) -> "Figure":
    """Return a picture of the first minute of a transcription."""
    from musax.audio import stream_audio
    from musax.drum_plots import plot_drums
    from musax.plots import plot_transcription

    rate = _PICTURE_RATES["notes" if drum_names is None else "drums"]
    audio, seconds, cut = None, None, False
    if source is not None:
        chunks = stream_audio(source, rate, chunk_seconds=_RECORDING_SECONDS)
        audio = next(chunks)
        seconds = len(audio) / rate
        cut = next(chunks, audio[:0]).size > 0
        title = title or Path(source).name
    if cut:
        title = f"{title} (the first {_RECORDING_SECONDS:g} s)"
    shown = notes if seconds is None else notes[notes["onset"] < seconds]
    given = {"audio": audio, "sample_rate": None if audio is None else rate, "title": title}
    if drum_names is not None:
        return plot_drums(shown, names=drum_names, **given)
    return plot_transcription(shown, seconds=seconds, **given)


def save_rendering(
    path: str | os.PathLike,
    notes: np.ndarray,
    soundfont: str | os.PathLike | None = None,
    sample_rate: int = _RENDERING_RATE,
) -> None:
    """Write notes played by a soundfont, in stereo.

    What exceeds full scale is scaled down with a warning, see `musax.audio.save_audio`.

    Args:
      path: an audio file; the suffix chooses the format.
      notes: `musax.notes` array [N]; without any, the file holds a moment of silence.
      soundfont: path or name of an .sf2/.sf3 file; None for the bank that musax brings.
      sample_rate: Hz.

    Raises:
      SoundfontError, AudioError, ImportError: something is missing or cannot be written.
    """
    from musax.audio import save_audio
    from musax.rendering.synthesizer import Synthesizer

    seconds = None if len(notes) else 0.1
    audio = Synthesizer(soundfont, sample_rate).render(notes, stereo=True, seconds=seconds)
    save_audio(path, audio, sample_rate)


def _save_drum_rendering(path: str | os.PathLike, notes: np.ndarray, kit: Any) -> None:
    from musax.audio import save_audio
    from musax.rendering.drum_sampler import render_drums

    save_audio(path, render_drums(notes, kit), kit.sample_rate)
