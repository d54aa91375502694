"""`musax models`: the models that `--model` knows by name."""

import argparse
import json
import shutil
import textwrap
from typing import Any

from musax.pretrained import TASKS

_MIN_WIDTH, _MAX_WIDTH = 40, 100

_EPILOG = """\
examples:
  musax models                                all models
  musax models --task compose                 models that compose
  musax models --format json                  all fields, for scripts

The folders that $MUSAX_PRETRAINED names (separated as in $PATH) are searched first, then the models
that come with musax. The card README.md in a model's folder describes its training and how well
it does.

exit status: 0 done, 1 no models found, 2 wrong usage
"""


def add_parser(verbs: Any) -> None:
    """Add the verb to the subparsers `verbs`."""
    parser = verbs.add_parser(
        "models",
        help="list the models, their tasks, sizes and licences",
        description="List the models that --model knows by name: what each does, its tasks, the "
        "size of its parameters, and the licences of the data it was trained on.",
        epilog=_EPILOG,
    )
    parser.add_argument(
        "--task", metavar="TASK", help=f"only models that do this: {', '.join(TASKS)}"
    )
    parser.add_argument("--paths", action="store_true", help="print only the folders, one per line")
    parser.add_argument(
        "--format",
        choices=("table", "json"),
        default="table",
        help="how to print; default: %(default)s",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the models, and return the exit status."""
    from musax import pretrained
    from musax.commands.console import report_error
    from musax.commands.verb import DONE, FAILED, NOT_STARTED

    try:
        models = pretrained.list_models(args.task)
    except pretrained.PretrainedError as error:
        report_error(error)
        return NOT_STARTED
    if not models:
        searched = ", ".join(str(folder) for folder in pretrained.model_folders())
        report_error(f"no models found; searched {searched}")
        return FAILED
    if args.paths:
        print("\n".join(str(model.path) for model in models))
    elif args.format == "json":
        print(json.dumps([_fields(model) for model in models], indent=2))
    else:
        width = min(max(shutil.get_terminal_size().columns, _MIN_WIDTH), _MAX_WIDTH)
        print("\n\n".join(_paragraph(model, width) for model in models))
    return DONE


def _fields(model: Any) -> dict[str, Any]:
    return {
        "name": model.name,
        "path": str(model.path),
        "system": model.system,
        "tasks": list(model.tasks),
        "summary": model.summary,
        "size": model.size,
        "licence": model.licence,
    }


def _paragraph(model: Any, width: int) -> str:
    """Return the known facts of a model, wrapped to the terminal."""
    tasks = ", ".join(model.tasks) or f"unknown (system {model.system})"
    rows = {
        "": model.summary,
        "tasks": tasks,
        "size": f"{model.size / 1e6:.1f} MB",
        "licence": model.licence or "of the training data not stated in the card",
    }
    lines = [model.name]
    for label, text in rows.items():
        head = f"  {label + ':':<9}" if label else "  "
        rest = " " * len(head)
        lines += textwrap.wrap(text, width, initial_indent=head, subsequent_indent=rest)
    return "\n".join(lines)
