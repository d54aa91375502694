"""Scores of transcribers on sets of recordings with known notes.

    sets = {"MAPS": folder_set("data/maps")}
    print(evaluate(sets, [load_system("mt3-piano-tiny")]).render())

Scores are means over the recordings of a set, with 95 % bootstrap intervals over recordings: notes
whose onset is within 50 ms, the same with offsets (20 % or 50 ms), and frames of 16 ms; see
`musax.metrics.transcription`.
"""

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from musax import pretrained
from musax.datasets.recordings import Recording
from musax.metrics import Progress, no_progress
from musax.metrics import transcription as metrics
from musax.metrics.bootstrap import bootstrap_mean
from musax.tables import Report, Table

Scorer = Callable[[np.ndarray, np.ndarray], metrics.Scores]
#: {metric: {"precision", "recall", "f1"}}
RecordingScores = dict[str, dict[str, float]]

METRICS: Mapping[str, Scorer] = {
    "Onset": metrics.onset_scores,
    "Onset + offset": metrics.onset_offset_scores,
    "Frame": metrics.frame_scores,
}
PROGRAM_METRICS = ("Drum onset", "Onset + offset + program")
_RESAMPLES = 10_000


@dataclasses.dataclass(frozen=True)
class System:
    """A transcriber.

    Attributes:
      name: in tables.
      transcribe: function of float32 [samples] and their rate (Hz), to notes.
    """

    name: str
    transcribe: Callable[[np.ndarray, int], np.ndarray]


def load_system(name_or_dir: str, decode: str = "constrained") -> System:
    """Load a model by name or folder.

    Args:
      name_or_dir: see `musax.pretrained.load`.
      decode: see `mt3.inference.Transcriber.transcribe`.

    Raises:
      PretrainedError: the model is unknown, or none that transcribes.
    """
    model = pretrained.load(name_or_dir, task="transcribe")
    label = Path(name_or_dir).resolve().name if os.sep in name_or_dir else name_or_dir

    def transcribe(audio: np.ndarray, rate: int) -> np.ndarray:
        return model.transcribe(audio, rate, decode=decode, velocity=None).notes  # as the reference

    return System(label, transcribe)


def evaluate(
    sets: Mapping[str, Sequence[Recording]],
    systems: Sequence[System],
    programs: str | None = None,
    progress: Progress = no_progress,
) -> Report:
    """Score every system on every set.

    Args:
      sets: recordings of each set, by its name.
      systems: with distinct names.
      programs: granularity at which instruments are compared as well, see
        `musax.metrics.transcription.program_scores`; None leaves `PROGRAM_METRICS` out.
      progress: called after each recording.

    Returns:
      A table for each set; the data has the scores of each recording too.
    """
    scorers = dict(METRICS) | (_program_scorers(programs) if programs else {})
    data = {"format": 1, "interval": "bootstrap over recordings, 95 %", "sets": {}}
    for name, recordings in sets.items():
        by_system = {}
        for system in systems:
            scores = _score_set(system, recordings, scorers, f"{system.name}: {name}", progress)
            by_system[system.name] = {"scores": _summarise(scores), "recordings": scores}
        data["sets"][name] = {
            "recordings": len(recordings),
            "seconds": sum(recording.seconds for recording in recordings),
            "notes": sum(len(recording.notes) for recording in recordings),
            "systems": by_system,
        }
    return Report([_table(name, scored) for name, scored in data["sets"].items()], data)


def _program_scorers(granularity: str) -> dict[str, Scorer]:
    def scorer(name: str) -> Scorer:
        return lambda ref, est: metrics.program_scores(ref, est, granularity)[name]

    return {name: scorer(name) for name in PROGRAM_METRICS}


def _score_set(
    system: System,
    recordings: Sequence[Recording],
    scorers: Mapping[str, Scorer],
    title: str,
    progress: Progress,
) -> dict[str, RecordingScores]:
    scores = {}
    for done, recording in enumerate(recordings, start=1):
        notes = system.transcribe(recording.audio, recording.sample_rate)
        scores[recording.name] = {
            name: {k: float(v) for k, v in scorer(recording.notes, notes)._asdict().items()}
            for name, scorer in scorers.items()
        }
        progress(title, done, len(recordings))
    return scores


def _summarise(by_recording: Mapping[str, RecordingScores]) -> dict[str, dict[str, float]]:
    """Return means of precision, recall and f1 by metric, and "low" and "high" of the mean f1."""
    rows = list(by_recording.values())
    summary = {}
    for name in rows[0]:
        mean = {k: float(np.mean([row[name][k] for row in rows])) for k in rows[0][name]}
        f1 = bootstrap_mean([row[name]["f1"] for row in rows], resamples=_RESAMPLES)
        summary[name] = {**mean, "low": f1.low, "high": f1.high}
    return summary


def _table(name: str, scored: Mapping) -> Table:
    rows = [
        {"System": system} | {f"{m} F1": tuple(s.values()) for m, s in entry["scores"].items()}
        for system, entry in scored["systems"].items()
    ]
    size = f"{scored['recordings']} recordings, {scored['seconds'] / 60:.1f} min"
    formats = dict.fromkeys((column for row in rows for column in row), _f1_text)
    return Table(f"{name}: {size}, {scored['notes']} notes", rows, formats | {"System": str})


def _f1_text(score: tuple[float, ...]) -> str:
    _, _, f1, low, high = score
    return f"{f1:.3f} [{low:.2f}, {high:.2f}]"
