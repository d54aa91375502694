"""`musax compose`: new music, from nothing or from a beginning."""

import argparse
import time
from pathlib import Path
from typing import Any

from musax.commands import numbers
from musax.commands.console import audio_progress, describe_exception, minutes, report_error
from musax.commands.pieces import (
    add_piece_options,
    choose_seed,
    load_notes,
    plan_pieces,
    write_piece,
)
from musax.commands.results import load_model

DEFAULT_MODEL = "perceiver_ar-pop909"
LENGTH = 60.0

_EPILOG = """\
examples:
  musax compose -o piece.mid                      a minute of piano music
  musax compose -o piece.mid --seed 7 --render --plot
  musax compose --prompt mine.mid --prompt-seconds 20 --length 40 -o more.mid
  musax compose -o pieces.mid --count 8           pieces-1.mid to pieces-8.mid

A prompt of 20 seconds or more sets key, tempo and texture; of several instruments, all notes are
taken for the piano's. The seed is printed: with it, the same command writes the same piece again.

exit status: 0 done, 1 it failed (a line on stderr says why), 2 nothing was started
"""


def add_parser(verbs: Any) -> None:
    """Adds the verb to the subparsers `verbs`."""
    parser = verbs.add_parser(
        "compose",
        help="make up music, or go on with a MIDI file",
        description="Makes up music, from nothing or as the continuation of a MIDI file.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="FILE.mid",
        help="MIDI file to write, prompt included",
    )
    add("--prompt", type=Path, metavar="MIDI", help="how it begins; default: from nothing")
    add(
        "--prompt-seconds",
        type=numbers.seconds,
        metavar="S",
        help="use only so much of the prompt; default: all",
    )
    add(
        "--length",
        type=numbers.seconds,
        default=LENGTH,
        metavar="S",
        help="seconds of new music; the model may end it before; default: %(default)g",
    )
    add(
        "--temperature",
        type=numbers.not_negative,
        default=1.0,
        metavar="T",
        help="above 1 is wilder, below 1 tamer; default: %(default)g",
    )
    add(
        "--top-p",
        type=numbers.probability,
        default=0.98,
        metavar="P",
        help="leave out the least likely events beyond this probability; default: %(default)g",
    )
    add("--model", default=DEFAULT_MODEL, metavar="NAME|DIR", help="default: %(default)s")
    add_piece_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Composes; 1 with a line on stderr if that fails, 2 if nothing could be started."""
    try:
        jobs = plan_pieces(args, args.prompt)
        prompt = None if args.prompt is None else load_notes(args.prompt)
    except Exception as error:
        report_error(describe_exception(error, args.prompt or args.output))
        return 2
    model = load_model(args.model)
    if model is None:
        return 2
    if not hasattr(model, "compose"):
        report_error(f"{args.model}: not a model that composes; `musax models` lists them")
        return 2
    seed = choose_seed(args)
    started = time.monotonic()
    try:
        with audio_progress(args.output.name, enabled=not args.quiet) as progress:
            pieces = model.compose(
                prompt,
                count=args.count,
                seconds=args.length,
                prompt_seconds=args.prompt_seconds,
                seed=seed,
                temperature=args.temperature,
                top_p=args.top_p,
                progress=progress,
            )
        taken = time.monotonic() - started
        for piece, job in zip(pieces, jobs):
            line = piece.prompt_seconds or None
            write_piece(
                job, piece.notes, seconds=piece.seconds, line=line, soundfont=args.soundfont
            )
            if not args.quiet:
                print(f"{_summary(piece)}, seed {seed}, {taken:.1f} s -> {job.names}", flush=True)
    except Exception as error:
        report_error(describe_exception(error, args.prompt or args.output))
        return 1
    return 0


def _summary(piece: Any) -> str:
    what = f"{len(piece.notes)} notes, {minutes(piece.seconds)}"
    if piece.prompt_seconds:
        what += f" ({minutes(piece.prompt_seconds)} of prompt)"
    return what + (", ended by the model" if piece.ended else "")
