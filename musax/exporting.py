"""What the packages' `export` modules share, which make model folders of training runs."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from musax.pretrained import save_model_folder


class Trained(NamedTuple):
    """What a package reads of a training run.

    Attributes:
      config: the package's `ModelConfig`, which has `to_json()`.
      params: nested dicts of arrays.
      step: of the checkpoint.
      files: further ones that the configuration names, by their names.
    """

    config: Any
    params: Any
    step: int
    files: Mapping[str, bytes] | None = None


def export_trained(
    read: Callable[[str | Path, int | None], Trained],
    run_dir: str | Path,
    out_dir: str | Path,
    card: str,
    step: int | None = None,
    dtype: str = "float32",
) -> Path:
    """Writes the model folder of a run; returns its path.

    Args:
      read: the package's reader of (run_dir, step).
      run_dir: MODEL_DIR of the run.
      out_dir: where the folder goes.
      card: the model card, Markdown.
      step: of the checkpoint; None takes the last.
      dtype: in which parameters are stored.

    Raises:
      FileNotFoundError: the run has no such checkpoint.
      ValueError: the run's configuration is no model of the package's, or there is no such type.
    """
    try:
        np.dtype(dtype)
    except TypeError as error:
        raise ValueError(f"dtype={dtype!r}: expected such as float32 or bfloat16") from error
    found = read(run_dir, step)
    params = jax.tree.map(lambda x: np.asarray(x, dtype), found.params)
    metadata = {"step": str(found.step)}
    return save_model_folder(out_dir, params, found.config.to_json(), card, metadata, found.files)


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
