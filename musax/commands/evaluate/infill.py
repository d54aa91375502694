"""`musax evaluate infill`: accuracy of infilled gaps in held-out data."""

import argparse
from pathlib import Path
from typing import Any

from musax.commands import numbers
from musax.commands.evaluate.running import add_models, check_system
from musax.commands.evaluate.score import SPLITS, add_train_part, check_data, load_cdcd

NAME, HELP = "infill", "gaps in held-out data that models fill in"
DESCRIPTION = """\
Measure how well models fill in gaps in rows of held-out data: the share of correct tokens and the
edit distance, for gaps of a tenth, three tenths and half of a row; in text, whole words too."""
EPILOG = """\
examples:
  musax evaluate infill --model cdcd-melody --data data/lakh64
  musax evaluate infill --model cdcd-text --data data/letters --train-part 0 2 --parts words
"""
PARTS = ("gaps", "words")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add models, data, and how gaps are filled in."""
    add_models(parser, "infill", required=True, runs=True)
    add = parser.add_argument
    add(
        "--data",
        metavar="DIR",
        help="folder of the data; needed unless the models are training runs",
    )
    add_train_part(add)
    add(
        "--parts",
        nargs="+",
        choices=PARTS,
        default=["gaps"],
        help="gaps of any tokens, or words of texts; default: gaps",
    )
    add_sampling(parser)
    add(
        "--temperatures",
        type=numbers.positive,
        nargs="+",
        metavar="T",
        help="sampling temperatures of words, one row each; default: 0.8 0.9 0.95 1",
    )
    add("--plot", type=Path, metavar="FILE.png", help="picture of the gaps")


def add_sampling(parser: argparse.ArgumentParser) -> None:
    """Add the options of rows and samplers."""
    add = parser.add_argument
    add("--split", default="test", choices=SPLITS, help="split of the rows; default: %(default)s")
    add(
        "--limit",
        type=numbers.count,
        default=64,
        metavar="N",
        help="rows of the split, or samples of each setting; default: %(default)s",
    )
    add(
        "--steps",
        type=numbers.count,
        default=64,
        metavar="N",
        help="sampling steps of diffusion models; default: %(default)s",
    )


def check(args: argparse.Namespace) -> None:
    """Raise unless the models fill in and have data."""
    check_system(args.model, "infill")
    check_data(args)


def evaluate(args: argparse.Namespace, progress: Any) -> Any:
    """Run the parts."""
    from cdcd import infill_evaluation, plots
    from musax.tables import Report

    runs = load_cdcd(args)
    options = {"split": args.split, "count": args.limit, "steps": args.steps, "progress": progress}
    reports = []
    if "gaps" in args.parts:
        reports.append(infill_evaluation.evaluate_gaps(runs, **options))
        if args.plot is not None:
            from musax.plots import save_figure

            save_figure(plots.plot_infilling(reports[0].data["infilling"]), args.plot)
    if "words" in args.parts:
        temperatures = args.temperatures or infill_evaluation.TEMPERATURES
        words = infill_evaluation.evaluate_words(runs, temperatures=temperatures, **options)
        reports.append(words)
    return Report.joined(reports)
