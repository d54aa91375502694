"""`musax evaluate pronounce`: error rates of words spoken by runs of cdcd's translation models."""

import argparse
from typing import Any

from musax.commands import numbers
from musax.commands.evaluate.running import is_run
from musax.commands.evaluate.score import SPLITS
from musax.commands.outputs import InputError
from musax.trust import add_trust

NAME, HELP = "pronounce", "phonemes of written words, by training runs"
DESCRIPTION = """\
Measure error rates of phonemes (PER) and words (WER) of runs of configs/cdcd/pronunciation*.gin; a
prediction is compared with the nearest pronunciation. Intervals are of 95 %, by bootstrap of
words."""
EPILOG = """\
examples:
  # one sample, the best of 10 and 50 by minimum Bayes risk, greedy and beam search
  musax evaluate pronounce --model runs/pronunciation --model runs/pronunciation_ar
  # guidance and a sharper score, on some of the words
  musax evaluate pronounce --model runs/pronunciation --limit 300 --guidance 1 2 4 \\
      --temperatures 1 0.8
"""
UTILITIES = ("edit_distance", "bleu", "chrf")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add runs, and how words are spoken."""
    add = parser.add_argument
    add(
        "--model",
        action="append",
        required=True,
        metavar="DIR",
        help="MODEL_DIR of a training run; may be repeated",
    )
    add_trust(parser)
    add("--step", type=int, metavar="N", help="step of the checkpoints; default: the last")
    add("--split", default="test", choices=SPLITS, help="split of the words; default: %(default)s")
    add("--limit", type=numbers.count, metavar="N", help="words of the split; default: all")
    many: dict[str, Any] = {"nargs": "+", "metavar": "N"}
    add(
        "--samples",
        type=numbers.count,
        default=[1, 10, 50],
        help="samples per word; default: 1 10 50",
        **many,
    )
    add(
        "--utility",
        nargs="+",
        choices=UTILITIES,
        default=["edit_distance"],
        help="utility of minimum Bayes risk, by which a sample is chosen; default: edit_distance",
    )
    add(
        "--guidance",
        type=numbers.not_negative,
        default=[1.0],
        help="diffusion: guidance weights; default: 1",
        **many,
    )
    add(
        "--temperatures",
        type=numbers.positive,
        default=[1.0],
        help="diffusion: temperatures of the score; default: 1",
        **many,
    )
    for option, default, said in (
        ("--steps", 50, "of diffusion's sampler"),
        ("--beams", 4, "of beam search"),
        ("--batch-size", 1000, "samples at a time"),
    ):
        add(
            option,
            type=numbers.count,
            default=default,
            metavar="N",
            help=f"{said}; default: %(default)s",
        )
    add(
        "--seed",
        type=numbers.seed,
        default=0,
        metavar="N",
        help="seed of samples; default: %(default)s",
    )


def check(args: argparse.Namespace) -> None:
    """Raise unless the models are training runs."""
    for name in args.model:
        if not is_run(name):
            raise InputError(f"{name}: no config.gin there; expected MODEL_DIR of a training run")


def evaluate(args: argparse.Namespace, progress: Any) -> Any:
    """Score the runs."""
    from cdcd.translation import evaluation

    options = evaluation.Decoding(
        args.samples,
        args.utility,
        args.guidance,
        args.temperatures,
        args.steps,
        args.beams,
        args.batch_size,
        args.seed,
    )
    return evaluation.evaluate(
        args.model,
        step=args.step,
        split=args.split,
        limit=args.limit,
        options=options,
        progress=progress,
    )
