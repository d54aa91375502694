"""What the command line says: one line an error, and a progress bar."""

import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

DEBUG_VARIABLE = "MUSAX_DEBUG"


def report_error(message: object) -> None:
    """One line on stderr."""
    print(f"musax: error: {_one_line(message)}", file=sys.stderr, flush=True)


def report_warning(message: object) -> None:
    """One line on stderr."""
    print(f"musax: warning: {_one_line(message)}", file=sys.stderr, flush=True)


def _one_line(message: object) -> str:
    return " ".join(str(message).split())


def describe_exception(error: BaseException, subject: object) -> str:
    """What went wrong with `subject` (a file or model), which the line names in any case.

    Errors which this project raises on purpose speak for themselves; of others, the type is told,
    and how to see where they come from. With $MUSAX_DEBUG set, prints the traceback.
    """
    if os.environ.get(DEBUG_VARIABLE):
        traceback.print_exception(error)
    text = _one_line(error)
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename or subject}: {error.strerror}"
    elif isinstance(error, MemoryError):
        text = f"{subject}: out of memory; try a smaller --batch-size"
    elif not isinstance(error, (ValueError, ImportError)):
        text = (
            f"{subject}: {type(error).__name__}: {text} (unexpected; set {DEBUG_VARIABLE}=1 for a "
            "traceback)"
        )
    return text if str(subject) in text else f"{subject}: {text}"


def minutes(seconds: float) -> str:
    """M:SS, or H:MM:SS from an hour on."""
    whole = round(seconds)
    hours, rest = divmod(whole, 3600)
    if hours:
        return f"{hours}:{rest // 60:02d}:{rest % 60:02d}"
    return f"{rest // 60}:{rest % 60:02d}"


@contextmanager
def audio_progress(title: str, enabled: bool) -> Iterator[Callable[[float, float | None], None]]:
    """A bar on stderr with the audio done and the time left; gives `progress(done, total)` in s.

    Shows nothing where stderr is no terminal.
    """
    if not enabled or not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns: tuple[Any, ...] = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[audio]}"),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None, audio="")

        def update(done: float, total: float | None) -> None:
            of = f" of {minutes(total)}" if total else ""
            bar.update(task, completed=done, total=total, audio=f"{minutes(done)}{of}")

        yield update
