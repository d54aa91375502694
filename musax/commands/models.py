"""`musax models`: which models there are."""

import argparse
from typing import Any


def add_parser(verbs: Any) -> None:
    """Adds the verb to the subparsers `verbs`."""
    parser = verbs.add_parser(
        "models",
        help="list the models that ship with musax",
        description="Lists the models that `--model NAME` knows. $MUSAX_PRETRAINED may name more "
        "folders of models.",
    )
    parser.add_argument("--paths", action="store_true", help="print only the folders, one a line")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints the table; 1 if there are no models."""
    from musax import pretrained
    from musax.commands.console import report_error

    models = pretrained.list_models()
    if not models:
        searched = ", ".join(str(folder) for folder in pretrained.model_folders())
        report_error(f"no models found; searched {searched}")
        return 1
    if args.paths:
        print("\n".join(str(model.path) for model in models))
        return 0
    width = max(len(model.name) for model in models)
    for model in models:
        print(f"{model.name:<{width}}  {model.system}  {model.summary}".rstrip())
    return 0
