"""`musax score`: how likely pieces or texts are under a model."""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from musax.commands import numbers, options, pieces
from musax.commands.capabilities import (
    Capabilities,
    check_options,
    given_options,
    read_capabilities,
)
from musax.commands.console import describe_exception, report_error
from musax.commands.files import MIDI_SUFFIXES, InputError, expand_inputs, is_midi
from musax.commands.outputs import Job, Plan, check_places, plan_outputs, read_formats
from musax.commands.verb import FAILED, STATUS_HELP, run_verb

TASK = "score"
FORMATS = ("txt", "csv", "json")
ESTIMATES = ("exact", "any-order", "left-to-right", "bound")
#: Options of the command line, and what models call them.
OPTIONS = {"estimate": "estimate", "passes": "passes", "seed": "seed", "tempo": "tempo"}

_EPILOG = f"""\
examples:
  musax score song.mid other.mid
  musax score pieces/ --model perceiver_ar-pop909 -o scores.csv
  musax score --text "to be or not to be" --estimate left-to-right

Fewer bits per token mean a higher likelihood. Only scores of the same kind of tokens compare: the
tokens of cdcd-melody are sixteenths, of cdcd-text letters, of perceiver_ar-pop909 events.

estimates of the likelihood, for models that do not have it exactly:
  exact          autoregressive models, their default
  any-order      mean over random orders of filling in; the default of diffusion models
  left-to-right  filling in from left to right; slow; compares with exact
  bound          upper bound of the bits in expectation; whole windows of the training length only

{STATUS_HELP}
"""


def add_parser(verbs: Any) -> None:
    """Add the verb to the subparsers `verbs`."""
    parser = verbs.add_parser(
        "score",
        help="likelihood of pieces or texts under a model",
        description="Score pieces or texts: bits per token under a model.",
        epilog=_EPILOG,
    )
    add = parser.add_argument
    add(
        "inputs",
        nargs="*",
        metavar="INPUT",
        help="MIDI files and folders of them, or text files",
    )
    add("--text", metavar="TEXT", help="a text, instead of files")
    options.add_output(parser, FORMATS, "stdout")
    add(
        "--format",
        type=read_formats(FORMATS),
        metavar="F,...",
        help="how scores are written: table (aligned text, .txt), csv or json; default: that of "
        "FILE, or table",
    )
    options.add_model(parser, TASK)
    options.add_choice(
        parser,
        "--estimate",
        ESTIMATES,
        "see below; default: exact if the model has it, otherwise any-order",
    )
    add(
        "--passes",
        type=numbers.count,
        metavar="N",
        help="random orders or noise levels averaged by an estimate; more reduce its variance; "
        "default: 32",
    )
    add("--seed", type=numbers.seed, metavar="N", help="seed of random estimates; default: 0")
    add(
        "--tempo",
        type=numbers.tempo,
        metavar="BPM",
        help="models of melodies: quarter notes per minute; default: that of each MIDI file",
    )
    options.add_quiet(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Score every input, write the table, and return the exit status."""
    paths = [Path(name) for name in args.inputs]
    is_music = any(is_midi(path) or path.is_dir() for path in paths)
    model = args.model or options.default_model(TASK, text=not is_music)
    settings = given_options(args, OPTIONS)
    rows: list[dict[str, Any]] = []
    found: Capabilities
    written = Plan([])

    def plan(folder: Path | None) -> Plan:
        nonlocal found, written
        found = read_capabilities(folder, TASK)
        jobs = _plan_jobs(args, found, model)
        check_options(args, OPTIONS, found, model)
        written = _plan_table(args)
        return dataclasses.replace(written, jobs=jobs)

    def work(loaded: Any, job: Job) -> list[str]:
        content, own = args.text, {}
        if job.given is not None:
            content = pieces.read_content(job.given)
            beats = pieces.beats_of(args, job.given, content, found, model)
            if beats is not None:
                content, own = beats.to_model(content), {"tempo": beats.tempo}
        score = loaded.score(content, **{**settings, **own})
        rows.append(
            {
                "file": "(text)" if job.given is None else str(job.given),
                "tokens": score.tokens,
                "nats": score.nats,
                "bits_per_token": score.bits_per_token,
                "estimate": score.estimate.replace("_", "-"),
            }
        )
        return []

    status = run_verb(args, TASK, model=model, plan=plan, work=work)
    if not rows:
        return status
    try:
        _write_table(rows, written.jobs[0].paths, (args.format or FORMATS)[0])
    except OSError as error:
        report_error(describe_exception(error))
        return FAILED
    return status


def _plan_jobs(args: argparse.Namespace, found: Capabilities, model: str) -> list[Job]:
    """Return the files or the text to score; raise InputError if the model is of another kind."""
    if bool(args.inputs) == (args.text is not None):
        raise InputError("score: expected files or --text TEXT, and not both")
    if args.text is not None:
        if not found.is_text:
            raise InputError(f"--text: {model} is a model of music; expected MIDI files")
        return [Job(None, ())]
    sources = expand_inputs(args.inputs, MIDI_SUFFIXES)
    for source in sources:
        if is_midi(source) == found.is_text:
            raise InputError(
                f"{source}: {model} is a model of {found.content}; score MIDI files and texts "
                "separately"
            )
    return [Job(source, ()) for source in sources]


def _plan_table(args: argparse.Namespace) -> Plan:
    """Return a plan whose only job writes the table; without `-o`, without files."""
    if args.output is None:
        if args.format and len(args.format) > 1:
            raise InputError("--format: several formats need files; give -o, or one format")
        return Plan([Job(None, ())])
    plan = plan_outputs(args, [None], FORMATS, default="txt", name="scores", what="scores")
    check_places(plan)
    return plan


def _write_table(rows: list[dict[str, Any]], files: Sequence[Path], printed: str) -> None:
    from musax.tables import Table
    from t5x.files import write_text

    table = Table("", rows, {"nats": ",.1f", "bits_per_token": ".3f"})
    for path in files:
        write_text(path, _as_text(table, path.suffix[1:].lower()))
    if not files:
        print(_as_text(table, printed), end="", flush=True)


def _as_text(table: Any, fmt: str) -> str:
    if fmt == "csv":
        return table.to_csv()
    if fmt == "json":
        from musax.tables import Report

        return Report([table], table.rows).render("json") + "\n"
    return table.to_text() + "\n"
