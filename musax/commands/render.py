"""`musax render`: a MIDI file played by a soundfont."""

import argparse
from pathlib import Path
from typing import Any

SAMPLE_RATE = 44100

_EPILOG = """\
examples:
  musax render song.mid                            writes song.wav
  musax render song.mid -o out/song.flac --soundfont FluidR3_GM
"""


def add_parser(verbs: Any) -> None:
    """Adds the verb to the subparsers `verbs`."""
    parser = verbs.add_parser(
        "render",
        help="play a MIDI file into an audio file",
        description="Plays a MIDI file through a soundfont into an audio file.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("midi", type=Path, metavar="MIDI", help="a Standard MIDI file")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="audio file to write (.wav, .flac, .ogg); default: MIDI's name with .wav",
    )
    parser.add_argument(
        "--soundfont",
        metavar="F",
        help="path or name of an .sf2/.sf3 file; default: the General MIDI bank musax brings",
    )
    parser.add_argument(
        "--sample-rate", type=int, default=SAMPLE_RATE, metavar="HZ", help="default: %(default)s"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Renders; 1 with a line on stderr if that fails."""
    from musax.commands.console import describe_exception, report_error
    from musax.midi import load_midi

    output = args.output or args.midi.with_suffix(".wav")
    try:
        notes = load_midi(args.midi)
        write_rendering(output, notes, args.soundfont, args.sample_rate)
    except Exception as error:
        report_error(describe_exception(error, args.midi))
        return 1
    print(f"{args.midi}: {len(notes)} notes -> {output}")
    return 0


def write_rendering(
    path: Path, notes: Any, soundfont: str | None = None, sample_rate: int = SAMPLE_RATE
) -> None:
    """Render notes to the audio file `path`, in stereo.

    What exceeds full scale is scaled down with a warning, see `musax.audio.save_audio`.

    Raises:
      SoundfontError, AudioError, ImportError: naming what is missing or cannot be written.
    """
    from musax.audio import save_audio
    from musax.rendering.synthesizer import Synthesizer

    # Without notes there is nothing to play, but a file should still hold a moment of silence.
    seconds = None if len(notes) else 0.1
    audio = Synthesizer(soundfont, sample_rate).render(notes, stereo=True, seconds=seconds)
    save_audio(path, audio, sample_rate)
