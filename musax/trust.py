"""The option `--trust` of commands that read training runs; see `t5x.gin_limits`."""

import argparse


def add_trust(parser: argparse.ArgumentParser) -> None:
    """Add `--trust` to a parser."""
    parser.add_argument(
        "--trust",
        action="store_true",
        help="let config.gin of a run import and call anything, as a program does; without it, "
        "only our packages' models and data",
    )
