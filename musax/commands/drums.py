"""`musax drums`: recordings of drums to hits with velocities."""

import argparse
import functools
import warnings
from pathlib import Path
from typing import Any

from musax.commands import numbers
from musax.commands.console import audio_progress, report_error
from musax.commands.files import InputError, Job, expand_inputs, plan_outputs
from musax.commands.results import (
    PNG_SECONDS,
    check_outputs,
    load_model,
    run_jobs,
    summary,
    write_results,
)

DEFAULT_MODEL = "drums-small"
CLASSES = ("3-hit", "5", "8-hit", "9", "18")
MAPS = ("gm", "roland")
_PNG_RATE = 44100
_RENDER_RATE = 44100

_EPILOG = """\
examples:
  musax drums loop.wav                              writes loop.mid beside it
  musax drums loop.mp3 -o groove.mid --map gm --tempo 96
  musax drums takes/ -o out --csv --plot            a whole folder
  musax drums loop.wav -o out --render GMRockKit    also plays it on a drum kit

classes:
  3-hit   kick; snare and toms; hats and cymbals      5    kick, snare, tom, hi-hat, cymbal
  8-hit   those of OaF Drums                          9    open and closed hi-hat, three toms
  18      every stroke the model knows

A recording of drums alone is expected; separate them first from a mix. The tempo that is written
is estimated (extra `tempo`), and the time before the first beat becomes one quarter, so that the
MIDI opens on the grid while hits keep their times.

exit status: 0 all done, 1 some inputs failed (one line each on stderr), 2 nothing was started
"""


def add_parser(verbs: Any) -> None:
    """Adds the verb to the subparsers `verbs`."""
    parser = verbs.add_parser(
        "drums",
        help="write the drum hits of recordings, with velocities, as MIDI and more",
        description="Transcribes recordings of drums. Files of any length are read as they are "
        "transcribed.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("inputs", nargs="+", metavar="INPUT", help="audio files, folders of them, or patterns")
    add(
        "-o",
        "--output",
        type=Path,
        metavar="FILE.mid|DIR",
        help="MIDI file of one input, or folder of the results; default: beside each input, where "
        "nothing is overwritten",
    )
    add("--model", default=DEFAULT_MODEL, metavar="NAME|DIR", help="default: %(default)s")
    add("--classes", choices=CLASSES, help="which drums are told apart; default: 9")
    add("--map", choices=MAPS, help="whose pitches toms get; default: those of the classes")
    add(
        "--threshold",
        type=numbers.real("a probability between 0 and 1", 0.0, 1.0, above=True, below=True),
        metavar="P",
        help="onset probability of a hit (0 to 1): less finds more; default: the model's own",
    )
    add(
        "--tempo",
        default="auto",
        type=_tempo,
        metavar="BPM",
        help="quarter notes per minute; auto estimates, none writes 120; default: %(default)s",
    )
    add("--csv", action="store_true", help="also hits as CSV, times in seconds")
    add("--json", action="store_true", help="also hits as JSON")
    add("--plot", action="store_true", help="also a picture of the first minute (PNG)")
    add("--render", metavar="KIT", help="also audio: the hits on a drum kit, see docs/data.md")
    add("--overwrite", action="store_true", help="replace results beside inputs")
    add("-q", "--quiet", action="store_true", help="say only what went wrong")
    parser.set_defaults(run=run)


def _tempo(text: str) -> str | float:
    if text in ("auto", "none"):
        return text
    return numbers.real("auto, none or a tempo from 4 to 1000", 4.0, 1000.0)(text)


def run(args: argparse.Namespace) -> int:
    """Transcribes every input; 1 if any failed, 2 if nothing could be started."""
    try:
        jobs = _plan(args)
        check_outputs(jobs, _formats(args))
        kit = _load_kit(args.render)
    except ValueError as error:
        report_error(error)
        return 2
    model = load_model(args.model)
    if model is None:
        return 2
    if not hasattr(model, "stream"):
        report_error(f"{args.model}: not a model of drums; `musax models` lists them")
        return 2
    work = functools.partial(_transcribe, model=model, kit=kit, args=args)
    overwrite = args.output is not None or args.overwrite
    return run_jobs(jobs, work, overwrite=overwrite, quiet=args.quiet)


def _formats(args: argparse.Namespace) -> tuple[str, ...]:
    """Suffixes of the results."""
    wanted = (("csv", args.csv), ("json", args.json), ("png", args.plot))
    return ("mid", *(suffix for suffix, asked in wanted if asked))


def _plan(args: argparse.Namespace) -> list[Job]:
    """What is to be written for each input; raises InputError."""
    sources, formats = expand_inputs(args.inputs), _formats(args)
    output, rendered = args.output, ("wav",) if args.render else ()
    if output is None or output.suffix.lower() not in (".mid", ".midi"):
        return plan_outputs(sources, (*formats, *rendered), output)
    if len(sources) > 1:
        raise InputError(f"{output}: one file for {len(sources)} inputs; give a folder with -o DIR")
    outputs = {suffix: output.with_suffix(f".{suffix}") for suffix in (*formats, *rendered)}
    outputs["mid"] = output
    if any(path.resolve() == sources[0].resolve() for path in outputs.values()):
        raise InputError(f"{output}: a result would replace the input {sources[0]}")
    return [Job(sources[0], outputs)]


def _load_kit(name: str | None) -> Any:
    if name is None:
        return None
    from musax.rendering.drum_kits import load_drum_kit

    return load_drum_kit(name, _RENDER_RATE)


def _transcribe(job: Job, model: Any, kit: Any, args: argparse.Namespace) -> str:
    """Transcribes one input and writes its results; what to say of it."""
    with audio_progress(job.source.name, enabled=not args.quiet) as progress:
        result = model.transcribe_file(
            job.source,
            level=args.classes,
            threshold=args.threshold,
            pitch_map=args.map,
            progress=progress,
        )
    names = model.picker(args.classes, pitch_map=args.map).names
    return summary(result, "hits", _write(result.notes, job, kit, names, args))


def _write(notes: Any, job: Job, kit: Any, names: dict[int, str], args: argparse.Namespace) -> str:
    """Writes every result, complete or not at all; what to say of the tempo.

    `names` are those of the drums by pitch.
    """
    from musax.midi import save_midi

    tempo, first_beat, said = _find_tempo(notes, args.tempo)
    save_midi(job.outputs["mid"], notes, tempo=tempo, first_beat=first_beat)
    tables = {k: v for k, v in job.outputs.items() if k in ("csv", "json")}
    write_results(notes, Job(job.source, tables))
    if "png" in job.outputs:
        _write_png(job.outputs["png"], notes, job.source, names)
    if "wav" in job.outputs:
        _write_wav(job.outputs["wav"], notes, kit)
    return said


def _find_tempo(notes: Any, asked: str | float) -> tuple[float, float, str]:
    """Tempo, time of the first beat, and what to say of them."""
    if asked == "none":
        return 120.0, 0.0, ""
    if not isinstance(asked, str):
        return asked, 0.0, ""
    from drums.tempo import estimate_tempo

    try:
        found = estimate_tempo(notes)
    except ImportError as error:
        warnings.warn(f"{error}; the MIDI has 120", UserWarning, stacklevel=2)
        return 120.0, 0.0, ""
    if found is None:
        return 120.0, 0.0, ""
    return found.bpm, found.first_beat, f", {found.bpm:.1f} bpm"


def _write_png(path: Path, notes: Any, source: Path, names: dict[int, str]) -> None:
    from musax.audio import stream_audio
    from musax.drum_plots import plot_drums
    from musax.plots import save_figure

    audio = next(stream_audio(source, _PNG_RATE, chunk_seconds=PNG_SECONDS))
    shown = notes[notes["onset"] < len(audio) / _PNG_RATE]
    figure = plot_drums(shown, audio=audio, sample_rate=_PNG_RATE, names=names, title=source.name)
    save_figure(figure, path)


def _write_wav(path: Path, notes: Any, kit: Any) -> None:
    from musax.audio import save_audio
    from musax.rendering.drum_sampler import render_drums

    save_audio(path, render_drums(notes, kit), _RENDER_RATE)
