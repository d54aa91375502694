"""`musax compose`: new music, from nothing or from a beginning."""

import argparse
import secrets
import time
from pathlib import Path
from typing import Any

from musax.commands.console import audio_progress, describe_exception, minutes, report_error
from musax.commands.files import InputError, Job, existing
from musax.commands.results import check_outputs, load_model

DEFAULT_MODEL = "perceiver_ar-pop909"
LENGTH = 60.0
_PNG_SECONDS = 120.0

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
        type=_positive,
        metavar="S",
        help="use only so much of the prompt; default: all",
    )
    add(
        "--length",
        type=_positive,
        default=LENGTH,
        metavar="S",
        help="seconds of new music; the model may end it before; default: %(default)g",
    )
    add("--count", type=_count, default=1, metavar="N", help="pieces; default: %(default)s")
    add("--seed", type=int, metavar="N", help="default: another one every time")
    add(
        "--temperature",
        type=_not_negative,
        default=1.0,
        metavar="T",
        help="above 1 is wilder, below 1 tamer; default: %(default)g",
    )
    add(
        "--top-p",
        type=_probability,
        default=0.98,
        metavar="P",
        help="leave out the least likely events beyond this probability; default: %(default)g",
    )
    add("--model", default=DEFAULT_MODEL, metavar="NAME|DIR", help="default: %(default)s")
    add("--render", action="store_true", help="also audio (WAV)")
    add("--soundfont", metavar="F", help="for --render: path or name of an .sf2/.sf3 file")
    add("--plot", action="store_true", help="also a piano roll (PNG)")
    add("-q", "--quiet", action="store_true", help="say only what went wrong")
    parser.set_defaults(run=run)


def _number(text: str, expected: str, low: float, high: float, strict: bool) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not (low < value if strict else low <= value) or not value <= high:
        raise argparse.ArgumentTypeError(f"{text!r} is not {expected}")
    return value


def _positive(text: str) -> float:
    return _number(text, "a positive number of seconds", 0.0, 1e5, True)


def _not_negative(text: str) -> float:
    return _number(text, "a number of 0 or more", 0.0, 1e5, False)


def _probability(text: str) -> float:
    return _number(text, "a probability above 0, up to 1", 0.0, 1.0, True)


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """Composes; 1 with a line on stderr if that fails, 2 if nothing could be started."""
    try:
        jobs = _plan(args)
        check_outputs(jobs, [suffix for suffix in jobs[0].outputs if suffix != "mid"])
        _check_soundfont(args)
        prompt = _load_prompt(args.prompt)
    except Exception as error:
        report_error(describe_exception(error, args.prompt or args.output))
        return 2
    model = load_model(args.model)
    if model is None:
        return 2
    if not hasattr(model, "compose_many"):
        report_error(f"{args.model}: not a model that composes; `musax models` lists them")
        return 2
    seed = secrets.randbelow(1 << 31) if args.seed is None else args.seed
    started = time.monotonic()
    try:
        with audio_progress(args.output.name, enabled=not args.quiet) as progress:
            pieces = model.compose_many(
                args.count,
                prompt,
                seconds=args.length,
                prompt_seconds=args.prompt_seconds,
                seed=seed,
                temperature=args.temperature,
                topp=args.top_p,
                progress=progress,
            )
        taken = time.monotonic() - started
        for piece, job in zip(pieces, jobs):
            _write(piece, job, args)
            if not args.quiet:
                print(f"{_summary(piece)}, seed {seed}, {taken:.1f} s -> {_names(job)}", flush=True)
    except Exception as error:
        report_error(describe_exception(error, args.prompt or args.output))
        return 1
    return 0


def _plan(args: argparse.Namespace) -> list[Job]:
    """What to write for each piece; raises InputError."""
    output = args.output
    if output.suffix.lower() not in (".mid", ".midi"):
        raise InputError(f"{output}: expected the name of a MIDI file, such as piece.mid")
    suffixes = [*(["wav"] if args.render else []), *(["png"] if args.plot else [])]
    jobs = []
    for number in range(1, args.count + 1):
        name = output if args.count == 1 else output.with_stem(f"{output.stem}-{number}")
        outputs = {"mid": name} | {s: name.with_suffix(f".{s}") for s in suffixes}
        jobs.append(Job(args.prompt or output, outputs))
    if args.prompt is not None:
        written = [path.resolve() for job in jobs for path in existing(job.outputs.values())]
        if args.prompt.resolve() in written:
            raise InputError(f"{output}: would replace the prompt; choose another name")
    return jobs


def _check_soundfont(args: argparse.Namespace) -> None:
    if args.render:
        from musax.rendering.soundfonts import find_soundfont

        find_soundfont(args.soundfont)


def _load_prompt(path: Path | None) -> Any:
    if path is None:
        return None
    from musax.midi import load_midi

    notes = load_midi(path)
    if not len(notes):
        raise InputError(f"{path}: a MIDI file without notes; a prompt needs one at least")
    return notes


def _summary(piece: Any) -> str:
    what = f"{len(piece.notes)} notes, {minutes(piece.seconds)}"
    if piece.prompt_seconds:
        what += f" ({minutes(piece.prompt_seconds)} of prompt)"
    return what + (", ended by the model" if piece.ended else "")


def _names(job: Job) -> str:
    return ", ".join(str(path) for path in job.outputs.values())


def _write(piece: Any, job: Job, args: argparse.Namespace) -> None:
    """Writes every result, complete or not at all."""
    from musax.midi import save_midi

    save_midi(job.outputs["mid"], piece.notes)
    if "wav" in job.outputs:
        from musax.commands.render import write_rendering

        write_rendering(job.outputs["wav"], piece.notes, args.soundfont)
    if "png" in job.outputs:
        from musax.plots import plot_piano_roll, save_figure

        line = piece.prompt_seconds or None
        start = max((line or 0.0) - _PNG_SECONDS / 2, 0.0)
        seconds = min(piece.seconds - start, _PNG_SECONDS)
        title = job.outputs["mid"].name
        figure = plot_piano_roll(piece.notes, start=start, seconds=seconds, line=line, title=title)
        save_figure(figure, job.outputs["png"])
