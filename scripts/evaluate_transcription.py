#!/usr/bin/env python
"""Scores transcription systems on recordings whose notes are known, all in one run.

Examples:
  # real recordings (audio files with .mid or .tsv beside them) and rendered pieces
  scripts/evaluate_transcription.py --folder MAPS=data/maps --rendered TimGM6mb=TimGM6mb \\
      --pop909 data/pop909 --model mt3-piano-tiny --baseline cqt --baseline basic-pitch

  # trios of melody, bass and drums, and who plays what (by General MIDI family)
  scripts/evaluate_transcription.py --bands TimGM6mb=TimGM6mb --lakh64 data/lakh64 \\
      --model mt3-band-tiny --programs midi_class

  # a model being trained, as a Markdown table
  scripts/evaluate_transcription.py --folder MAPS=data/maps --model runs/tiny_piano/model --markdown

Scores are the mean over the recordings of a set, with a 95 % bootstrap interval over recordings:
notes whose onset is within 50 ms, the same with offsets (20 % or 50 ms), and frames of 16 ms; see
`musax.metrics.transcription`. basic-pitch is no dependency of musax; if it is missing, a message
says how to get it.
"""

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `benchmarks`

from benchmarks.recordings import Recording, band_set, folder_set, rendered_set
from musax.metrics import transcription as metrics
from musax.metrics.bootstrap import bootstrap_mean

type Scorer = Callable[[np.ndarray, np.ndarray], metrics.Scores]

BASELINES = ("cqt", "basic-pitch")
METRICS: dict[str, Scorer] = {
    "Onset": metrics.onset_scores,
    "Onset + offset": metrics.onset_offset_scores,
    "Frame": metrics.frame_scores,
}
PROGRAM_METRICS = ("Drum onset", "Onset + offset + program")


@dataclasses.dataclass(frozen=True)
class System:
    """A transcriber: float32 [samples] at a rate (Hz) to notes."""

    name: str
    transcribe: Callable[[np.ndarray, int], np.ndarray]


# ---------------------------------------------------------------------------------------- systems


def load_model(name_or_dir: str, decode: str) -> System:
    """A model by name or folder."""
    from musax import pretrained

    model = pretrained.load(name_or_dir)
    label = Path(name_or_dir).resolve().name if os.sep in name_or_dir else name_or_dir
    return System(label, lambda audio, rate: model.transcribe(audio, rate, decode=decode).notes)


def load_baseline(name: str, onnx: str | None) -> System:
    """A system of `BASELINES`."""
    if name == "cqt":
        from benchmarks.baselines import cqt

        return System(name, cqt.transcribe)
    from benchmarks.baselines.basic_pitch import BasicPitch

    return System(name, BasicPitch(onnx).transcribe)


# ---------------------------------------------------------------------------------------- scoring


def score_set(
    system: System, recordings: Sequence[Recording], scorers: dict[str, Scorer]
) -> dict[str, dict[str, dict[str, float]]]:
    """{recording: {metric: {"precision", "recall", "f1"}}}."""
    console = Console(stderr=True)
    scores = {}
    for recording in track(recordings, description=system.name, console=console, transient=True):
        notes = system.transcribe(recording.audio, recording.sample_rate)
        scores[recording.name] = {
            name: {k: float(v) for k, v in scorer(recording.notes, notes)._asdict().items()}
            for name, scorer in scorers.items()
        }
    return scores


def program_scorers(granularity: str) -> dict[str, Scorer]:
    """Scorers of `PROGRAM_METRICS`, which ask for the instrument at a granularity."""

    def scorer(name: str) -> Scorer:
        return lambda ref, est: metrics.program_scores(ref, est, granularity)[name]

    return {name: scorer(name) for name in PROGRAM_METRICS}


def summarise(by_recording: dict[str, dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    """{metric: means of precision, recall and f1, and "low" and "high" of the mean f1}."""
    rows = list(by_recording.values())
    summary = {}
    for name in rows[0]:
        mean = {k: float(np.mean([row[name][k] for row in rows])) for k in rows[0][name]}
        f1 = bootstrap_mean([row[name]["f1"] for row in rows], resamples=10_000)
        summary[name] = {**mean, "low": f1.low, "high": f1.high}
    return summary


def evaluate(
    sets: dict[str, list[Recording]], systems: Sequence[System], programs: str | None = None
) -> dict:
    """Scores of every system on every set, as they are written to JSON."""
    scorers = {**METRICS, **program_scorers(programs)} if programs else METRICS
    result = {"format": 1, "interval": "bootstrap over recordings, 95 %", "sets": {}}
    for name, recordings in sets.items():
        by_system = {}
        for system in systems:
            scores = score_set(system, recordings, scorers)
            by_system[system.name] = {"scores": summarise(scores), "recordings": scores}
        result["sets"][name] = {
            "recordings": len(recordings),
            "seconds": sum(recording.seconds for recording in recordings),
            "notes": sum(len(recording.notes) for recording in recordings),
            "systems": by_system,
        }
    return result


# --------------------------------------------------------------------------------------- reporting


def table_rows(scored: dict) -> tuple[list[str], list[list[str]]]:
    """Header and cells of the table of one set."""
    systems = scored["systems"]
    names = list(next(iter(systems.values()))["scores"])
    rows = [
        [system, *(f"{s['f1']:.3f} [{s['low']:.2f}, {s['high']:.2f}]" for s in entry.values())]
        for system, entry in ((name, found["scores"]) for name, found in systems.items())
    ]
    return ["System", *(f"{name} F1" for name in names)], rows


def caption(name: str, scored: dict) -> str:
    """Name and size of a set."""
    return (
        f"{name}: {scored['recordings']} recordings, {scored['seconds'] / 60:.1f} min, "
        f"{scored['notes']} notes"
    )


def to_markdown(result: dict) -> str:
    """The tables of all sets, Markdown."""
    parts = []
    for name, scored in result["sets"].items():
        header, rows = table_rows(scored)
        lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        parts.append(f"**{caption(name, scored)}**\n\n{table}\n")
    return "\n".join(parts)


def print_tables(result: dict) -> None:
    """The tables of all sets, on the terminal."""
    console = Console()
    for name, scored in result["sets"].items():
        header, rows = table_rows(scored)
        table = Table(title=caption(name, scored), title_justify="left")
        for i, column in enumerate(header):
            table.add_column(column, justify="right" if i else "left")
        for row in rows:
            table.add_row(*row)
        console.print(table)


def write_json(path: str | Path, result: dict) -> None:
    """Writes `result`; the file appears complete or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


# ------------------------------------------------------------------------------------ command line


def named(argument: str) -> tuple[str, str]:
    """Splits NAME=VALUE."""
    name, equals, value = argument.partition("=")
    if not (name and equals and value):
        raise argparse.ArgumentTypeError(f"{argument!r}: expected NAME=VALUE")
    return name, value


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--folder", type=named, action="append", default=[], metavar="NAME=DIR")
    add("--rendered", type=named, action="append", default=[], metavar="NAME=SOUNDFONT")
    add("--pop909", metavar="DIR", help="POP909, whose test songs --rendered plays")
    add("--bands", type=named, action="append", default=[], metavar="NAME=SOUNDFONT")
    add("--lakh64", metavar="DIR", help="64-bar Lakh excerpts, whose test trios --bands plays")
    add("--pieces", type=int, default=16, help="pieces of a rendered set (16)")
    add("--seconds", type=float, default=30.0, help="of each piece (30)")
    add("--model", action="append", default=[], metavar="NAME|DIR")
    add("--baseline", action="append", default=[], choices=BASELINES)
    add("--basic-pitch-onnx", metavar="PATH", help="nmp.onnx of basic-pitch")
    add("--decode", default="constrained", help="how models decode (constrained)")
    add("--programs", choices=metrics.GRANULARITIES, help="also score drums and instruments")
    add("--markdown", action="store_true", help="print Markdown")
    add("--json", default="out/transcription_scores.json", metavar="PATH")
    args = parser.parse_args(arguments)
    if not (args.folder or args.rendered or args.bands):
        parser.error("give at least one set: --folder NAME=DIR, --rendered or --bands")
    if not args.model and not args.baseline:
        parser.error("give at least one system: --model or --baseline")
    if args.rendered and not args.pop909:
        parser.error("--rendered plays POP909: give --pop909 DIR")
    if args.bands and not args.lakh64:
        parser.error("--bands plays trios of Lakh: give --lakh64 DIR")
    if args.pieces < 1 or args.seconds <= 0:
        parser.error("--pieces and --seconds must be positive")
    return args


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the evaluation that the command line asks for."""
    args = parse(arguments)
    try:
        systems = [load_model(name, args.decode) for name in args.model]
        systems += [load_baseline(name, args.basic_pitch_onnx) for name in args.baseline]
        sets = {name: folder_set(directory) for name, directory in args.folder}
        for name, soundfont in args.rendered:
            sets[name] = rendered_set(
                soundfont, args.pop909, pieces=args.pieces, seconds=args.seconds
            )
        for name, soundfont in args.bands:
            sets[name] = band_set(soundfont, args.lakh64, pieces=args.pieces, seconds=args.seconds)
    except (ValueError, OSError, ImportError) as error:
        raise SystemExit(f"evaluate_transcription: {error}") from error
    result = evaluate(sets, systems, args.programs)
    write_json(args.json, result)
    if args.markdown:
        print(to_markdown(result))
    else:
        print_tables(result)


if __name__ == "__main__":
    main()
