"""What a training run is configured with: the macros in its `config.gin`, or in gin files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gin

from t5x import gin_limits, gin_utils, train


def read_macros(
    run_dir: str | Path, *names: str, allowed: gin_limits.Allowed = gin_limits.T5X
) -> list[Any]:
    """The values of macros of a run, made by what they refer to.

    A gin file is code, and a run may be another's: unless in a block of
    `t5x.gin_limits.trusting`, its file is read within limits.

    Args:
      run_dir: MODEL_DIR of the run.
      names: of the macros.
      allowed: what it may import and call.

    Raises:
      FileNotFoundError: there is no `config.gin`.
      ValueError: it is wrong, has no such macro, or imports or calls what it may not.
    """
    path = Path(run_dir) / "config.gin"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such file; RUN_DIR must be the MODEL_DIR of a training run"
        )
    with gin_limits.limits(path, allowed):
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
    gin_limits.check_reachable(macro)
    try:
        with gin.config_scope(macro):  # the operative configuration has values under their macro
            return value.scoped_configurable_fn()
    except (OSError, ImportError):
        raise
    except gin_limits.ForbiddenError as error:
        raise gin_limits.ForbiddenError(gin_utils.first_line(error)) from error
    except RecursionError as error:
        raise ValueError(f"{path}: macro {macro} refers to itself") from error
    except Exception as error:
        message = gin_utils.first_line(error)
        raise ValueError(f"{path}: macro {macro} cannot be made: {message}") from error
