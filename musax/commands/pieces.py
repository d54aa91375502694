"""Shared by verbs that write pieces and texts: sampling options, contents, and results."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from musax.commands import numbers, options
from musax.commands.capabilities import (
    Capabilities,
    check_options,
    given_options,
    read_capabilities,
)
from musax.commands.console import minutes, share_progress
from musax.commands.files import InputError, is_midi
from musax.commands.outputs import NOTE_FORMATS, TEXT_FORMATS, Job, Plan, plan_outputs
from musax.commands.verb import run_verb, save_result

if TYPE_CHECKING:
    from musax.commands.beats import Beats

FORMATS = (*NOTE_FORMATS, "txt")
METHODS = ("euler", "heun", "dpmpp-2m", "ancestral")
#: Options of sampling, and what models call them.
SAMPLING: Mapping[str, str] = {
    "temperature": "temperature",
    "top_p": "top_p",
    "steps": "steps",
    "method": "method",
    "guidance": "guidance",
    "rounds": "rounds",
    "tempo": "tempo",
}


def add_sampling(parser: argparse.ArgumentParser) -> None:
    """Add how many results are sampled and how; each model has some of these options."""
    add = parser.add_argument
    add(
        "--count",
        type=numbers.count,
        default=1,
        metavar="N",
        help="number of results; several are numbered FILE-1, FILE-2, ...; default: %(default)s",
    )
    options.add_seed(parser)
    add(
        "--temperature",
        type=numbers.not_negative,
        metavar="T",
        help="lower values give more likely, less diverse output; default: 1",
    )
    add(
        "--top-p",
        type=numbers.probability,
        metavar="P",
        help="sample among the most likely tokens that together have this probability; default: "
        "the model's own",
    )
    add(
        "--steps",
        type=numbers.count,
        metavar="N",
        help="diffusion: number of sampling steps; default: 200",
    )
    options.add_choice(
        parser, "--method", METHODS, "continuous diffusion: solver of the sampler; default: euler"
    )
    add(
        "--guidance",
        type=numbers.not_negative,
        metavar="W",
        help="continuous diffusion: classifier-free guidance weight; above 1 the output follows "
        "the given tokens more closely; default: 1",
    )
    add(
        "--rounds",
        type=numbers.count,
        metavar="N",
        help="continuous diffusion: number of Gibbs refinement rounds; each resamples half of the "
        "new positions; default: none",
    )
    add(
        "--tempo",
        type=numbers.tempo,
        metavar="BPM",
        help="models of melodies: quarter notes per minute; default: that of the MIDI file given, "
        "otherwise 120",
    )


def run_pieces(
    args: argparse.Namespace,
    task: str,
    names: Mapping[str, str],
    *,
    of_text: bool,
    find_source: Callable[[Capabilities, str], Path | None],
    text: str | None,
    infix: str,
) -> int:
    """Run a verb whose model makes pieces or texts of one content, and return the exit status.

    Args:
      args: parsed options.
      task: the verb; the method of the model, which takes the content first, `count` and `seed`,
        and returns a list of `musax.results`.
      names: the options of the verb, and what models call them.
      of_text: whether the default model is that of text.
      find_source: takes the capabilities and the name of the model; checks the content against
        them, and returns the file to read it from, if any.
      text: the content without a file; None for none.
      infix: see `plan_outputs`.
    """
    model = args.model or options.default_model(task, text=of_text)
    seed = options.choose_seed(args)
    settings = given_options(args, names)
    source: Path | None = None
    content: Any = text
    beats: Beats | None = None
    found: Capabilities

    def plan(folder: Path | None) -> Plan:
        nonlocal source, found
        found = read_capabilities(folder, task)
        source = find_source(found, model)
        check_options(args, names, found, model)
        return _plan_outputs(args, source, found, model, infix)

    def prepare() -> None:
        nonlocal content, beats
        if source is not None:
            content = read_content(source)
            beats = beats_of(args, source, content, found, model)
        if beats is not None:
            content = beats.to_model(content)
            settings.update(_gap(beats, settings), tempo=beats.tempo)

    def work(loaded: Any, job: Job) -> list[str]:
        given = () if content is None else (content,)
        with share_progress(job.subject, enabled=not args.quiet) as progress:
            shown = {"progress": progress} if "progress" in found.options else {}
            results = getattr(loaded, task)(
                *given, count=args.count, seed=seed, **shown, **settings
            )
        if beats is not None:
            results = [beats.to_file(result) for result in results]
        return _write_results(results, job, seed, args)

    return run_verb(args, task, model=model, plan=plan, prepare=prepare, work=work)


def _plan_outputs(
    args: argparse.Namespace, source: Path | None, found: Capabilities, model: str, infix: str
) -> Plan:
    """Decide which files are written for the results of a model.

    Args:
      args: parsed options.
      source: the input file; None without one.
      found: capabilities of the model.
      model: its name, for messages.
      infix: see `plan_outputs`.

    Raises:
      InputError: music without `-o`, or formats and places that do not fit; see `plan_outputs`.
    """
    if args.output is None:
        if not found.is_text:
            raise InputError(
                f"{model}: music needs a place to be written; give -o FILE.mid or another -o"
            )
        if args.format or args.plot or args.render:
            raise InputError(f"{model}: text is printed; --format, --plot, --render need -o")
        return Plan([Job(source, ())])
    known = TEXT_FORMATS if found.is_text else NOTE_FORMATS
    return plan_outputs(
        args,
        [source],
        known,
        default=known[0],
        count=args.count,
        name="text" if found.is_text else "piece",
        infix=infix,
        what=f"results of {model}, a model of {found.content},",
    )


def check_content(source: Path, found: Capabilities, model: str) -> None:
    """Raise InputError for a file that does not exist, or has content of another kind."""
    if is_midi(source) == found.is_text:
        kind = "a text file" if found.is_text else "a MIDI file"
        raise InputError(f"{source}: {model} is a model of {found.content}; expected {kind}")
    if not source.is_file():
        raise InputError(f"{source}: no such file")


def read_content(source: Path) -> Any:
    """Return the notes of a MIDI file, or the text of any other.

    Raises:
      InputError: a MIDI file without notes.
      ValueError, OSError: the file cannot be read.
    """
    if is_midi(source):
        from musax.midi import load_midi

        notes = load_midi(source)
        if not len(notes):
            raise InputError(f"{source}: this MIDI file has no notes; at least one is needed")
        return notes
    from t5x.data.text_lines import read_text

    return read_text(str(source))


def beats_of(
    args: argparse.Namespace, source: Path, content: Any, found: Capabilities, model: str
) -> "Beats | None":
    """Return the beats of a MIDI file for a model with a tempo; None for other files and models."""
    if "tempo" not in found.options or not is_midi(source):
        return None
    from musax.commands.beats import Beats

    return Beats.of_file(source, content, args.tempo, model)


def _gap(beats: "Beats", settings: dict[str, Any]) -> dict[str, Any]:
    """Take a span of bars or seconds out of `settings`, and return it in the model's time."""
    bars, seconds = (settings.get(name) for name in ("bars", "seconds"))
    if isinstance(bars, tuple):
        del settings["bars"]
        return {"seconds": beats.bars(*bars)}
    return {"seconds": beats.model_seconds(seconds)} if isinstance(seconds, tuple) else {}


def _write_results(
    results: Sequence[Any], job: Job, seed: int, args: argparse.Namespace
) -> list[str]:
    """Write pieces or texts, or print texts without files; return one sentence for each result."""
    if not job.results:
        print("\n".join(result.text for result in results), flush=True)
        return [f"seed {seed}"]
    for result, files in zip(results, job.results):
        is_text = hasattr(result, "text")
        save_result(result, files, **({} if is_text else {"soundfont": args.soundfont}))
    return [f"{_describe(result)}, seed {seed}" for result in results]


def _describe(result: Any) -> str:
    if hasattr(result, "text"):
        return f"{len(result.tokens)} tokens"
    sentence = f"{len(result.notes)} notes, {minutes(result.seconds)}"
    if result.prompt_seconds:
        sentence += f" (new from {minutes(result.prompt_seconds)} on)"
    return sentence + (", ended by the model" if result.ended else "")
