"""`musax transcribe`: recordings to notes."""

import argparse
import math
from pathlib import Path
from typing import Any

from musax.commands import numbers, options
from musax.commands.capabilities import check_options, given_options, read_capabilities
from musax.commands.console import audio_progress
from musax.commands.files import expand_inputs
from musax.commands.outputs import Job, Plan, plan_outputs
from musax.commands.tempo import add_tempo, find_tempo
from musax.commands.verb import STATUS_HELP, describe_transcription, run_verb, save_result

TASK = "transcribe"
DECODES = ("constrained", "greedy", "t5x-beam1")
#: Options of the command line, and what models call them.
OPTIONS = {
    "decode": "decode",
    "batch_size": "batch_size",
    "velocity": "velocity",
    "min_note": "min_note_seconds",
    "max_dangling_seconds": "max_dangling_seconds",
}
#: How long a piece must keep to its beat to be written with its tempo, s: recordings may have none.
_STEADY_SECONDS = 16.0

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

Where the notes keep to a steady beat, its tempo is written into the MIDI file, and the time before
the first beat becomes one quarter note; times of notes stay as they are.

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
    add_tempo(parser)
    parser.add_argument(
        "--velocity",
        type=numbers.velocity,
        metavar="V",
        help="velocity of all notes, 1 to 127, with models that tell none; default: 80",
    )
    parser.add_argument(
        "--min-note",
        type=numbers.not_negative,
        metavar="S",
        help="leave out shorter notes, in seconds; 0 keeps all; default: 0.03 with models that "
        "tell ends in steps of 10 ms or more",
    )
    parser.add_argument(
        "--max-dangling-seconds",
        type=_seconds_or_none,
        metavar="S",
        help="longest note whose end the model does not tell, in seconds; none for no limit; "
        "default: 1.5",
    )
    options.add_overwrite(parser)
    options.add_quiet(parser)
    parser.set_defaults(run=run)


def _seconds_or_none(text: str) -> float:
    return math.inf if text == "none" else numbers.seconds(text)


def run(args: argparse.Namespace) -> int:
    """Transcribe every input, and return the exit status."""

    model = args.model or options.default_model(TASK)

    settings: dict[str, Any] = {}

    def plan(folder: Path | None) -> Plan:
        found = read_capabilities(folder, "transcribe")
        check_options(args, OPTIONS, found, model)
        if "min_note_seconds" in found.options:
            settings["min_note_seconds"] = None
        settings.update(given_options(args, OPTIONS))
        return plan_outputs(args, expand_inputs(args.inputs), infix="transcribed")

    def work(loaded: Any, job: Job) -> list[str]:
        with audio_progress(job.subject, enabled=not args.quiet) as progress:
            result = loaded.transcribe_file(job.source, progress=progress, **settings)
        beat, sentence = find_tempo(result.notes, args.tempo, _STEADY_SECONDS)
        save_result(result, job.outputs, source=job.source, soundfont=args.soundfont, **beat)
        return [describe_transcription(result, "notes", sentence)]

    return run_verb(args, TASK, model=model, plan=plan, work=work)
