"""`musax cdcd`: makes melodies and text, fills gaps in them, and says how likely they are."""

import argparse
import dataclasses
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from musax.commands import numbers
from musax.commands.console import audio_progress, describe_exception, minutes, report_error
from musax.commands.files import InputError
from musax.commands.pieces import (
    add_piece_options,
    check_not_replaced,
    choose_seed,
    is_midi,
    load_notes,
    numbered,
    plan_pieces,
    write_piece,
)
from musax.commands.results import Job, check_outputs, load_model

MELODY_MODEL, TEXT_MODEL = "cdcd-melody", "cdcd-text"
METHODS = ("euler", "heun", "dpmpp_2m", "ancestral")
ESTIMATES = ("exact", "any_order", "left_to_right", "bound")

_STATUS = "exit status: 0 done, 1 it failed (a line on stderr says why), 2 nothing was started\n"
_EPILOG = """\
examples:
  musax cdcd sample -o tune.mid --render            a melody of 16 bars
  musax cdcd infill song.mid --bars 5:8 -o filled.mid
  musax cdcd infill --text "to be or ___ to be" --count 5
  musax cdcd score --text "to be or not to be"
  musax cdcd sample --help                          options and examples of each
"""
_SAMPLE_EPILOG = f"""\
examples:
  musax cdcd sample -o tune.mid --temperature 0.95 --seed 7 --render --plot
  musax cdcd sample -o tune.mid --prompt begin.mid --length 32
  musax cdcd sample --count 3 --prompt "once upon a time" --temperature 0.9

With -o FILE.mid it is a melody, otherwise text. The seed is printed: with it, the same command
makes the same again.

{_STATUS}"""
_INFILL_EPILOG = f"""\
examples:
  musax cdcd infill song.mid --bars 5:8 -o filled.mid --count 3
  musax cdcd infill song.mid --seconds 4:6.5 -o filled.mid
  musax cdcd infill --text "to be or ___ to be" --count 5

Of a MIDI file the melody is taken, the highest notes, on a grid of sixteenths of its tempo. In text
every underscore is one symbol to be filled in.

{_STATUS}"""
_SCORE_EPILOG = f"""\
examples:
  musax cdcd score song.mid other.mid
  musax cdcd score --text "to be or not to be" --estimate left_to_right

estimates:
  exact          of autoregressive models
  any_order      mean over all orders of filling in
  left_to_right  filling in as one reads; slow
  bound          at least the bits of the diffusion model, on average; of whole rows alone

{_STATUS}"""


def add_parser(verbs: Any) -> None:
    """Adds the verb to the subparsers `verbs`."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = verbs.add_parser(
        "cdcd",
        help="make melodies or text, fill gaps in, say how likely they are",
        description="Continuous diffusion for melodies and text, and models it is compared with.",
        epilog=_EPILOG,
        formatter_class=raw,
    )
    parser.set_defaults(run=lambda args: _print_help(parser))
    actions = parser.add_subparsers(metavar="ACTION", title="actions")
    for name, add, said, epilog in (
        ("sample", _add_sample, "make melodies or text, from a beginning or not", _SAMPLE_EPILOG),
        ("infill", _add_infill, "fill gaps in a melody or a text", _INFILL_EPILOG),
        ("score", _add_score, "say how likely melodies or texts are", _SCORE_EPILOG),
    ):
        add(actions.add_parser(name, help=said, epilog=epilog, formatter_class=raw))


def _print_help(parser: argparse.ArgumentParser) -> int:
    parser.print_help()
    return 2


def _add_sample(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    _add_output(parser)
    add("--prompt", metavar="FILE|TEXT", help="how it begins: a MIDI file, a text file or text")
    add(
        "--length",
        type=numbers.count,
        metavar="N",
        help="bars of a melody, tokens of text, prompt included; default: as long as in training",
    )
    _add_making(parser)
    parser.set_defaults(run=run_sample)


def _add_infill(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("file", nargs="?", type=Path, metavar="FILE", help="a MIDI file, or text with blanks")
    add("--text", metavar="TEXT", help="text with an underscore for each symbol to be filled in")
    add("--bars", type=_bars, metavar="FROM:TO", help="of a melody: bars to make anew, from 1 on")
    add("--seconds", type=_seconds, metavar="FROM:TO", help="of a melody: what to make anew")
    _add_output(parser)
    _add_making(parser)
    parser.set_defaults(run=run_infill)


def _add_score(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("files", nargs="*", type=Path, metavar="FILE", help="MIDI files, or text files")
    add("--text", metavar="TEXT", help="a text, instead of files")
    add("--estimate", choices=ESTIMATES, help="default: exact, or any_order")
    add("--passes", type=numbers.count, default=32, metavar="N", help="default: %(default)s")
    add("--seed", type=int, default=0, metavar="N", help="of random estimates; default: 0")
    _add_model(parser)
    parser.set_defaults(run=run_score)


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="MIDI file, or text file, to write; default for text: stdout",
    )


def _add_model(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    names = f"{MELODY_MODEL} or {TEXT_MODEL}"
    add("--model", metavar="NAME|DIR", help=f"default: {names}")
    add("--tempo", type=numbers.tempo, metavar="BPM", help="of melodies; default: the file's, 120")


def _add_making(parser: argparse.ArgumentParser) -> None:
    """Options of what is made and how."""
    add = parser.add_argument
    _add_model(parser)
    add("--steps", type=numbers.count, metavar="N", help="of diffusion; default: 200")
    add(
        "--temperature",
        type=numbers.positive,
        metavar="T",
        help="below 1 is likelier and less various; default: 1",
    )
    add("--method", choices=METHODS, help="solver of continuous diffusion; default: euler")
    add(
        "--guidance",
        type=numbers.not_negative,
        metavar="W",
        help="above 1, what is given counts for more (continuous diffusion); default: 1",
    )
    add(
        "--rounds",
        type=numbers.count,
        metavar="N",
        help="so often, make half of it anew given the rest (continuous diffusion)",
    )
    add_piece_options(parser, "results")


def _bars(text: str) -> tuple[int, int]:
    first, _, last = text.partition(":")
    return numbers.count(first), numbers.count(last or first)


def _seconds(text: str) -> tuple[float, float]:
    begin, _, end = text.partition(":")
    return numbers.not_negative(begin), numbers.seconds(end)


# ------------------------------------------------------------------------------- sample and infill


@dataclasses.dataclass(frozen=True)
class _Request:
    """What is to be made.

    Attributes:
      given: text or a note array; None for nothing.
      jobs: files of each result; none for stdout.
      tempo: of a melody; None for text.
    """

    given: Any
    jobs: list[Job]
    tempo: float | None

    @property
    def is_melody(self) -> bool:
        """Whether it is a melody."""
        return self.tempo is not None


def run_sample(args: argparse.Namespace) -> int:
    """Samples; 1 with a line on stderr if that fails, 2 if nothing could be started."""

    def plan() -> _Request:
        melody = args.output is not None and is_midi(args.output)
        source = None if args.prompt is None else _existing_file(args.prompt)
        if args.prompt is not None and melody:
            source = Path(args.prompt)
        elif args.prompt is not None and is_midi(Path(args.prompt)):
            raise InputError(f"{args.prompt}: give the MIDI file to write with -o FILE.mid")
        return _plan(args, source, None if source else args.prompt, melody)

    def make(model: Any, request: _Request, **options: Any) -> Any:
        length = args.length
        if length is not None and request.is_melody:
            length *= model.contents.steps_per_bar
        return model.compose(request.given, length=length, **options)

    return _run(args, args.prompt or args.output or "sample", plan, make)


def run_infill(args: argparse.Namespace) -> int:
    """Fills in; 1 with a line on stderr if that fails, 2 if nothing could be started."""

    def plan() -> _Request:
        if (args.file is None) == (args.text is None):
            raise InputError("infill: expected either a FILE or --text TEXT")
        melody = args.file is not None and is_midi(args.file)
        if melody and (args.bars is None) == (args.seconds is None):
            raise InputError(f"{args.file}: expected either --bars FROM:TO or --seconds FROM:TO")
        if melody and args.output is None:
            raise InputError(f"{args.file}: give the MIDI file to write with -o FILE.mid")
        return _plan(args, args.file, args.text, melody)

    def make(model: Any, request: _Request, **options: Any) -> Any:
        return model.infill(request.given, bars=args.bars, seconds=args.seconds, **options)

    return _run(args, args.file or "text", plan, make)


def _plan(
    args: argparse.Namespace, source: Path | None, text: str | None, melody: bool
) -> _Request:
    """Reads what is given, from the file `source` or as `text`, and plans results."""
    if melody:
        jobs = plan_pieces(args, source)
        given = None if source is None else load_notes(source)
        return _Request(given, jobs, args.tempo or _tempo(source))
    if args.render or args.plot or args.tempo:
        raise InputError("--render, --plot and --tempo are of melodies: give -o FILE.mid")
    jobs = []
    if args.output is not None:
        if is_midi(args.output):
            raise InputError(f"{args.output}: a MIDI file of text; expected another name")
        paths = numbered(args.output, args.count)
        check_not_replaced(source, paths)
        jobs = [Job(source or path, {"txt": path}) for path in paths]
        check_outputs(jobs, ["txt"])
    return _Request(_read_text(source) if source else text, jobs, None)


def _run(
    args: argparse.Namespace,
    subject: Any,
    plan: Callable[[], _Request],
    make: Callable[..., Any],
) -> int:
    try:
        request = plan()
    except Exception as error:
        report_error(describe_exception(error, subject))
        return 2
    model = _load(args.model, request.is_melody)
    if model is None:
        return 2
    seed, started = choose_seed(args), time.monotonic()
    try:
        if request.tempo is not None:
            model = model.at_tempo(request.tempo)
        with audio_progress(str(subject), enabled=not args.quiet) as bar:
            made = make(
                model,
                request,
                count=args.count,
                seed=seed,
                progress=_progress(model, bar),
                **_options(args, model),
            )
        said = "" if args.quiet else f"seed {seed}, {time.monotonic() - started:.1f} s"
        _write(made, model, request, args.soundfont, said)
    except Exception as error:
        report_error(describe_exception(error, subject))
        return 1
    return 0


def _options(args: argparse.Namespace, model: Any) -> dict[str, Any]:
    """Those of the model that were asked for."""
    asked = {
        "steps": args.steps,
        "temperature": args.temperature,
        "method": args.method,
        "guidance": args.guidance,
        "rounds": args.rounds,
    }
    return {name: value for name, value in asked.items() if value is not None}


def _progress(model: Any, bar: Callable[[float, float], None]) -> Callable[[int, int], None]:
    """Tells a bar of time how many tokens are made; only melodies have one."""
    rate = getattr(model.contents, "steps_per_second", None)
    return (lambda done, of: None) if rate is None else lambda done, of: bar(done / rate, of / rate)


def _write(made: Any, model: Any, request: _Request, soundfont: str | None, said: str) -> None:
    """Writes results to their files, or to stdout; `said` is added to what is said of each."""
    if not request.jobs:
        print("\n".join(each.text for each in made), flush=True)
        if said:
            print(said, file=sys.stderr)
        return
    from t5x.files import write_text

    for each, job in zip(made, request.jobs):
        if request.tempo is None:
            write_text(job.outputs["txt"], each.text + "\n")
            what = f"{len(each.tokens)} tokens"
        else:
            what = _write_melody(each, model, job, soundfont)
        if said:
            print(f"{what}, {said} -> {job.names}", flush=True)


def _write_melody(each: Any, model: Any, job: Job, soundfont: str | None) -> str:
    rate = model.contents.steps_per_second
    first, seconds = int(each.made.argmax()) / rate, len(each.tokens) / rate
    write_piece(
        job,
        each.notes,
        seconds=seconds,
        line=first or None,
        soundfont=soundfont,
        tempo=model.contents.tempo,
    )
    return f"{len(each.notes)} notes, {minutes(seconds)}"


# ------------------------------------------------------------------------------------------- score


def run_score(args: argparse.Namespace) -> int:
    """Prints a table; 1 if some failed, 2 if nothing could be started."""
    sources = list(args.files) if args.text is None else [args.text]
    kinds = {args.text is None and is_midi(Path(source)) for source in sources}
    if bool(args.files) == (args.text is not None):
        report_error("score: expected either files or --text TEXT")
        return 2
    if len(kinds) > 1:
        report_error("score: MIDI files and texts have different models; score them in turn")
        return 2
    model = _load(args.model, kinds.pop())
    if model is None:
        return 2
    names = [_row_name(source) for source in sources]
    width = max(len(name) for name in (*names, "file"))
    print(f"{'file':<{width}}  {'tokens':>8}  {'bits per token':>14}  estimate", flush=True)
    failed = 0
    for name, source in zip(names, sources):
        try:
            score = _score(model, source, args)
        except Exception as error:
            report_error(describe_exception(error, source))
            failed += 1
            continue
        numbers_of = f"{score.tokens:>8}  {score.bits_per_token:>14.3f}  {score.estimate}"
        print(f"{name:<{width}}  {numbers_of}", flush=True)
    return 1 if failed else 0


def _row_name(source: Any) -> str:
    return str(source) if isinstance(source, Path) else "(text)"


def _score(model: Any, source: Any, args: argparse.Namespace) -> Any:
    content = source
    if isinstance(source, Path) and is_midi(source):
        content = load_notes(source)
        model = model.at_tempo(args.tempo or _tempo(source))
    elif isinstance(source, Path):
        content = _read_text(source)
    return model.score(content, estimate=args.estimate, seed=args.seed, passes=args.passes)


# ------------------------------------------------------------------------------------------ shared


def _load(name: str | None, melody: bool) -> Any:
    """The model, or the usual one; None, with a line on stderr, if it is another or none."""
    name = name or (MELODY_MODEL if melody else TEXT_MODEL)
    model = load_model(name)
    if model is None:
        return None
    if not hasattr(model, "infill"):
        report_error(f"{name}: not a model of cdcd; `musax models` lists them")
        return None
    if hasattr(model.contents, "tempo") != melody:
        what, expected = ("text", "text") if melody else ("melodies", "MIDI files")
        report_error(f"{name}: a model of {what}; expected {expected}, read and written (-o)")
        return None
    return model


def _existing_file(text: str) -> Path | None:
    """The file that a text names, if there is one."""
    try:
        return Path(text) if Path(text).is_file() else None
    except OSError:  # too long for a name
        return None


def _read_text(path: Path) -> str:
    from t5x.data.text_lines import read_text

    return read_text(str(path))


def _tempo(path: Path | None) -> float:
    """Of a MIDI file; 120 without one."""
    from musax.midi import midi_tempo

    return 120.0 if path is None else midi_tempo(path)
