#!/usr/bin/env python
"""Scores drum transcription on takes and recordings whose hits are known, all in one run.

Examples:
  # takes of musax prepare rendered-drums --no-vary, and real recordings
  scripts/evaluate_drums.py --takes seen=data/drums_seen --takes unseen=data/drums_unseen \\
      --mdb data/mdb_drums --model drums-small

  # classes one by one, at another level
  scripts/evaluate_drums.py --takes unseen=data/drums_unseen --model drums-small --level 8-hit \\
      --classes

Beside every model stand itself with one velocity for all hits, and spectral flux in three bands.
Onsets agree within 50 ms; see `musax.metrics.drums` for what is reported.
"""

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `benchmarks`

from drums.preprocessors import as_float
from drums.tasks import prepared_takes
from drums.vocabularies import LEVELS, get_level, map_notes
from musax import pretrained
from musax.audio import load_audio
from musax.datasets.mdb_drums import read_mdb_drums
from musax.datasets.rendered_midi import take_notes
from musax.metrics import drums as metrics
from musax.metrics.transcription import Scores

CONSTANT_VELOCITY = 80
KICK_SNARE_HAT = {36: "kick", 38: "snare", 42: "hi-hat"}
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
    """A transcriber: float32 [samples], Hz, level -> hits of that level."""

    name: str
    transcribe: Callable[[np.ndarray, int, str], np.ndarray]


def systems_of(model: str, threshold: float | None) -> list[System]:
    """A model by name or folder, and the same with one velocity for all."""
    transcriber = pretrained.load(model)
    label = Path(model).resolve().name if os.sep in model else model

    def learned(audio: np.ndarray, rate: int, level: str) -> np.ndarray:
        return transcriber.transcribe(audio, rate, level=level, threshold=threshold).notes

    def constant(audio: np.ndarray, rate: int, level: str) -> np.ndarray:
        notes = learned(audio, rate, level)
        notes["velocity"] = CONSTANT_VELOCITY
        return notes

    return [System(label, learned), System(f"{label}, constant velocity", constant)]


def spectral_flux() -> System:
    """The baseline without learning."""
    from benchmarks.baselines.spectral_flux import transcribe

    return System("spectral flux", lambda x, rate, level: map_notes(transcribe(x, rate), level))


def score_takes(
    system: System, directory: str, split: str, level: str, limit: int | None
) -> dict[str, float]:
    """`musax.metrics.drums.evaluate` on the takes of a folder, as they are and at "3-hit"."""
    takes = prepared_takes(directory).sequence(split)
    count = min(len(takes), limit or len(takes))

    def records(level: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for i in _track(range(count), f"{system.name}: {directory}"):
            audio, rate = as_float(takes[i]["audio"]), int(takes[i]["sample_rate"])
            truth = map_notes(take_notes(takes[i]), level)
            yield truth, system.transcribe(audio, rate, level)

    named = dict(zip(get_level(level).pitches.tolist(), get_level(level).names))
    return metrics.evaluate(records(level), named)


def score_mdb(system: System, directory: str) -> dict[str, float]:
    """Onset F1 on MDB Drums: of anything, of kick, snare and hi-hat, and of "3-hit" and "5".

    "any onset" takes what begins within 30 ms for one, "any hit" does not.
    The three classes are those of the class annotations; hits of other classes, true or estimated,
    do not count. "3-hit" and "5" take all hits, by their subclasses.
    """
    rows: dict[str, list[Scores]] = {}
    pooled: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    for item in _track(read_mdb_drums(directory), f"{system.name}: {directory}"):
        audio, rate = load_audio(item.audio, mono=True)
        truth = item.subclasses()
        five = system.transcribe(audio, rate, "5")
        for name, merge in (("any onset", True), ("any hit", False)):
            rows.setdefault(name, []).append(metrics.any_onset_scores(truth, five, merge=merge))
        kit = tuple(KICK_SNARE_HAT)
        pairs = {
            "kick, snare, hi-hat": tuple(
                notes[np.isin(notes["pitch"], kit)] for notes in (item.classes(), five)
            ),
            "3-hit": (map_notes(truth, "3-hit"), system.transcribe(audio, rate, "3-hit")),
            "5": (map_notes(truth, "5"), five),
        }
        for name, pair in pairs.items():
            pooled.setdefault(name, []).append(pair)  # type: ignore[arg-type]
    result = {f"{k} F1 macro": float(np.mean([s.f1 for s in v])) for k, v in rows.items()}
    for name, pairs in pooled.items():
        scores = metrics.evaluate(pairs)
        result |= {f"{name} F1 {kind}": scores[f"onset F1 {kind}"] for kind in ("macro", "micro")}
    return result


def _track(items: Sequence, title: str):
    console = Console(stderr=True)
    return track(items, description=title, console=console, transient=True)


# --------------------------------------------------------------------------------------- reporting


def table_of(scores: dict[str, dict[str, float]], columns: Sequence[str]) -> list[list[str]]:
    """Header and rows: a system each."""
    rows = [["system", *columns]]
    for system, found in scores.items():
        cells = [found.get(name, float("nan")) for name in columns]
        times = [name == "timing MAE" for name in columns]
        rows.append(
            [system, *(f"{1000 * x:.1f} ms" if t else f"{x:.3f}" for x, t in zip(cells, times))]
        )
    return rows


def class_table(scores: dict[str, dict[str, float]], level: str) -> list[list[str]]:
    """Header and rows: a class each, with its hits and the onset F1 of every system."""
    rows = [["class", "hits", *(f"{s}: onset F1" for s in scores), "velocity MAE"]]
    first = next(iter(scores.values()))
    for name in get_level(level).names:
        cells = [f"{found[f'{name}: onset F1']:.3f}" for found in scores.values()]
        hits, error = first[f"{name}: hits"], first[f"{name}: velocity MAE"]
        rows.append([name, f"{hits:.0f}", *cells, f"{error:.1f}"])
    return rows


def show(title: str, rows: list[list[str]], markdown: bool) -> None:
    """Prints a table."""
    if markdown:
        lines = [rows[0], ["---"] + ["---:"] * (len(rows[0]) - 1), *rows[1:]]
        print(f"**{title}**\n\n" + "\n".join(f"| {' | '.join(x)} |" for x in lines) + "\n")
        return
    table = Table(title=title, title_justify="left")
    for i, name in enumerate(rows[0]):
        table.add_column(name, justify="right" if i else "left")
    for row in rows[1:]:
        table.add_row(*row)
    Console(width=max(Console().width, 150)).print(table)


def write_json(path: str, result: dict) -> None:
    """Writes `result`; the file appears complete or not at all."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    temporary.replace(target)


# ------------------------------------------------------------------------------------ command line


def named(argument: str) -> tuple[str, str]:
    """Splits NAME=DIR."""
    name, equals, value = argument.partition("=")
    if not (name and equals and value):
        raise argparse.ArgumentTypeError(f"{argument!r}: expected NAME=DIR")
    return name, value


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--takes", type=named, action="append", default=[], metavar="NAME=DIR")
    add("--split", default="test", help="of the takes (test)")
    add("--limit", type=int, help="takes of each set; all by default")
    add("--mdb", metavar="DIR", help="MDB Drums")
    add("--model", action="append", default=[], metavar="NAME|DIR")
    add("--level", default="9", choices=LEVELS, help="classes of the takes (9)")
    add("--threshold", type=float, help="of onsets; by default each model's own")
    add("--classes", action="store_true", help="also the classes one by one")
    add("--markdown", action="store_true", help="print Markdown")
    add("--json", default="out/drum_scores.json", metavar="PATH")
    args = parser.parse_args(arguments)
    if not (args.takes or args.mdb):
        parser.error("give at least one set: --takes NAME=DIR, --mdb DIR")
    return args


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the evaluation that the command line asks for."""
    args = parse(arguments)
    try:
        systems = [s for name in args.model for s in systems_of(name, args.threshold)]
        systems.append(spectral_flux())
        result: dict[str, dict] = {}
        for name, directory in args.takes:
            result[name] = {
                s.name: score_takes(s, directory, args.split, args.level, args.limit)
                for s in systems
            }
        if args.mdb:
            heard = [s for s in systems if "constant" not in s.name]
            result["MDB Drums"] = {s.name: score_mdb(s, args.mdb) for s in heard}
    except (ValueError, OSError, ImportError) as error:
        raise SystemExit(f"evaluate_drums: {error}") from error
    write_json(args.json, result)
    for name, scores in result.items():
        real = name == "MDB Drums"
        columns = tuple(next(iter(scores.values()))) if real else COLUMNS
        title = name if real else f"{name} (classes {args.level})"
        show(title, table_of(scores, columns), args.markdown)
        if args.classes and not real:
            show(f"{name}, by class", class_table(scores, args.level), args.markdown)


if __name__ == "__main__":
    main()
