"""The command `musax`.

A verb is a module of `musax.commands`, listed in `COMMANDS`: `add_parser(verbs)` adds its options
and sets the default `run`, a function from parsed options to the exit status. What a verb needs is
imported when it runs, so that `musax --help` is quick and no package loads another.
"""

import io
import os
import sys
from collections.abc import Sequence

from musax.commands import (
    compose,
    drums,
    evaluate,
    export,
    infill,
    models,
    prepare,
    render,
    score,
    train,
    transcribe,
)
from musax.commands.console import report_error
from musax.commands.options import Parser

COMMANDS = (
    *(transcribe, drums, compose, infill, score, render, models),
    *(prepare, train, evaluate, export),
)

_EPILOG = """\
examples:
  musax transcribe song.mp3                     writes song.mid beside it
  musax transcribe recordings/ -o out --format mid,csv,png
  musax drums loop.wav -o loop.mid --plot       writes loop.mid and loop.png
  musax compose -o piece.mid --length 60 --render
  musax infill song.mid --bars 5:8 -o filled.mid
  musax score --text "to be or not to be"
  musax render song.mid -o song.wav
  musax models
  musax transcribe --help                       options and examples of a verb
"""

INTERRUPTED = 130  # 128 + SIGINT, as shells report it


def build_parser() -> Parser:
    """Return the parser of the whole command line."""
    parser = Parser(
        prog="musax",
        description="Learned models of music: transcribe recordings, compose pieces, fill in and "
        "score them; prepare data, train, evaluate and export models.",
        epilog=_EPILOG,
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", title="verbs")
    for command in COMMANDS:
        command.add_parser(verbs)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line, and return the exit status.

    It is 0 if all was done, 1 if some of it failed, and 2 if nothing was started.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # there may be names that are no text
            stream.reconfigure(errors="backslashreplace")
    parser = build_parser()
    args, args.rest = parser.parse_known_args(argv)
    if args.rest and not getattr(args, "takes_rest", False):  # a verb that hands options on
        prog = " ".join(filter(None, ["musax", args.verb]))
        files = [f"./{name}" for name in args.rest if os.path.lexists(name)]
        hint = f"; write a file as {files[0]}" if files else ""
        Parser(prog=prog).error(f"unrecognized arguments: {' '.join(args.rest)}{hint}")
    if args.version:
        from importlib.metadata import version

        print(f"musax {version('musax')}")
        return 0
    if args.verb is None:
        parser.print_help()
        return 2
    try:
        return args.run(args)
    except KeyboardInterrupt:
        report_error("interrupted; files that were written are complete")
        return INTERRUPTED
    except BrokenPipeError:  # the reader of the output has ended, as in `musax models | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
