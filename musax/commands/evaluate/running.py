"""The skeleton of all evaluations: options, checks, progress, and where results go."""

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from musax.commands.console import describe_exception, report_error
from musax.commands.outputs import InputError
from musax.commands.verb import DONE, FAILED, NOT_STARTED
from musax.trust import add_trust

_FORMATS = ("text", "markdown", "json")


def add_task(tasks: Any, module: Any) -> argparse.ArgumentParser:
    """Add a task to subparsers.

    Args:
      tasks: subparsers.
      module: a module of this package.
    """
    parser = tasks.add_parser(
        module.NAME,
        help=module.HELP,
        description=module.DESCRIPTION,
        epilog=module.EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.add_options(parser)
    add = parser.add_argument
    add(
        "--format",
        choices=_FORMATS,
        default="text",
        help="format of the printed tables; default: %(default)s",
    )
    add(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="write the results too: all numbers (.json), or the tables (.md, .txt)",
    )
    add("-q", "--quiet", action="store_true", help="show no progress")
    parser.set_defaults(run=lambda args: run_task(module, args))
    return parser


def run_task(module: Any, args: argparse.Namespace) -> int:
    """Run an evaluation, print its report and write it; return the exit status."""
    from t5x.gin_limits import trusting

    with trusting(getattr(args, "trust", False)):
        return _run_task(module, args)


def _run_task(module: Any, args: argparse.Namespace) -> int:
    try:
        _check_output(args.output)
        module.check(args)
    except Exception as error:
        report_error(describe_exception(error))
        return NOT_STARTED
    try:
        with _progress_bar(enabled=not args.quiet) as progress:
            report = module.evaluate(args, progress)
        if args.output is not None:
            report.save(args.output)
    except Exception as error:
        report_error(describe_exception(error))
        return FAILED
    print(report.render(args.format), flush=True)
    return DONE


def _check_output(path: Path | None) -> None:
    """Raise unless a report can be written to a path."""
    from musax.tables import check_suffix

    if path is None:
        return
    check_suffix(path)
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give a file with -o")
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise InputError(f"{path.parent}: no folder that can be written to; give another with -o")


@contextmanager
def _progress_bar(enabled: bool) -> Iterator[Callable[[str, int, int], None]]:
    """Show a bar on stderr if it is a terminal; yield a `musax.metrics.Progress`."""
    if not enabled or not sys.stderr.isatty():
        yield lambda title, done, total: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("")
        yield lambda title, done, total: bar.update(
            task, description=title.replace("[", r"\["), completed=done, total=total
        )


# ----------------------------------------------------------------------------------- shared options


def add_models(
    parser: argparse.ArgumentParser, task: str, required: bool = False, runs: bool = False
) -> None:
    """Add `--model`, which may be given several times."""
    what = "MODEL_DIR of a training run, " if runs else ""
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        required=required,
        metavar="NAME|DIR",
        help=f"{what}a name that `musax models --task {task}` lists, or a folder with a model; may "
        "be repeated",
    )
    if runs:
        add_trust(parser)


def named(argument: str) -> tuple[str, str]:
    """Split NAME=VALUE."""
    name, equals, value = argument.partition("=")
    if not (name and equals and value):
        raise argparse.ArgumentTypeError(f"{argument!r}: expected NAME=VALUE")
    return name, value


def check_folders(options: dict[str, str | None]) -> None:
    """Raise InputError unless the folders that options name exist; None is no folder."""
    for option, folder in options.items():
        if folder is not None and not Path(folder).is_dir():
            raise InputError(f"{option} {folder}: no such folder")


def is_run(name_or_dir: str) -> bool:
    """Return whether a path is MODEL_DIR of a training run."""
    return (Path(name_or_dir) / "config.gin").is_file()


def check_system(models: Sequence[str], task: str) -> str:
    """Return the system of models or runs, which all do a task and are of one system.

    Raises:
      PretrainedError: a model is unknown or does other tasks.
      InputError: they are of several systems.
    """
    found = {name: _system_of(name, task) for name in models}
    if len(set(found.values())) > 1:
        said = ", ".join(f"{name} of {system}" for name, system in found.items())
        raise InputError(f"models of several systems: {said}; evaluate each system alone")
    return found[models[0]]


def _system_of(name_or_dir: str, task: str) -> str:
    from musax import exporting, pretrained

    if not is_run(name_or_dir):
        if pretrained.config_path(pretrained.resolve(name_or_dir)) is None:
            raise InputError(
                f"{name_or_dir}: neither a model folder (no config.json) nor a training run (no "
                "config.gin)"
            )
        return pretrained.system_of(pretrained.check_task(name_or_dir, task))
    package = exporting.package_of_run(name_or_dir)
    system = next(k for k, s in pretrained.SYSTEMS.items() if s.runs.startswith(f"{package}."))
    if task not in pretrained.SYSTEMS[system].tasks:
        tasks = ", ".join(pretrained.SYSTEMS[system].tasks)
        raise InputError(f"{name_or_dir}: a run of {system} ({tasks}), which has no task {task}")
    return system


def check_options_of(
    args: argparse.Namespace, options: dict[str, Sequence[argparse.Action]], system: str
) -> None:
    """Raise InputError for an option, given on the command line, of another system.

    Args:
      args: parsed options.
      options: of each system alone.
      system: that of the models.
    """
    for other, actions in options.items():
        for action in actions:
            if other != system and getattr(args, action.dest) != action.default:
                raise InputError(
                    f"{action.option_strings[0]}: an option of models of {other}; these are of "
                    f"{system}"
                )
