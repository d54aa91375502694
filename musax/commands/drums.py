"""`musax drums`: recordings of drums to hits with velocities."""

import argparse
from pathlib import Path
from typing import Any

from musax.commands import numbers, options
from musax.commands.capabilities import check_options, given_options, read_capabilities
from musax.commands.console import audio_progress
from musax.commands.files import expand_inputs
from musax.commands.outputs import Job, Plan, plan_outputs
from musax.commands.tempo import add_tempo, find_tempo
from musax.commands.verb import STATUS_HELP, describe_transcription, run_verb, save_result

TASK = "drums"
CLASSES = ("3-hit", "5", "8-hit", "9", "18")
MAPS = ("gm", "roland")
#: Options of the command line, and what models call them.
OPTIONS = {"classes": "level", "threshold": "threshold", "map": "pitch_map"}

_EPILOG = f"""\
examples:
  musax drums loop.wav                              writes loop.mid beside it
  musax drums loop.mp3 -o groove.mid --map gm --tempo 96
  musax drums takes/ -o out --format mid,csv,png    a whole folder
  musax drums loop.wav -o loop-played.wav --kit GMRockKit

formats:
  mid   Standard MIDI file
  csv   one hit per row, times in seconds
  json  the same as a list of objects
  png   the hits of each drum over the first minute of the recording (extra `plots`)
  wav   the hits played by a soundfont or drum kit

classes:
  3-hit   kick; snare and toms; hi-hats and cymbals
  5       kick, snare, tom, hi-hat, cymbal
  8-hit   those of OaF Drums
  9       kick, snare, three toms, closed and open hi-hat, crash, ride
  18      every stroke that the model distinguishes

The recording should contain drums only; separate them from a mix first. The estimated tempo is
written into the MIDI file. The time before the first beat becomes one quarter note, so that beats
fall on the grid and hits keep their times.

{STATUS_HELP}
"""


def add_parser(verbs: Any) -> None:
    """Add the verb to the subparsers `verbs`."""
    parser = verbs.add_parser(
        "drums",
        help="drum recordings to hits with velocities: MIDI, CSV, JSON, pictures, audio",
        description="Transcribe recordings of drums to hits with velocities. Recordings of any "
        "length are read piece by piece, in constant memory.",
        epilog=_EPILOG,
    )
    options.add_inputs(parser)
    options.add_output(parser)
    options.add_formats(parser)
    options.add_model(parser, TASK)
    add = parser.add_argument
    add(
        "--kit",
        metavar="KIT",
        help="drum kit that plays the audio instead of a soundfont: a folder of a Hydrogen kit, or "
        "the name of an installed one (docs/data.md)",
    )
    add("--classes", choices=CLASSES, help="drums to distinguish, see below; default: 9")
    add(
        "--map",
        choices=MAPS,
        help="MIDI pitches of the high and middle tom: gm (General MIDI, 50 and 47) or roland "
        "(Roland pads, 48 and 45); default: those of the classes",
    )
    add(
        "--threshold",
        type=numbers.real("a probability between 0 and 1", 0.0, 1.0, above=True, below=True),
        metavar="P",
        help="onset probability from which a hit is reported, between 0 and 1: lower values report "
        "more hits; default: one for each drum, tuned on validation data",
    )
    add_tempo(parser)
    options.add_overwrite(parser)
    options.add_quiet(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Transcribe every input, and return the exit status."""
    kit: Any = None
    model = args.model or options.default_model(TASK)

    def plan(folder: Path | None) -> Plan:
        check_options(args, OPTIONS, read_capabilities(folder, "transcribe"), model)
        return plan_outputs(args, expand_inputs(args.inputs), infix="transcribed")

    def prepare() -> None:
        nonlocal kit
        if args.kit is not None:
            from musax.rendering.drum_kits import load_drum_kit

            kit = load_drum_kit(args.kit)

    def work(loaded: Any, job: Job) -> list[str]:
        with audio_progress(job.subject, enabled=not args.quiet) as progress:
            settings = given_options(args, OPTIONS)
            result = loaded.transcribe_file(job.source, progress=progress, **settings)
        beat, sentence = find_tempo(result.notes, args.tempo)
        given = {"source": job.source, "soundfont": args.soundfont, "kit": kit}
        save_result(result, job.outputs, **given, **beat)
        return [describe_transcription(result, "hits", sentence)]

    return run_verb(args, TASK, model=model, plan=plan, prepare=prepare, work=work)
