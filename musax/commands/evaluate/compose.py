"""`musax evaluate compose`: statistics of models' samples, compared with data."""

import argparse
import ast
from pathlib import Path
from typing import Any

from musax.commands import numbers
from musax.commands.evaluate.infill import add_sampling
from musax.commands.evaluate.running import (
    add_models,
    check_folders,
    check_options_of,
    check_system,
    is_run,
)
from musax.commands.evaluate.score import CORPORA, add_train_part, check_data, load_cdcd
from musax.commands.outputs import InputError

NAME, HELP = "compose", "samples of models: variety, copies, distance from data"
DESCRIPTION = """\
Measure the samples of models. Pieces of perceiver_ar, and MIDI files of any origin (--samples), are
compared with a corpus: distributions of pitches, durations and other features, entropies, and
copies of training pieces. Rows of cdcd models are judged by another model (--judge), and measured
by the parts that --parts names."""
EPILOG = """\
examples:
  # MIDI files, compared with the corpus that their model was trained on
  musax evaluate compose --samples out/samples --data data/pop909 --plot samples.png
  # pieces that a model composes first
  musax evaluate compose --model perceiver_ar-pop909 --data data/pop909 --limit 16
  # models of cdcd at several temperatures, under a judge
  musax evaluate compose --model runs/melody/cdcd --model runs/melody/ar \\
      --judge runs/melody/judge --plot frontier.png
  # one setting, for ablations
  musax evaluate compose --model runs/melody/cdcd --judge runs/melody/judge --parts samples \\
      --set steps=200 --set warp=False
"""
PARTS = ("frontier", "samples", "notes", "speed")
ENCODINGS = ("performance", "multitrack")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add models or samples, data, and the options of each system."""
    add_models(parser, "compose", runs=True)
    add = parser.add_argument
    add("--samples", metavar="DIR", help="folder of MIDI files, in place of models")
    add(
        "--data",
        metavar="DIR",
        help="folder of the corpus; for cdcd models, needed unless they are training runs",
    )
    add_sampling(parser)
    add("--plot", type=Path, metavar="FILE.png", help="picture of features, or of the frontier")
    pieces = parser.add_argument_group("options of --samples and perceiver_ar models").add_argument
    rows = parser.add_argument_group("options of cdcd models").add_argument
    options = {
        "perceiver_ar": [
            pieces(
                "--corpus",
                default="pop909",
                choices=CORPORA,
                help="corpus in --data; default: %(default)s",
            ),
            pieces(
                "--encoding",
                default="performance",
                choices=ENCODINGS,
                help="event encoding to which pieces are quantized; default: %(default)s",
            ),
            pieces(
                "--seconds",
                type=numbers.seconds,
                default=60.0,
                metavar="S",
                help="seconds of each composed piece; default: %(default)g",
            ),
            pieces(
                "--seed",
                type=numbers.seed,
                default=0,
                metavar="N",
                help="seed of composed pieces; default: %(default)s",
            ),
        ],
        "cdcd": [
            add_train_part(rows),
            rows("--judge", metavar="RUN_DIR", help="autoregressive run that judges samples"),
            rows(
                "--parts",
                nargs="+",
                choices=PARTS,
                default=["frontier"],
                help="samples at all temperatures, at one setting, their notes, or the speed; "
                "default: frontier",
            ),
            rows(
                "--temperatures",
                type=numbers.positive,
                nargs="+",
                metavar="T",
                help="sampling temperatures, one row each; default: 0.8 0.9 0.95 1",
            ),
            rows(
                "--set",
                type=_option,
                action="append",
                default=[],
                metavar="OPTION=VALUE",
                help="option of the sampler; may be repeated",
            ),
        ],
    }
    parser.set_defaults(options_of=options)


def _option(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def check(args: argparse.Namespace) -> None:
    """Raise unless there are samples or models that compose, and the data they need."""
    if bool(args.model) == bool(args.samples):
        raise InputError("give either --model NAME|DIR, once or more, or --samples DIR")
    args.system = check_system(args.model, "compose") if args.model else "perceiver_ar"
    check_options_of(args, args.options_of, args.system)
    if args.system == "cdcd":
        check_data(args)
        if {"frontier", "samples"} & set(args.parts) and args.judge is None:
            raise InputError("samples are judged: give --judge RUN_DIR, or other --parts")
    elif args.data is None:
        raise InputError("no corpus to compare with: give --data DIR")
    elif len(args.model) > 1:
        raise InputError(f"{len(args.model)} models: give one --model of perceiver_ar at a time")
    elif args.model and is_run(args.model[0]):
        raise InputError(f"{args.model[0]}: a training run; make a model of it with musax export")
    check_folders({"--samples": args.samples, "--data": args.data, "--judge": args.judge})


def evaluate(args: argparse.Namespace, progress: Any) -> Any:
    """Compare pieces with a corpus, or measure the rows of cdcd models."""
    return (_cdcd if args.system == "cdcd" else _pieces)(args, progress)


# ------------------------------------------------------------------------------------------ pieces


def _pieces(args: argparse.Namespace, progress: Any) -> Any:
    from musax.metrics import samples

    sets = _read_sets(args, progress)
    (_, composed), (split, reference), (other, floor), (_, training) = sets.items()
    report = samples.evaluate(composed, reference, floor, training, (split, other))
    if args.plot is not None:
        from musax.plots import save_figure
        from perceiver_ar.plots import plot_statistics

        save_figure(plot_statistics({split: reference, "samples": composed}), args.plot)
    return report


def _read_sets(args: argparse.Namespace, progress: Any) -> dict[str, list[Any]]:
    """Return note arrays of the samples, the split, another held-out split, and training pieces."""
    from musax.datasets import pieces
    from musax.datasets.splits import TASK_SPLITS
    from musax.events.pieces import MULTITRACK, PERFORMANCE

    encoding = dict(zip(ENCODINGS, (PERFORMANCE, MULTITRACK)))[args.encoding]

    def read(split: str, limit: int | None = None) -> list[Any]:
        found = getattr(pieces, args.corpus)(args.data, TASK_SPLITS[split])
        return [piece.load_or_empty() for piece in found[:limit]]

    def rounded(notes: list[Any]) -> list[Any]:  # velocities and times as event models have them
        return [encoding.decode(encoding.encode(piece)).notes for piece in notes]

    samples = _composed(args, progress) if args.model else _midi_files(args.samples)
    other = "test" if args.split == "validation" else "validation"
    return {
        "samples": rounded(samples),
        args.split: rounded(read(args.split)),
        other: rounded(read(other))[: len(samples)],
        "train": read("train"),
    }


def _midi_files(folder: str) -> list[Any]:
    from musax.midi import load_midi

    paths = sorted(p for p in Path(folder).rglob("*") if p.suffix.lower() in (".mid", ".midi"))
    if not paths:
        raise ValueError(f"{folder}: no .mid or .midi files; --samples is their folder")
    return [load_midi(path) for path in paths]


def _composed(args: argparse.Namespace, progress: Any) -> list[Any]:
    from musax import pretrained

    model, composed = pretrained.load(args.model[0], task="compose"), []
    for first in range(0, args.limit, _TOGETHER):
        count = min(_TOGETHER, args.limit - first)
        found = model.compose(count=count, seconds=args.seconds, seed=args.seed + first)
        composed += [piece.notes for piece in found]
        progress(f"{args.model[0]}: pieces", len(composed), args.limit)
    return composed


_TOGETHER = 16

# ------------------------------------------------------------------------------------ rows of cdcd


def _cdcd(args: argparse.Namespace, progress: Any) -> Any:
    from cdcd import sample_evaluation
    from cdcd.runs import load_run
    from musax.tables import Report

    runs = load_cdcd(args)
    temperatures = args.temperatures or sample_evaluation.TEMPERATURES
    options = {"split": args.split, "count": args.limit, "steps": args.steps, "progress": progress}
    reports = []
    if {"frontier", "samples"} & set(args.parts):
        swept = temperatures if "frontier" in args.parts else None
        found = sample_evaluation.evaluate_samples(
            runs, load_run(args.judge), temperatures=swept, options=dict(args.set), **options
        )
        reports.append(found)
        if args.plot is not None and swept is not None:
            from cdcd.plots import plot_frontier
            from musax.plots import save_figure

            curves = dict(found.data["samples"])
            (data,) = curves.pop("data")
            save_figure(plot_frontier(curves, data), args.plot)
    if "notes" in args.parts:
        notes = sample_evaluation.evaluate_notes(runs, temperatures=temperatures, **options)
        reports.append(notes)
    if "speed" in args.parts:
        reports.append(sample_evaluation.evaluate_speed(runs, progress))
    return Report.joined(reports)
