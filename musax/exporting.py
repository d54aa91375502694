"""The command line of the packages' `export` modules, which make model folders of training runs."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path


def run_export(
    export: Callable[..., Path],
    description: str | None,
    add_arguments: Callable[[argparse.ArgumentParser], None] | None = None,
    argv: Sequence[str] | None = None,
) -> None:
    """Parses RUN_DIR OUT_DIR and options, calls `export` with them, and prints what it wrote.

    Args:
      export: takes run_dir, out_dir, card, step, dtype, and what `add_arguments` adds, all by name;
        returns the folder.
      description: help above the options.
      add_arguments: adds further ones to the parser.
      argv: the arguments; None for those of the process.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("run_dir", metavar="RUN_DIR", help="MODEL_DIR of a training run")
    add("out_dir", metavar="OUT_DIR", help="the model folder to write")
    add("--card", metavar="FILE", help="Markdown for the folder's README.md")
    add("--step", type=int, metavar="N", help="checkpoint; default: the last")
    add("--dtype", default="float32", help="of the stored arrays; default: %(default)s")
    if add_arguments is not None:
        add_arguments(parser)
    options = vars(parser.parse_args(argv))
    try:
        card = options.pop("card")
        text = Path(card).read_text("utf-8") if card else f"# {Path(options['out_dir']).name}\n"
        print(export(card=text, **options))
    except (ValueError, OSError, ImportError) as error:
        raise SystemExit(f"export: {error}") from error
