"""`musax render`: MIDI files played by a soundfont."""

import argparse
from pathlib import Path
from typing import Any

from musax.commands import numbers, options
from musax.commands.files import MIDI_SUFFIXES, expand_inputs
from musax.commands.outputs import AUDIO_FORMATS, Job, Plan, plan_outputs
from musax.commands.verb import STATUS_HELP, run_verb

_SAMPLE_RATE = 44_100

_EPILOG = f"""\
examples:
  musax render song.mid                            writes song.wav beside it
  musax render song.mid -o song.flac --soundfont FluidR3_GM
  musax render pieces/ -o out --format ogg         a whole folder

{STATUS_HELP}
"""


def add_parser(verbs: Any) -> None:
    """Add the verb to the subparsers `verbs`."""
    parser = verbs.add_parser(
        "render",
        help="MIDI files to audio, by a soundfont",
        description="Play MIDI files through a soundfont into stereo audio files.",
        epilog=_EPILOG,
    )
    parser.add_argument(
        "inputs", nargs="+", metavar="MIDI", help="MIDI files, folders of MIDI files, or patterns"
    )
    options.add_output(parser, AUDIO_FORMATS)
    options.add_formats(parser, AUDIO_FORMATS, "wav")
    parser.add_argument(
        "--sample-rate",
        type=numbers.sample_rate,
        default=_SAMPLE_RATE,
        metavar="HZ",
        help="samples per second; default: %(default)s",
    )
    options.add_overwrite(parser)
    options.add_quiet(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Render every input, and return the exit status."""

    def plan(folder: Path | None) -> Plan:
        sources = expand_inputs(args.inputs, MIDI_SUFFIXES)
        return plan_outputs(args, sources, AUDIO_FORMATS, default="wav")

    def work(model: None, job: Job) -> list[str]:
        from musax.midi import load_midi
        from musax.results import save_rendering

        notes = load_midi(job.source)
        for path in job.paths:
            save_rendering(path, notes, args.soundfont, args.sample_rate)
        return [f"{len(notes)} notes"]

    return run_verb(args, None, plan=plan, work=work)
