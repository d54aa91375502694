"""`musax transcribe`: recordings to notes."""

import argparse
from pathlib import Path
from typing import Any

from musax.commands import numbers, options
from musax.commands.capabilities import check_options, given_options, read_capabilities
from musax.commands.console import audio_progress
from musax.commands.files import expand_inputs
from musax.commands.outputs import Job, Plan, plan_outputs
from musax.commands.verb import STATUS_HELP, describe_transcription, run_verb, save_result

TASK = "transcribe"
DECODES = ("constrained", "greedy", "t5x-beam1")
#: Options of the command line, and what models call them.
OPTIONS = {"decode": "decode", "batch_size": "batch_size"}

_EPILOG = f"""\
examples:
  musax transcribe song.mp3                         writes song.mid beside it
  musax transcribe song.mp3 -o notes.csv            writes one file
  musax transcribe recordings/ 'live/*.flac' -o out
  musax transcribe song.wav -o out --format mid,csv,png,wav
  musax transcribe song.wav --model checkpoints/mt3 --decode t5x-beam1

formats:
  mid   Standard MIDI file
  csv   one note per row, times in seconds
  json  the same as a list of objects
  png   the notes over the spectrum of the first minute (extra `plots`)
  wav   the notes played by a soundfont

{STATUS_HELP}
"""


def add_parser(verbs: Any) -> None:
    """Add the verb to the subparsers `verbs`."""
    parser = verbs.add_parser(
        "transcribe",
        help="recordings to notes: MIDI, CSV, JSON, pictures, audio",
        description="Transcribe recordings to notes. Recordings of any length are read piece by "
        "piece, in constant memory.",
        epilog=_EPILOG,
    )
    options.add_inputs(parser)
    options.add_output(parser)
    options.add_formats(parser)
    options.add_model(parser, TASK)
    options.add_choice(
        parser,
        "--decode",
        DECODES,
        "constrained: the most likely token that the note grammar allows; greedy: the most likely "
        "token; t5x-beam1: beam search of width 1, as the released MT3 models decode; default: "
        "constrained",
    )
    parser.add_argument(
        "--batch-size",
        type=numbers.count,
        metavar="N",
        help="segments transcribed together; more are faster and take more memory; default: 16, on "
        "accelerators 64",
    )
    options.add_overwrite(parser)
    options.add_quiet(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Transcribe every input, and return the exit status."""

    model = args.model or options.default_model(TASK)

    def plan(folder: Path | None) -> Plan:
        check_options(args, OPTIONS, read_capabilities(folder, "transcribe"), model)
        return plan_outputs(args, expand_inputs(args.inputs), infix="transcribed")

    def work(loaded: Any, job: Job) -> list[str]:
        with audio_progress(job.subject, enabled=not args.quiet) as progress:
            settings = given_options(args, OPTIONS)
            result = loaded.transcribe_file(job.source, progress=progress, **settings)
        save_result(result, job.outputs, source=job.source, soundfont=args.soundfont)
        return [describe_transcription(result, "notes")]

    return run_verb(args, TASK, model=model, plan=plan, work=work)
