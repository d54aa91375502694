"""What a training run is configured with: the macros in its `config.gin`, or in gin files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gin

from t5x import gin_utils, train


def read_macros(run_dir: str | Path, *names: str) -> list[Any]:
    """The values of macros of a run, made by what they refer to.

    Args:
      run_dir: MODEL_DIR of the run.
      names: of the macros.

    Raises:
      FileNotFoundError: there is no `config.gin`.
      ValueError: it has no such macro.
    """
    path = Path(run_dir) / "config.gin"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such file; RUN_DIR must be the MODEL_DIR of a training run"
        )
    return read_configuration([path], [], *names)


def read_configuration(
    files: Sequence[str | Path], bindings: Sequence[str], *names: str
) -> list[Any]:
    """The values of macros of a configuration that `t5x.train` would run.

    Args:
      files: gin files.
      bindings: `NAME = VALUE` lines that override them.
      names: of the macros.

    Raises:
      GinError: the configuration is wrong.
      ValueError: it has no such macro.
    """
    gin_utils.parse([str(file) for file in files], bindings, [], train.train)
    return [_value(name, files[-1]) for name in names]


def _value(macro: str, path: str | Path) -> Any:
    try:
        value = gin.query_parameter(f"%{macro}")
    except ValueError as error:
        raise ValueError(f"{path}: the model needs macro {macro}, which is not set") from error
    if not hasattr(value, "scoped_configurable_fn"):
        return value
    with gin.config_scope(macro):  # the operative configuration records values under their macro
        return value.scoped_configurable_fn()
