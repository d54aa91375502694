"""`musax compose`: new music or text, with or without a prompt."""

import argparse
from pathlib import Path
from typing import Any

from musax.commands import numbers, options, pieces
from musax.commands.capabilities import Capabilities
from musax.commands.files import InputError, is_midi
from musax.commands.verb import STATUS_HELP

TASK = "compose"
#: Options of the command line, and what models call them.
OPTIONS = {
    "length": "seconds",
    "bars": "bars",
    "tokens": "tokens",
    "prompt_seconds": "prompt_seconds",
    "range": "pitch_range",
    **pieces.SAMPLING,
}

_EPILOG = f"""\
examples:
  musax compose -o piece.mid                      a minute of piano music
  musax compose -o piece.mid --length 30 --seed 7 --render --plot
  musax compose --prompt mine.mid --prompt-seconds 20 --length 40 -o more.mid
  musax compose -o pieces.mid --count 8           pieces-1.mid to pieces-8.mid
  musax compose --model cdcd-melody --bars 8 --temperature 0.95 -o tune.mid
  musax compose --model cdcd-text --prompt "once upon a time" --count 3

Music goes to files, text without -o to stdout. Without --model, -o FILE.txt chooses the default
model of text, anything else that of music. The result contains the prompt. A prompt of 20 seconds
or more sets key, tempo and texture for perceiver_ar-pop909, which plays all instruments on the
piano; cdcd-melody takes the highest notes, on a grid of sixteenths.

Each model has some of the options; one that it does not have is refused:
  perceiver_ar-pop909      --length --prompt-seconds --temperature --top-p
  cdcd-melody              --length --bars --tempo --range, and those of continuous diffusion
  cdcd-text                --tokens, and those of continuous diffusion
  continuous diffusion     --steps --method --guidance --rounds --temperature --top-p

{STATUS_HELP}
"""


def add_parser(verbs: Any) -> None:
    """Add the verb to the subparsers `verbs`."""
    parser = verbs.add_parser(
        "compose",
        help="new music or text, with or without a prompt",
        description="Compose new music or text, or the continuation of a prompt.",
        epilog=_EPILOG,
    )
    options.add_output(parser, pieces.FORMATS, "stdout for text, none for music")
    options.add_formats(parser, pieces.FORMATS, "mid, for text txt")
    options.add_model(parser, TASK)
    add = parser.add_argument
    add("--prompt", metavar="FILE|TEXT", help="the beginning: a MIDI file, a text file, or text")
    add(
        "--prompt-seconds",
        type=numbers.seconds,
        metavar="S",
        help="use only the first S seconds of the prompt; default: the whole prompt",
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument(
        "--length",
        type=numbers.seconds,
        metavar="S",
        help="seconds of new music; a model may end a piece before; default: 60, with models of "
        "melodies up to the length in training",
    )
    length.add_argument(
        "--bars", type=numbers.count, metavar="N", help="bars of new music, with models of melodies"
    )
    length.add_argument(
        "--tokens",
        type=numbers.count,
        metavar="N",
        help="length of new text in the model's tokens (letters of cdcd-text); default: up to the "
        "length in training",
    )
    add(
        "--range",
        nargs=2,
        type=numbers.pitch,
        metavar=("LOW", "HIGH"),
        help="models of melodies, without a prompt: MIDI pitches; melodies whose median pitch is "
        "outside are sampled again; default: 55 96, the treble",
    )
    pieces.add_sampling(parser)
    options.add_quiet(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Compose, and return the exit status."""
    return pieces.run_pieces(
        args,
        TASK,
        OPTIONS,
        of_text=args.output is not None and args.output.suffix.lower() == ".txt",
        find_source=lambda found, model: _prompt_file(args.prompt, found, model),
        text=args.prompt,
        infix="composed",
    )


def _prompt_file(prompt: str | None, found: Capabilities, model: str) -> Path | None:
    """Return the file that a prompt names; None for text, or without a prompt."""
    if prompt is None:
        return None
    if "prompt" not in found.options:
        raise InputError(f"{model}: this model has no option --prompt")
    path = Path(prompt)
    if found.is_text and not is_midi(path) and not _exists(path):
        return None
    if not found.is_text and not is_midi(path):
        raise InputError(f"--prompt {prompt}: {model} is a model of music; expected a MIDI file")
    pieces.check_content(path, found, model)
    return path


def _exists(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a text that is too long for a name
        return False
