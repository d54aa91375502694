"""Command lines, run in this process: an interpreter and its imports cost seconds each time."""

import contextlib
import io
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import gin


@contextlib.contextmanager
def own_gin() -> Iterator[None]:
    """Leave no configuration behind, so that the next run sees its own alone."""
    try:
        yield
    finally:
        gin.clear_config()
        gin.config._LOCATION_PREFIXES[:] = [""]


def run_main(main: Callable[..., int], *flags: str) -> tuple[int, str]:
    """Return the exit status of `main(flags)` and what it printed, errors included."""
    printed = io.StringIO()
    with own_gin(), contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        status = main(list(flags))
    return status, printed.getvalue()


def train(config: str, *flags: str, settings: Mapping[str, Any] | None = None) -> str:
    """Run `python -m t5x.train --gin_file=CONFIG`; return what it printed.

    Args:
      config: path of the gin file.
      flags: further flags.
      settings: gin bindings, with values as Python writes them.
    """
    from t5x import train as train_script

    bindings = [f"--gin.{name}={value}" for name, value in (settings or {}).items()]
    status, printed = run_main(train_script.main, f"--gin_file={config}", *flags, *bindings)
    assert status == 0, printed
    return printed
