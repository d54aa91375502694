"""Scores of drum transcribers on takes and recordings whose hits are known.

    systems = load_systems("drums-small")
    print(evaluate({"unseen": "data/drums_unseen"}, systems, mdb="data/mdb_drums").render())

Onsets agree within 50 ms; `musax.metrics.drums` describes the metrics. Beside every model stands
the same with one velocity for all hits.
"""

import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from drums.tasks import prepared_takes
from drums.vocabularies import get_level, map_notes
from musax import pretrained
from musax.audio import load_audio, to_float
from musax.datasets.mdb_drums import read_mdb_drums
from musax.datasets.rendered_midi import take_notes
from musax.metrics import Progress, no_progress
from musax.metrics import drums as metrics
from musax.metrics.transcription import Scores
from musax.tables import Report, Table

CONSTANT_VELOCITY = 80
#: General MIDI pitches of kick, snare and hi-hat, the classes that all annotations distinguish.
KIT = (36, 38, 42)
MDB_NAME = "MDB Drums"
COLUMNS = (
    "onset F1 macro",
    "onset F1 micro",
    "velocity F1 macro",
    "absolute velocity F1 macro",
    "velocity MAE",
    "velocity correlation",
    "timing MAE",
)


@dataclasses.dataclass(frozen=True)
class System:
    """A drum transcriber.

    Attributes:
      name: in tables.
      transcribe: function of float32 [samples], their rate (Hz) and a level, to hits of the level.
      velocities_only: it differs from another system in velocities alone, so that it is left out
        where they are not scored.
    """

    name: str
    transcribe: Callable[[np.ndarray, int, str], np.ndarray]
    velocities_only: bool = False


def load_systems(name_or_dir: str, threshold: float | None = None) -> list[System]:
    """Load a model by name or folder: as it is, and with one velocity for all hits.

    Args:
      name_or_dir: see `musax.pretrained.load`.
      threshold: of onsets; None for the model's own.

    Raises:
      PretrainedError: the model is unknown, or none of drums.
    """
    transcriber = pretrained.load(name_or_dir, task="drums")
    label = Path(name_or_dir).resolve().name if os.sep in name_or_dir else name_or_dir

    def learned(audio: np.ndarray, rate: int, level: str) -> np.ndarray:
        return transcriber.transcribe(audio, rate, level=level, threshold=threshold).notes

    def constant(audio: np.ndarray, rate: int, level: str) -> np.ndarray:
        notes = learned(audio, rate, level)
        notes["velocity"] = CONSTANT_VELOCITY
        return notes

    return [System(label, learned), System(f"{label}, constant velocity", constant, True)]


def evaluate(
    takes: Mapping[str, str],
    systems: Sequence[System],
    *,
    mdb: str | None = None,
    split: str = "test",
    level: str = "9",
    limit: int | None = None,
    classes: bool = False,
    progress: Progress = no_progress,
) -> Report:
    """Score systems on prepared takes, and on the recordings of MDB Drums.

    Args:
      takes: folders of prepared takes, by the name of the set.
      systems: with distinct names.
      mdb: the folder of MDB Drums; None leaves it out.
      split: of the takes.
      level: classes of the takes, see `drums.vocabularies.LEVELS`.
      limit: takes of each set; None for all.
      classes: whether there are tables of single classes too.
      progress: called after each take or recording.

    Raises:
      ValueError, OSError: data or options are wrong.
    """
    data: dict[str, dict[str, dict[str, float]]] = {}
    tables = []
    for name, directory in takes.items():
        found = {s.name: score_takes(s, directory, split, level, limit, progress) for s in systems}
        data[name] = found
        tables.append(_table(f"{name} (classes {level})", found, COLUMNS))
        if classes:
            tables.append(_class_table(f"{name}, by class", found, level))
    if mdb is not None:
        scored = [s for s in systems if not s.velocities_only]
        data[MDB_NAME] = {s.name: score_mdb(s, mdb, progress) for s in scored}
        tables.append(_table(MDB_NAME, data[MDB_NAME]))
    return Report(tables, data)


def score_takes(
    system: System,
    directory: str,
    split: str = "test",
    level: str = "9",
    limit: int | None = None,
    progress: Progress = no_progress,
) -> dict[str, float]:
    """Return `musax.metrics.drums.evaluate` of the takes of a folder; see `evaluate`."""
    takes = prepared_takes(directory).sequence(split)
    count = min(len(takes), limit or len(takes))

    def records() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for i in range(count):
            audio, rate = to_float(takes[i]["audio"]), int(takes[i]["sample_rate"])
            truth = map_notes(take_notes(takes[i]), level)
            yield truth, system.transcribe(audio, rate, level)
            progress(f"{system.name}: {directory}", i + 1, count)

    named = dict(zip(get_level(level).pitches.tolist(), get_level(level).names))
    return metrics.evaluate(records(), named)


def score_mdb(system: System, directory: str, progress: Progress = no_progress) -> dict[str, float]:
    """Return onset F1 on MDB Drums: of anything, of kick, snare and hi-hat, of "3-hit" and "5".

    "any onset" counts hits within 30 ms once, "any hit" counts each. The three classes are those of
    the class annotations; hits of other classes, true or estimated, do not count. "3-hit" and "5"
    take all hits, by their subclasses.
    """
    rows: dict[str, list[Scores]] = {"any onset": [], "any hit": []}
    pooled: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    items = read_mdb_drums(directory)
    for done, item in enumerate(items, start=1):
        audio, rate = load_audio(item.audio, mono=True)
        truth = item.subclasses()
        five = system.transcribe(audio, rate, "5")
        for name, merge in (("any onset", True), ("any hit", False)):
            rows[name].append(metrics.any_onset_scores(truth, five, merge=merge))
        classes = item.classes()
        pairs = {
            "kick, snare, hi-hat": (
                classes[np.isin(classes["pitch"], KIT)],
                five[np.isin(five["pitch"], KIT)],
            ),
            "3-hit": (map_notes(truth, "3-hit"), system.transcribe(audio, rate, "3-hit")),
            "5": (map_notes(truth, "5"), five),
        }
        for name, pair in pairs.items():
            pooled.setdefault(name, []).append(pair)
        progress(f"{system.name}: {directory}", done, len(items))
    result = {f"{k} F1 macro": float(np.mean([s.f1 for s in v])) for k, v in rows.items()}
    for name, records in pooled.items():
        scores = metrics.evaluate(records)
        result |= {f"{name} F1 {kind}": scores[f"onset F1 {kind}"] for kind in ("macro", "micro")}
    return result


def _table(
    title: str, scores: Mapping[str, Mapping[str, float]], columns: Sequence[str] | None = None
) -> Table:
    """Return one row for each system."""
    columns = list(columns or next(iter(scores.values())))
    rows = [{"system": name} | {c: found[c] for c in columns} for name, found in scores.items()]
    formats: dict[str, Any] = dict.fromkeys(columns, ".3f")
    return Table(title, rows, formats | {"timing MAE": lambda s: f"{1000 * s:.1f} ms"})


def _class_table(title: str, scores: Mapping[str, Mapping[str, float]], level: str) -> Table:
    """Return one row for each class, with its hits and the onset F1 of every system."""
    first = next(iter(scores.values()))
    rows = [
        {"class": name, "hits": int(first[f"{name}: hits"])}
        | {f"{system}: onset F1": s[f"{name}: onset F1"] for system, s in scores.items()}
        | {"velocity MAE": first[f"{name}: velocity MAE"]}
        for name in get_level(level).names
    ]
    formats = {f"{system}: onset F1": ".3f" for system in scores}
    return Table(title, rows, {**formats, "velocity MAE": ".1f"})
