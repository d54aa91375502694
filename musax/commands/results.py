"""What verbs that write notes have in common: loading the model, writing the results."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from musax.commands.console import describe_exception, minutes, report_error
from musax.commands.files import InputError, Job, existing

PNG_SECONDS = 60.0  # of music can be told apart in one picture
_PNG_RATE = 16000

_EXTRAS = (("png", "matplotlib", "plots"), ("wav", "tinysoundfont", "render"))


def check_extras(formats: Sequence[str]) -> None:
    """Raises InputError before any work, rather than after it, if a format needs an extra."""
    import importlib.util

    for suffix, module, extra in _EXTRAS:
        if suffix in formats and importlib.util.find_spec(module) is None:
            raise InputError(
                f"format {suffix} needs {module}, which is not installed: "
                f"pip install 'musax[{extra}]'"
            )


def check_overwriting(job: Job, allowed: bool) -> None:
    """Raises InputError if results exist that nobody asked to replace."""
    there = existing(job.outputs.values())
    if there and not allowed:
        raise InputError(
            f"{job.source}: {there[0]} exists already; give -o DIR, or --overwrite to replace it"
        )


def load_model(name: str) -> Any:
    """A model by name or folder; None, with a line on stderr, if that fails."""
    from musax import pretrained

    try:
        return pretrained.load(name)
    except Exception as error:
        report_error(describe_exception(error, name))
        return None


def write_results(notes: Any, job: Job, soundfont: str | None = None) -> None:
    """Writes the outputs of `job`; every file appears complete or not at all."""
    for suffix, path in job.outputs.items():
        _WRITERS[suffix](path, notes, job.source, soundfont)


def _write_midi(path: Path, notes: Any, source: Path, soundfont: str | None) -> None:
    from musax.midi import save_midi

    save_midi(path, notes)


def _write_csv(path: Path, notes: Any, source: Path, soundfont: str | None) -> None:
    from musax.notes_io import save_notes_csv

    save_notes_csv(path, notes)


def _write_json(path: Path, notes: Any, source: Path, soundfont: str | None) -> None:
    from musax.notes_io import save_notes_json

    save_notes_json(path, notes)


def _write_png(path: Path, notes: Any, source: Path, soundfont: str | None) -> None:
    import numpy as np

    from musax.audio import stream_audio
    from musax.plots import plot_transcription, save_figure

    chunks = stream_audio(source, _PNG_RATE, chunk_seconds=PNG_SECONDS)
    audio = next(chunks)
    seconds = len(audio) / _PNG_RATE
    longer = next(chunks, np.zeros(0, np.float32)).size > 0
    shown = notes[notes["onset"] < seconds]
    part = f" (the first {minutes(seconds)})" if longer else ""
    figure = plot_transcription(
        shown, audio=audio, sample_rate=_PNG_RATE, seconds=seconds, title=source.name + part
    )
    save_figure(figure, path)


def _write_wav(path: Path, notes: Any, source: Path, soundfont: str | None) -> None:
    from musax.commands.render import write_rendering

    write_rendering(path, notes, soundfont)


_WRITERS: dict[str, Callable[[Path, Any, Path, str | None], None]] = {
    "mid": _write_midi,
    "csv": _write_csv,
    "json": _write_json,
    "png": _write_png,
    "wav": _write_wav,
}
