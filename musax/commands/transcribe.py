"""`musax transcribe`: recordings to notes."""

import argparse
import functools
from pathlib import Path
from typing import Any

from musax.commands import numbers
from musax.commands.console import audio_progress, report_error
from musax.commands.files import InputError, Job, expand_inputs, plan_outputs
from musax.commands.results import check_outputs, load_model, run_jobs, summary, write_results

FORMATS = ("mid", "csv", "json", "png", "wav")
DECODES = ("constrained", "greedy", "t5x_beam1")
DEFAULT_MODEL = "mt3-piano-tiny"

_EPILOG = """\
examples:
  musax transcribe song.mp3                         writes song.mid beside it
  musax transcribe recordings/ 'live/*.flac' -o out
  musax transcribe song.wav -o out --format mid,csv,png,wav
  musax transcribe song.wav --model checkpoints/mt3 --decode t5x_beam1

formats:
  mid   Standard MIDI file            csv, json   one note a row, times in seconds
  png   notes over the spectrum of the first minute
  wav   the notes played by a soundfont

exit status: 0 all done, 1 some inputs failed (one line each on stderr), 2 nothing was started
"""


def add_parser(verbs: Any) -> None:
    """Adds the verb to the subparsers `verbs`."""
    parser = verbs.add_parser(
        "transcribe",
        help="write the notes of recordings as MIDI, CSV, JSON, pictures or audio",
        description="Transcribes recordings to notes. Files of any length are read as they are "
        "transcribed.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "inputs", nargs="+", metavar="INPUT", help="audio files, folders of them, or patterns"
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="DIR",
        help="folder of the results; default: beside each input, where nothing is overwritten",
    )
    parser.add_argument(
        "--model",
        default=DEFAULT_MODEL,
        metavar="NAME|DIR",
        help="a name from `musax models`, or a folder with a model or checkpoint; "
        "default: %(default)s",
    )
    parser.add_argument(
        "--format",
        type=_formats,
        default=("mid",),
        metavar="F,...",
        help=f"any of {','.join(FORMATS)}; default: mid",
    )
    parser.add_argument(
        "--decode",
        choices=DECODES,
        default=DECODES[0],
        help="constrained: only tokens that make sense; greedy: the likeliest token; t5x_beam1: as "
        "the released MT3 decodes; default: %(default)s",
    )
    parser.add_argument(
        "--batch-size",
        type=numbers.count,
        metavar="N",
        help="segments transcribed together; more is faster and needs more memory",
    )
    parser.add_argument(
        "--soundfont", metavar="F", help="for wav: path or name of an .sf2/.sf3 file"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace results beside inputs")
    parser.add_argument("-q", "--quiet", action="store_true", help="say only what went wrong")
    parser.set_defaults(run=run)


def _formats(text: str) -> tuple[str, ...]:
    formats = tuple(dict.fromkeys(part.strip().lower().lstrip(".") for part in text.split(",")))
    unknown = [name for name in formats if name not in FORMATS]
    if unknown:
        raise argparse.ArgumentTypeError(
            f"unknown format {unknown[0]!r}; choose from {', '.join(FORMATS)}"
        )
    return formats


def run(args: argparse.Namespace) -> int:
    """Transcribes every input; 1 if any failed, 2 if nothing could be started."""
    try:
        jobs = plan_outputs(expand_inputs(args.inputs), args.format, args.output)
        check_outputs(jobs, args.format)
    except InputError as error:
        report_error(error)
        return 2
    model = load_model(args.model)
    if model is None:
        return 2
    work = functools.partial(_transcribe, model=model, args=args)
    overwrite = args.output is not None or args.overwrite
    return run_jobs(jobs, work, overwrite=overwrite, quiet=args.quiet)


def _transcribe(job: Job, model: Any, args: argparse.Namespace) -> str:
    """Transcribes one input and writes its results; what to say of it."""
    with audio_progress(job.source.name, enabled=not args.quiet) as progress:
        result = model.transcribe_file(
            job.source, decode=args.decode, batch_size=args.batch_size, progress=progress
        )
    write_results(result.notes, job, args.soundfont)
    return summary(result, "notes")
