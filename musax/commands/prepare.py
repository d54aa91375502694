"""`musax prepare`: write datasets for training."""

import argparse
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

_DESCRIPTION = """\
Write a dataset for training, as ArrayRecord shards in a folder (egmd-mini: recordings in E-GMD's
layout; text: text files). Finished shards are kept, so an interrupted run continues with the same
command. When a split is complete, <split>.json has its counts and an empty file COMPLETED-<split>
marks it.

--runner DirectRunner, or any other runner, distributes the work with Apache Beam (extra `beam`);
unknown options are then passed to the runner."""

_EPILOG = """\
examples:
  # POP909 on 240 instruments, half of them synthetic: 53 hours
  musax prepare rendered-midi --pop909 data/pop909 -o data/rendered_midi

  # the same for validation, on two soundfonts of Debian's (fluid-soundfont-gm, csound-soundfont)
  musax prepare rendered-midi --split valid --pop909 data/pop909 --instruments 6 \\
      --soundfont FluidR3_GM --soundfont sf_GMbank -o data/rendered_midi

  # melody, bass, chords and drums: small bands for multi-instrument models
  musax prepare rendered-ensembles --lakh64 data/lakh64 --pop909 data/pop909 -o data/bands

  # Groove's drummers on 100 kits: those given, mixtures of them, synthetic ones
  musax prepare rendered-drums --groove data/groove --kit GMRockKit --kit FluidR3_GM \\
      --kit FluidR3_GM:25 --shards 100 --takes 160 -o data/rendered_drums

  # ten performances of the test split on two kits, as E-GMD has them: WAV, MIDI, csv
  musax prepare egmd-mini --groove data/groove --kit GMRockKit --kit FluidR3_GM \\
      --split test --limit 10 -o data/egmd_mini

  # your own recordings, each with its notes beside it: song.wav and song.mid, song.csv, ...
  musax prepare pairs recordings/ -o data/mine

  # the preprocessing of a registered task, done once for use_cached=True
  musax prepare task shakespeare_punctuation --module t5x.examples.shakespeare.tasks -o data/cached

  # Shakespeare and the reference manual of Python in the 27 letters of text8
  musax prepare text --shakespeare --python-docs --letters -o data/letters
"""


def add_parser(verbs: Any) -> None:
    """Add the verb to the subparsers `verbs`."""
    parser = verbs.add_parser(
        "prepare",
        help="write a dataset for training",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run, takes_rest=True)
    datasets = parser.add_subparsers(
        dest="dataset", metavar="DATASET", title="datasets", required=True
    )
    midi = datasets.add_parser("rendered-midi", help="pieces on single instruments, exact notes")
    _add_music(midi)
    add = midi.add_argument
    add(
        "--virtual",
        type=float,
        default=0.5,
        metavar="P",
        help="share of synthetic pianos; default: 0.5",
    )
    add(
        "--piano",
        type=float,
        default=0.9,
        metavar="P",
        help="share of piano programs on soundfonts; default: 0.9",
    )
    add(
        "--random-pieces",
        type=float,
        default=0.06,
        metavar="P",
        help="share of takes that are random notes; default: 0.06",
    )
    add(
        "--instruments",
        dest="shards",
        type=int,
        default=240,
        metavar="N",
        help="number of instruments, one shard each; default: 240",
    )
    bands = datasets.add_parser("rendered-ensembles", help="bands: melody, bass, chords, drums")
    _add_music(bands)
    bands.add_argument(
        "--shards", type=int, default=160, metavar="N", help="number of shards; default: 160"
    )
    drums = datasets.add_parser("rendered-drums", help="Groove's drummers on many kits")
    _add_groove(drums)
    add = drums.add_argument
    add(
        "--virtual",
        type=float,
        default=0.2,
        metavar="P",
        help="share of synthetic kits; default: 0.2",
    )
    add(
        "--mixed",
        type=float,
        default=0.5,
        metavar="P",
        help="share of mixtures of kits; default: 0.5",
    )
    add(
        "--shards",
        type=int,
        default=160,
        metavar="N",
        help="number of kits, one shard each; default: 160",
    )
    _add_rendering(drums, seconds=12.0, sample_rate=44100)
    egmd = datasets.add_parser("egmd-mini", help="Groove's drummers on kits, in E-GMD's layout")
    _add_groove(egmd)
    egmd.add_argument(
        "--limit", type=int, metavar="N", help="use N performances, spread evenly; default: all"
    )
    egmd.add_argument("--seed", type=int, default=0, metavar="N", help="default: 0")
    egmd.set_defaults(runner=None)
    pairs = datasets.add_parser("pairs", help="a folder of recordings with their notes")
    _add_pairs(pairs)
    task = datasets.add_parser("task", help="a registered task, preprocessed once")
    task.add_argument("name", metavar="NAME", help="name of the task")
    task.add_argument("--module", metavar="MODULE", help="Python module that registers the task")
    task.add_argument("--split", default="train", help="split of the task; default: train")
    task.add_argument(
        "--shards", type=int, default=16, metavar="N", help="number of shards; default: 16"
    )
    text = datasets.add_parser("text", help="Shakespeare, Python's manual; no download needed")
    add = text.add_argument
    add("--shakespeare", action="store_true", help="42 plays and poems, 5.3 MB")
    add("--python-docs", action="store_true", help="Python's reference manual, 0.4 MB")
    add("--letters", action="store_true", help="keep only space and a to z, as text8 does")
    text.set_defaults(runner=None)
    for command in (midi, bands, drums, task):
        command.add_argument("--runner", help="Apache Beam runner, such as DirectRunner")
    for command in (midi, bands, drums, egmd, pairs, task):
        command.add_argument(
            "-j",
            "--workers",
            type=int,
            default=os.cpu_count() or 1,
            metavar="N",
            help="number of processes; default: one per processor",
        )
    for command in (midi, bands, drums, egmd, pairs, task, text):
        command.add_argument(
            "-o", "--output", type=Path, required=True, metavar="DIR", help="folder to write into"
        )


def _add_music(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--split",
        default="train",
        choices=("train", "valid", "test"),
        help="split to write; default: train",
    )
    add("--pop909", metavar="DIR", help="folder of the POP909 dataset")
    add("--jsb", metavar="DIR", help="folder of the JSB chorales")
    add("--lakh64", metavar="DIR", help="folder of the 64-bar Lakh excerpts")
    add(
        "--soundfont",
        action="append",
        default=[],
        metavar="FONT",
        help="path or name of an SF2 or SF3 file, repeatable; default: the General MIDI bank "
        "TimGM6mb that comes with musax",
    )
    _add_rendering(parser, seconds=20.0, sample_rate=16000)


def _add_groove(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--split",
        default="train",
        choices=("train", "validation", "test"),
        help="split to write; default: train",
    )
    add("--groove", required=True, metavar="DIR", help="folder of the Groove MIDI Dataset or E-GMD")
    add(
        "--kit",
        action="append",
        default=[],
        help="a Hydrogen kit or a soundfont[:program], by name or path; repeatable",
    )


def _add_pairs(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "directory",
        metavar="DIR",
        help="folder, with folders in it, of recordings; beside each its notes under the same name "
        "(.mid, .csv, .json, .tsv)",
    )
    add(
        "--hold-out",
        type=float,
        default=0.1,
        metavar="SHARE",
        help="share of the recordings for validation, at least one; default: %(default)g",
    )
    add("--seconds", type=float, default=16.0, metavar="S", help="length of a take; default: 16")
    add(
        "--sample-rate",
        type=int,
        metavar="HZ",
        help="samples per second; default: 16000, with --drums 44100",
    )
    add("--drums", action="store_true", help="all notes are of drums, whatever the files say")
    add("--seed", type=int, default=0, metavar="N", help="which are held out; default: 0")
    parser.set_defaults(runner=None)


def _add_rendering(parser: argparse.ArgumentParser, *, seconds: float, sample_rate: int) -> None:
    add = parser.add_argument
    add(
        "--vary",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="vary key, tempo, velocities and articulation; --no-vary plays pieces unchanged",
    )
    add("--takes", type=int, default=40, metavar="N", help="takes per shard; default: 40")
    add(
        "--seconds",
        type=float,
        default=seconds,
        metavar="S",
        help="seconds of a take; default: %(default)g",
    )
    add(
        "--sample-rate",
        type=int,
        default=sample_rate,
        metavar="HZ",
        help="samples per second; default: %(default)s",
    )
    add("--seed", type=int, default=0, metavar="N", help="default: 0")


def run(args: argparse.Namespace) -> int:
    """Write the dataset; return 0, or 2 with a line on stderr if that is impossible."""
    from musax.commands.console import report_error

    try:
        if args.rest and not args.runner:
            raise ValueError(
                f"unrecognized arguments: {' '.join(args.rest)} (options for Beam need --runner)"
            )
        own = {"text": _text, "task": _task, "egmd-mini": _egmd_mini, "pairs": _pairs}
        for line in own.get(args.dataset, _takes)(args):
            print(line)
    except (ValueError, OSError, ImportError) as error:
        report_error(error)
        return 2
    return 0


def _takes(args: argparse.Namespace) -> list[str]:
    from musax.datasets.preparing import write_takes

    own = {"verb", "version", "run", "takes_rest", "rest", "dataset", "output", "workers", "runner"}
    options = {name: value for name, value in vars(args).items() if name not in own}
    return _counts(args, write_takes(args.dataset, args.output, options, **_writing(args)))


def _task(args: argparse.Namespace) -> list[str]:
    from t5x.data.caching import cache_task

    info = cache_task(
        args.name, args.output, args.split, args.shards, args.module, **_writing(args)
    )
    return _counts(args, info)


def _writing(args: argparse.Namespace) -> dict[str, Any]:
    return {
        "workers": args.workers,
        "runner": args.runner,
        "beam_options": args.rest,
        "progress": _progress("shards", args.shards),
    }


def _counts(args: argparse.Namespace, info: dict[str, Any]) -> list[str]:
    counts = f"{info['examples']} examples in {info['shards']} shards of {info['split']}"
    return [f"{args.output}: {counts}"]


def _egmd_mini(args: argparse.Namespace) -> list[str]:
    from musax.datasets.egmd_mini import write_egmd_mini
    from musax.datasets.groove import read_groove

    performances = read_groove(args.groove, args.split)
    count = min(args.limit or len(performances), len(performances)) * len(args.kit)
    rows = write_egmd_mini(
        performances,
        args.kit,
        args.output,
        limit=args.limit,
        seed=args.seed,
        workers=args.workers,
        progress=_progress("recordings", count),
    )
    return [f"{args.output}: {len(rows)} recordings of {args.split}"]


def _pairs(args: argparse.Namespace) -> list[str]:
    from musax.datasets.pairs import write_pairs

    written = write_pairs(
        args.directory,
        args.output,
        hold_out=args.hold_out,
        seed=args.seed,
        sample_rate=args.sample_rate,
        seconds=args.seconds,
        drums=args.drums,
        workers=args.workers,
        progress=_progress,
    )
    return [line for info in written for line in _counts(args, info)]


def _text(args: argparse.Namespace) -> list[str]:
    from cdcd.documents import SOURCES, write_documents

    chosen = [name for name in SOURCES if getattr(args, name.replace("-", "_"))]
    if not chosen:
        raise ValueError("no text chosen: give --shakespeare, --python-docs or both")
    lines = []
    for name in chosen:
        written = write_documents(SOURCES[name](), args.output, args.letters)
        for split, (files, size) in written.items():
            lines.append(f"{args.output / split}: {files} files of {name}, {size:,} bytes")
    return lines


def _progress(what: str, total: int) -> Callable[[Iterable], Iterable]:
    """Return a wrapper of an iterable that shows a bar, if stderr is a terminal."""

    def progress(items: Iterable) -> Iterable:
        from rich.console import Console
        from rich.progress import track

        shown = sys.stderr.isatty()
        return track(items, what, total=total, disable=not shown, console=Console(stderr=True))

    return progress
