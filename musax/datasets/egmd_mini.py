"""A small E-GMD: Groove's performances played on locally installed kits, in E-GMD's layout.

    <directory>/drummer1/session1/1_funk_80_beat_4-4_2.midi    performance 1 on the second kit
    <directory>/drummer1/session1/1_funk_80_beat_4-4_2.wav     44.1 kHz, 16 bit, mono
    <directory>/e-gmd-v1.0.0.csv                               the last file to be written

Existing files are kept, so an interrupted run continues; further runs add splits and
kits to the csv.
"""

import csv
import multiprocessing
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from musax.audio import audio_info, normalize_peak, save_audio
from musax.datasets.groove import (
    EGMD_COLUMNS,
    EGMD_CSV,
    DrumPerformance,
    GrooveError,
)
from musax.midi import load_midi, save_midi
from musax.rendering.drum_kits import load_drum_kit
from musax.rendering.drum_sampler import render_drums, sounding_notes
from t5x.files import atomic_path
from t5x.user_paths import user_path

SAMPLE_RATE = 44100


class _Job(NamedTuple):
    """One recording to render; picklable for another process."""

    performance: DrumPerformance
    kit: str
    stem: str  # of the files, relative to the directory
    directory: Path
    seed: int


def write_egmd_mini(
    performances: Sequence[DrumPerformance],
    kits: Sequence[str],
    directory: str | Path,
    *,
    limit: int | None = None,
    seed: int = 0,
    workers: int = 1,
    progress: Callable[[Iterable], Iterable] = iter,
) -> list[dict[str, str]]:
    """Render every performance on every kit.

    MIDI files hold the notes that sound on the kit, and the audio is rendered from them.
    Kits are numbered from 1 in the order given: add kits to a directory at the end of the list.

    Args:
      performances: of `read_groove`.
      kits: for `load_drum_kit`.
      directory: created if it is missing.
      limit: most performances to render, spread evenly over the given ones.
      seed: of takes and small variations; a file depends on it, its performance and kit alone.
      workers: processes.
      progress: wraps the stream of finished recordings.

    Returns:
      The rows of the csv that belong to this call.

    Raises:
      GrooveError: nothing to do, or the directory has another kit of the same number.
      DrumKitError: a kit is missing or unreadable.
    """
    if not performances or not kits or (limit is not None and limit < 1):
        raise GrooveError("a small E-GMD needs at least one performance and one kit")
    directory = user_path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    if limit is not None and limit < len(performances):
        places = np.linspace(0, len(performances) - 1, limit).round().astype(int)
        performances = [performances[i] for i in places.tolist()]
    jobs = [
        _Job(performance, kit, f"{_stem(performance)}_{number}", directory, seed)
        for number, kit in enumerate(kits, 1)
        for performance in performances
    ]
    rows = _read_rows(directory / EGMD_CSV)
    _check_kits(rows, jobs, directory)
    for kit in kits:
        load_drum_kit(kit, SAMPLE_RATE)  # bad names show before anything is written
    if workers > 1:
        with multiprocessing.get_context("spawn").Pool(min(workers, len(jobs))) as pool:
            written = list(progress(pool.imap(_make, jobs, chunksize=8)))
    else:
        written = list(progress(map(_make, jobs)))
    rows |= {row["midi_filename"]: row for row in written}
    _write_rows(directory / EGMD_CSV, [rows[name] for name in sorted(rows)])
    return written


def _stem(performance: DrumPerformance) -> str:
    """Return the files' path below the session's folder, without suffix: as Groove's."""
    return f"{performance.session}/{performance.midi_path.stem}"


def _make(job: _Job) -> dict[str, str]:
    """Write one recording unless it exists; return its row."""
    midi_path = job.directory / f"{job.stem}.midi"
    audio_path = job.directory / f"{job.stem}.wav"
    if not (midi_path.is_file() and audio_path.is_file()):
        kit = load_drum_kit(job.kit, SAMPLE_RATE)
        midi_path.parent.mkdir(parents=True, exist_ok=True)
        notes = sounding_notes(job.performance.load(), kit)
        save_midi(midi_path, notes, tempo=job.performance.bpm)
        rng = np.random.default_rng([job.seed, 7, zlib.crc32(job.stem.encode())])
        # Times in the file are rounded to ticks; the audio follows the file.
        audio = render_drums(load_midi(midi_path), kit, rng=rng)
        if not len(audio):
            audio = np.zeros(round(max(job.performance.duration, 0.1) * SAMPLE_RATE), np.float32)
        audio = normalize_peak(audio)
        save_audio(audio_path, audio, SAMPLE_RATE, subtype="PCM_16")
    return _row(job, audio_info(audio_path).seconds)


def _row(job: _Job, seconds: float) -> dict[str, str]:
    same = ("drummer", "session", "id", "style", "beat_type", "time_signature", "split")
    values = {name: str(getattr(job.performance, name)) for name in same}
    values |= {
        "bpm": f"{job.performance.bpm:g}",
        "duration": f"{seconds:.6f}",
        "midi_filename": f"{job.stem}.midi",
        "audio_filename": f"{job.stem}.wav",
        "kit_name": job.kit,
    }
    return {name: values[name] for name in EGMD_COLUMNS}


def _read_rows(path: Path) -> dict[str, dict[str, str]]:
    if not path.is_file():
        return {}
    with open(path, newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != EGMD_COLUMNS:
            raise GrooveError(
                f"{path}: not a csv of E-GMD (expected columns {', '.join(EGMD_COLUMNS)}); choose "
                "another directory"
            )
        return {row["midi_filename"]: row for row in reader}


def _check_kits(rows: dict[str, dict[str, str]], jobs: Sequence[_Job], directory: Path) -> None:
    for job in jobs:
        other = rows.get(f"{job.stem}.midi", {}).get("kit_name", job.kit)
        if other != job.kit:
            raise GrooveError(
                f"{directory}: {job.stem}.midi is there, played on {other}, not on {job.kit}; give "
                "the kits in the order of the first run, or choose another directory"
            )


def _write_rows(path: Path, rows: Iterable[dict[str, str]]) -> None:
    with (
        atomic_path(path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, EGMD_COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
