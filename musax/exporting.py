"""Model folders of training runs: shared parts of the packages' `export` modules."""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from musax.model_config import BaseModelConfig
from musax.pretrained import SYSTEMS, save_model_folder
from musax.trust import add_trust, read_macros
from t5x.checkpoints.loading import checkpoint_step, load_params, run_checkpoint
from t5x.gin_limits import trusting


class ExportedRun(NamedTuple):
    """The trained model of a run.

    Attributes:
      config: the package's `ModelConfig`.
      params: nested dicts of arrays.
      step: of the checkpoint.
      files: further files that the configuration names, by their names.
    """

    config: BaseModelConfig
    params: Any
    step: int
    files: Mapping[str, bytes] | None = None


def read_run(
    read_config: Callable[[str | Path], BaseModelConfig],
    run_dir: str | Path,
    step: int | None = None,
) -> ExportedRun:
    """Return the model of a run's checkpoint, whose parameters are taken as they are.

    Args:
      read_config: the package's reader of a run's `config.gin`.
      run_dir: MODEL_DIR of the run.
      step: of the checkpoint; None takes the last.

    Raises:
      FileNotFoundError: the run has no such checkpoint, or no `config.gin`.
      ValueError: the run's configuration is not of the package's models.
    """
    checkpoint = run_checkpoint(run_dir, step)
    config = read_config(run_dir)
    return ExportedRun(config, load_params(checkpoint), checkpoint_step(checkpoint))


def export_run(
    read: Callable[[str | Path, int | None], ExportedRun],
    run_dir: str | Path,
    out_dir: str | Path,
    card: str,
    step: int | None = None,
    dtype: str = "float32",
) -> Path:
    """Write the model folder of a run; return its path.

    Args:
      read: the package's reader of (run_dir, step), such as `read_run` with its `read_config`.
      run_dir: MODEL_DIR of the run.
      out_dir: where the folder goes.
      card: the model card, Markdown.
      step: of the checkpoint; None takes the last.
      dtype: in which parameters are stored.

    Raises:
      FileNotFoundError: the run has no such checkpoint.
      ValueError: the run's configuration is not of the package's models, or an unknown type.
    """
    try:
        np.dtype(dtype)
    except TypeError as error:
        raise ValueError(f"dtype={dtype!r}: expected such as float32 or bfloat16") from error
    try:
        found = read(run_dir, step)
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(
            f"{run_dir}/config.gin: not the configuration of a model of this package ({error})"
        ) from error
    params = jax.tree.map(lambda x: np.asarray(x, dtype), found.params)
    metadata = {"step": str(found.step)}
    return save_model_folder(out_dir, params, found.config.to_json(), card, metadata, found.files)


def package_of_run(run_dir: str | Path) -> str:
    """Return the package of the model that a run trained, such as "mt3", by its config.gin.

    Raises:
      FileNotFoundError: no `config.gin`.
      ValueError: it has no MODEL, or one of a package that has no model folders.
    """
    (model,) = read_macros(run_dir, "MODEL")
    package = type(model).__module__.partition(".")[0]
    known = sorted({system.runs.partition(".")[0] for system in SYSTEMS.values()})
    if package not in known:
        raise ValueError(
            f"{run_dir}/config.gin: MODEL is {type(model).__module__}.{type(model).__name__}; "
            f"expected a model of {', '.join(known)}. For others, see "
            "python -m t5x.export --help"
        )
    return package


def make_parser(**options: Any) -> argparse.ArgumentParser:
    """Return the parser of the options that every export has; `options` are ArgumentParser's."""
    parser = argparse.ArgumentParser(
        formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **options
    )
    add = parser.add_argument
    add("run_dir", metavar="RUN_DIR", help="MODEL_DIR of a training run")
    add("out_dir", metavar="OUT_DIR", help="the model folder to write")
    add("--card", metavar="FILE", help="Markdown file that becomes the folder's README.md")
    add("--step", type=int, metavar="N", help="step of the checkpoint; default: the last")
    add("--dtype", default="float32", help="dtype of the stored arrays; default: %(default)s")
    add_trust(parser)
    return parser


def run_export(
    export: Callable[..., Path],
    description: str | None,
    add_arguments: Callable[[argparse.ArgumentParser], None] | None = None,
    argv: Sequence[str] | None = None,
) -> int:
    """Parse RUN_DIR OUT_DIR and options, call `export` with them, and print the folder.

    Args:
      export: takes run_dir, out_dir, card, step, dtype, and what `add_arguments` adds, all by name;
        returns the folder.
      description: help above the options.
      add_arguments: adds further ones to the parser.
      argv: the arguments; None for those of the process.

    Returns:
      The exit status: 0, or 2 after an error, which is one line on stderr.
    """
    parser = make_parser(description=description)
    if add_arguments is not None:
        add_arguments(parser)
    options = vars(parser.parse_args(argv))
    try:
        card = options.pop("card")
        text = Path(card).read_text("utf-8") if card else f"# {Path(options['out_dir']).name}\n"
        with trusting(options.pop("trust")):
            folder = export(card=text, **options)
        print(folder)
    except (ValueError, OSError, ImportError) as error:
        print(f"export: error: {error}", file=sys.stderr)
        return 2
    return 0
