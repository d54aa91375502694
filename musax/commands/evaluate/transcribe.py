"""`musax evaluate transcribe`: transcribers on recordings whose notes are known."""

import argparse
from collections.abc import Sequence
from typing import Any

from musax.commands import numbers
from musax.commands.evaluate.running import add_models, check_folders, named
from musax.commands.options import add_choice, default_model
from musax.commands.outputs import InputError

NAME, HELP = "transcribe", "notes of recordings: onsets, offsets, frames, instruments"
DESCRIPTION = """\
Score transcribers on recordings whose notes are known: F1 of notes whose onset is within 50 ms, of
those whose offset agrees too (20 % or 50 ms), and of frames of 16 ms. A score is the mean over the
recordings of a set, with a 95 % bootstrap interval over recordings."""
EPILOG = """\
examples:
  # audio files with .mid or .tsv beside them, and rendered pieces
  musax evaluate transcribe --model mt3-piano-tiny --folder MAPS=data/maps \\
      --rendered TimGM6mb=TimGM6mb --pop909 data/pop909
  # trios of melody, bass and drums, and the family of each instrument
  musax evaluate transcribe --model mt3-band-tiny --bands TimGM6mb=TimGM6mb \\
      --lakh64 data/lakh64 --programs midi-class
"""
GRANULARITIES = ("flat", "midi-class", "full")
DECODES = ("constrained", "greedy", "t5x-beam1")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add models, sets of recordings, and how they are scored."""
    add_models(parser, "transcribe")
    add = parser.add_argument
    add(
        "--folder",
        type=named,
        action="append",
        default=[],
        metavar="NAME=DIR",
        help="a set: a folder of audio files with their notes beside them (.mid or .tsv)",
    )
    add(
        "--rendered",
        type=named,
        action="append",
        default=[],
        metavar="NAME=SOUNDFONT",
        help="a set: test songs of --pop909, rendered by a soundfont",
    )
    add("--pop909", metavar="DIR", help="folder of POP909")
    add(
        "--bands",
        type=named,
        action="append",
        default=[],
        metavar="NAME=SOUNDFONT",
        help="a set: test trios of --lakh64, rendered by a soundfont",
    )
    add("--lakh64", metavar="DIR", help="folder of the 64-bar Lakh excerpts")
    add(
        "--pieces",
        type=numbers.count,
        default=16,
        metavar="N",
        help="pieces per rendered set; default: %(default)s",
    )
    add(
        "--seconds",
        type=numbers.seconds,
        default=30.0,
        metavar="S",
        help="seconds of each rendered piece; default: %(default)g",
    )
    add_choice(parser, "--decode", DECODES, "how tokens are decoded; default: constrained")
    add_choice(
        parser,
        "--programs",
        GRANULARITIES,
        "score drums and instruments too, programs compared at this granularity",
    )


def check(args: argparse.Namespace) -> None:
    """Raise unless the models transcribe, and there are sets whose folders exist."""
    from musax import pretrained

    if not (args.folder or args.rendered or args.bands):
        raise InputError("no recordings: give --folder NAME=DIR, --rendered or --bands")
    if args.rendered and not args.pop909:
        raise InputError("--rendered plays songs of POP909: give --pop909 DIR")
    if args.bands and not args.lakh64:
        raise InputError("--bands plays trios of Lakh: give --lakh64 DIR")
    for model in args.model:
        pretrained.check_task(model, "transcribe")
    folders: dict[str, str | None] = {f"--folder {name}": path for name, path in args.folder}
    check_folders(folders | {"--pop909": args.pop909, "--lakh64": args.lakh64})


def evaluate(args: argparse.Namespace, progress: Any, others: Sequence[Any] = ()) -> Any:
    """Score the models, the default one without any, and other `mt3.evaluation.System`s."""
    from mt3 import evaluation
    from musax.datasets import recordings

    names = args.model or ([] if others else [default_model("transcribe")])
    systems = [evaluation.load_system(name, args.decode or DECODES[0]) for name in names]
    sets = {name: recordings.folder_set(folder) for name, folder in args.folder}
    length = {"pieces": args.pieces, "seconds": args.seconds}
    for name, soundfont in args.rendered:
        sets[name] = recordings.rendered_set(soundfont, args.pop909, **length)
    for name, soundfont in args.bands:
        sets[name] = recordings.band_set(soundfont, args.lakh64, **length)
    return evaluation.evaluate(sets, [*systems, *others], args.programs, progress)
