"""What verbs that make up music share: options, the files of each piece, and prompts."""

import argparse
import secrets
from pathlib import Path
from typing import Any

from musax.commands import numbers
from musax.commands.files import InputError
from musax.commands.results import Job, check_outputs, existing

MIDI_SUFFIXES = (".mid", ".midi")
_PNG_SECONDS = 120.0


def add_piece_options(parser: argparse.ArgumentParser, what: str = "pieces") -> None:
    """Adds how many of `what` are made, of which seed, and what is written beside MIDI files."""
    add = parser.add_argument
    add("--count", type=numbers.count, default=1, metavar="N", help=f"{what}; default: %(default)s")
    add("--seed", type=int, metavar="N", help="default: another one every time")
    add("--render", action="store_true", help="also audio (WAV)")
    add("--soundfont", metavar="F", help="for --render: path or name of an .sf2/.sf3 file")
    add("--plot", action="store_true", help="also a piano roll (PNG)")
    add("-q", "--quiet", action="store_true", help="say only what went wrong")


def choose_seed(args: argparse.Namespace) -> int:
    """The seed that was asked for, or a random one."""
    return secrets.randbelow(1 << 31) if args.seed is None else args.seed


def is_midi(path: Path) -> bool:
    """Whether the name is that of a MIDI file."""
    return path.suffix.lower() in MIDI_SUFFIXES


def numbered(output: Path, count: int) -> list[Path]:
    """`output` for one result; for several, piece-1.mid, piece-2.mid and so on."""
    if count == 1:
        return [output]
    return [output.with_stem(f"{output.stem}-{number}") for number in range(1, count + 1)]


def plan_pieces(args: argparse.Namespace, source: Path | None) -> list[Job]:
    """What to write for each piece, beside `args.output`.

    Args:
      args: with the options of `add_piece_options` and `output`.
      source: what the pieces are made of, which is not to be replaced.

    Raises:
      InputError: a result has no place, would replace the source, or needs an extra.
      SoundfontError: there is no such soundfont.
    """
    output = args.output
    if not is_midi(output):
        raise InputError(f"{output}: expected the name of a MIDI file, such as piece.mid")
    suffixes = [*(["wav"] if args.render else []), *(["png"] if args.plot else [])]
    jobs = []
    for name in numbered(output, args.count):
        outputs = {"mid": name} | {s: name.with_suffix(f".{s}") for s in suffixes}
        jobs.append(Job(source or output, outputs))
    check_not_replaced(source, [path for job in jobs for path in job.outputs.values()])
    check_outputs(jobs, suffixes)
    if args.render:
        from musax.rendering.soundfonts import find_soundfont

        find_soundfont(args.soundfont)
    return jobs


def check_not_replaced(source: Path | None, outputs: list[Path]) -> None:
    """Raises InputError if a result would replace the source."""
    if source is not None and source.resolve() in [path.resolve() for path in existing(outputs)]:
        raise InputError(f"{source}: a result would replace it; choose another name with -o")


def load_notes(path: Path) -> Any:
    """Notes of a MIDI file that music is made of; raises InputError if it has none."""
    from musax.midi import load_midi

    notes = load_midi(path)
    if not len(notes):
        raise InputError(f"{path}: a MIDI file without notes; at least one is needed")
    return notes


def write_piece(
    job: Job,
    notes: Any,
    *,
    seconds: float,
    line: float | None = None,
    soundfont: str | None = None,
    tempo: float = 120.0,
) -> None:
    """Writes every result, complete or not at all.

    Args:
      job: of `plan_pieces`.
      notes: `musax.notes` array.
      seconds: length of the piece.
      line: where the new music begins, for the picture, which shows what is near it, s.
      soundfont: for audio.
      tempo: of the MIDI file.
    """
    from musax.midi import save_midi

    save_midi(job.outputs["mid"], notes, tempo=tempo)
    if "wav" in job.outputs:
        from musax.results import save_rendering

        save_rendering(job.outputs["wav"], notes, soundfont)
    if "png" in job.outputs:
        from musax.plots import plot_piano_roll, save_figure

        start = max((line or 0.0) - _PNG_SECONDS / 2, 0.0)
        shown = min(seconds - start, _PNG_SECONDS)
        title = job.outputs["mid"].name
        figure = plot_piano_roll(notes, start=start, seconds=shown, line=line, title=title)
        save_figure(figure, job.outputs["png"])
