"""`musax train`: train a model of a gin configuration; the same as `python -m t5x.train`."""

import argparse
from typing import Any

_EXAMPLE = """musax train --gin_file=configs/mt3/tiny_piano_onsets.gin \\
      --gin.DATA_DIR=data/rendered_midi --gin.MODEL_DIR=runs/piano_onsets"""


def add_parser(verbs: Any) -> None:
    """Add the verb to the subparsers `verbs`; all of its options are those of `t5x.train`."""
    parser = verbs.add_parser(
        "train", help="train a model of a gin configuration", add_help=False, allow_abbrev=False
    )
    parser.set_defaults(run=run, takes_rest=True)


def run(args: argparse.Namespace) -> int:
    """Train; return the exit status of `t5x.train`."""
    from t5x import interrupts

    with interrupts.ending_the_process():
        from t5x import train

    return train.main(args.rest, command="musax train", example=_EXAMPLE)
