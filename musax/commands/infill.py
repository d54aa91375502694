"""`musax infill`: gaps in a piece or text, filled in by a model."""

import argparse
from pathlib import Path
from typing import Any

from musax.commands import numbers, options, pieces
from musax.commands.capabilities import Capabilities
from musax.commands.files import InputError, is_midi
from musax.commands.verb import STATUS_HELP

TASK = "infill"
#: Options of the command line, and what models call them.
OPTIONS = {"bars": "bars", "seconds": "seconds", **pieces.SAMPLING}

_EPILOG = f"""\
examples:
  musax infill song.mid --bars 5:8 -o filled.mid --count 3
  musax infill song.mid --seconds 4:6.5 -o filled.mid --plot
  musax infill --text "to be or ___ to be" --count 5
  musax infill page.txt -o filled.txt

Of a MIDI file, the melody is taken: the highest notes, on a grid of sixteenths at its tempo. Notes
outside the gap keep their place. In text, each underscore is one symbol to fill in.

{STATUS_HELP}
"""


def add_parser(verbs: Any) -> None:
    """Add the verb to the subparsers `verbs`."""
    parser = verbs.add_parser(
        "infill",
        help="fill gaps in a melody or text",
        description="Fill gaps in a melody or text so that they fit their context.",
        epilog=_EPILOG,
    )
    add = parser.add_argument
    add(
        "file",
        nargs="?",
        type=Path,
        metavar="FILE",
        help="a MIDI file, or a text file with underscores",
    )
    add("--text", metavar="TEXT", help="text with underscores, instead of FILE")
    gap = parser.add_mutually_exclusive_group()
    gap.add_argument(
        "--bars",
        type=numbers.span(numbers.count, "5:8"),
        metavar="FROM:TO",
        help="gap in a MIDI file: first and last bar, counted from 1",
    )
    gap.add_argument(
        "--seconds",
        type=numbers.span(numbers.not_negative, "4:6.5"),
        metavar="FROM:TO",
        help="gap in a MIDI file: start and end in seconds",
    )
    options.add_output(parser, pieces.FORMATS, "stdout for text, none for music")
    options.add_formats(parser, pieces.FORMATS, "mid, for text txt")
    options.add_model(parser, TASK)
    pieces.add_sampling(parser)
    options.add_quiet(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Fill in, and return the exit status."""
    return pieces.run_pieces(
        args,
        TASK,
        OPTIONS,
        of_text=args.file is None or not is_midi(args.file),
        find_source=lambda found, model: _find_source(args, found, model),
        text=args.text,
        infix="infilled",
    )


def _find_source(args: argparse.Namespace, found: Capabilities, model: str) -> Path | None:
    """Return the file; raise InputError unless there is one input, and a gap if it is music."""
    if (args.file is None) == (args.text is None):
        raise InputError("infill: expected a FILE or --text TEXT, and not both")
    if args.file is not None:
        pieces.check_content(args.file, found, model)
    elif not found.is_text:
        raise InputError(f"--text: {model} is a model of music; expected a MIDI file")
    marked = args.bars is not None or args.seconds is not None
    if found.is_text and marked:
        raise InputError("--bars, --seconds: only for MIDI files; mark gaps in text by underscores")
    if not found.is_text and not marked:
        raise InputError(f"{args.file}: give the gap with --bars FROM:TO or --seconds FROM:TO")
    return args.file
