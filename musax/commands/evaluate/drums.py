"""`musax evaluate drums`: drum transcribers on takes and recordings whose hits are known."""

import argparse
from collections.abc import Sequence
from typing import Any

from musax.commands import numbers
from musax.commands.evaluate.running import add_models, check_folders, named
from musax.commands.options import default_model
from musax.commands.outputs import InputError

NAME, HELP = "drums", "hits of drum recordings: onsets, classes, velocities"
DESCRIPTION = """\
Score drum transcribers on takes and recordings whose hits are known. Onsets agree within 50 ms.
A second row of each model has one velocity for all hits."""
EPILOG = """\
examples:
  # takes of musax prepare rendered-drums, and real recordings
  musax evaluate drums --takes seen=data/drums_seen --takes unseen=data/drums_unseen \\
      --mdb data/mdb_drums
  # single classes, at another level
  musax evaluate drums --model drums-small --takes unseen=data/drums_unseen --level 8-hit --classes
"""
LEVELS = ("3-hit", "5", "8-hit", "9", "18")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add models, sets, and how they are scored."""
    add_models(parser, "drums")
    add = parser.add_argument
    add(
        "--takes",
        type=named,
        action="append",
        default=[],
        metavar="NAME=DIR",
        help="a set: a folder of prepared takes",
    )
    add("--split", default="test", help="split of the takes; default: %(default)s")
    add("--limit", type=numbers.count, metavar="N", help="takes of each set; default: all")
    add("--mdb", metavar="DIR", help="a set: the folder of MDB Drums")
    add("--level", default="9", choices=LEVELS, help="classes of the takes; default: %(default)s")
    add(
        "--threshold",
        type=float,
        metavar="P",
        help="onset probability from which a hit is reported, 0 to 1; default: each model's own",
    )
    add("--classes", action="store_true", help="tables of single classes too")


def check(args: argparse.Namespace) -> None:
    """Raise unless the models transcribe drums, and there are sets whose folders exist."""
    from musax import pretrained

    if not (args.takes or args.mdb):
        raise InputError("no recordings: give --takes NAME=DIR or --mdb DIR")
    for model in args.model:
        pretrained.check_task(model, "drums")
    folders: dict[str, str | None] = {f"--takes {name}": path for name, path in args.takes}
    check_folders(folders | {"--mdb": args.mdb})


def evaluate(args: argparse.Namespace, progress: Any, others: Sequence[Any] = ()) -> Any:
    """Score the models, the default one without any, and other `drums.evaluation.System`s."""
    from drums import evaluation

    names = args.model or ([] if others else [default_model("drums")])
    systems = [s for name in names for s in evaluation.load_systems(name, args.threshold)]
    return evaluation.evaluate(
        dict(args.takes),
        [*systems, *others],
        mdb=args.mdb,
        split=args.split,
        level=args.level,
        limit=args.limit,
        classes=args.classes,
        progress=progress,
    )
