"""What verbs that write notes have in common: one input after the other, and its results."""

import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from musax.commands.console import describe_exception, minutes, report_error, report_warning
from musax.commands.files import InputError, Job, ensure_writable, existing

PNG_SECONDS = 60.0  # of music can be told apart in one picture
_PNG_RATE = 16000

_EXTRAS = (("png", "matplotlib", "plots"), ("wav", "tinysoundfont", "render"))


def check_outputs(jobs: Sequence[Job], formats: Sequence[str]) -> None:
    """Raises InputError before any work, rather than after it, if results could not be written.

    That is if a folder is not writable, or a format needs an extra which is not installed.
    """
    import importlib.util

    for folder in {path.parent for job in jobs for path in job.outputs.values()}:
        ensure_writable(folder)
    for suffix, module, extra in _EXTRAS:
        if suffix in formats and importlib.util.find_spec(module) is None:
            raise InputError(
                f"format {suffix} needs {module}, which is not installed: "
                f"pip install 'musax[{extra}]'"
            )


def run_jobs(
    jobs: Sequence[Job], work: Callable[[Job], str], *, overwrite: bool, quiet: bool
) -> int:
    """Does every job, whatever becomes of the others: the exit status, 1 if any failed.

    Args:
      jobs: inputs and where their results go.
      work: does one, writes its results, and returns what to say of it.
      overwrite: whether results may replace files.
      quiet: say only what went wrong.
    """
    failures = 0
    for job in jobs:
        try:
            _check_overwriting(job, overwrite)
            started = time.monotonic()
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", UserWarning)
                said = work(job)
        except Exception as error:
            report_error(describe_exception(error, job.source))
            failures += 1
            continue
        for message in dict.fromkeys(str(warning.message) for warning in caught):
            report_warning(message)
        if not quiet:
            taken = f"{time.monotonic() - started:.1f} s"
            print(f"{job.source}: {said}, {taken} -> {job.names}", flush=True)
    if failures and len(jobs) > 1:
        report_error(f"{failures} of {len(jobs)} inputs failed")
    return 1 if failures else 0


def summary(result: Any, kind: str, more: str = "") -> str:
    """What to say of a transcription whose notes are called `kind`."""
    if result.silent:
        return f"silent (every sample is 0), so there are no {kind}"
    return f"{len(result.notes)} {kind} in {minutes(result.seconds)} of audio{more}"


def _check_overwriting(job: Job, allowed: bool) -> None:
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
