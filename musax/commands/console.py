"""Messages of the command line: one line for each error, and a progress bar."""

import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

DEBUG_VARIABLE = "MUSAX_DEBUG"


def report_error(message: object) -> None:
    """Print an error as one line on stderr."""
    print(f"musax: error: {_one_line(message)}", file=sys.stderr, flush=True)


def report_warning(message: object) -> None:
    """Print a warning as one line on stderr."""
    print(f"musax: warning: {_one_line(message)}", file=sys.stderr, flush=True)


def _one_line(message: object) -> str:
    return " ".join(str(message).split())


def describe_exception(
    error: BaseException, subject: object = "", smaller: Sequence[str] = ()
) -> str:
    """Return one line on an error.

    Messages that this project writes are kept; those of other errors are put after their type. With
    $MUSAX_DEBUG set, the traceback is printed.

    Args:
      error: what was raised.
      subject: the file or model that was worked on, which the line names in any case.
      smaller: options that take less memory with lower values.
    """
    if os.environ.get(DEBUG_VARIABLE):
        traceback.print_exception(error)
    text = _one_line(error)
    if isinstance(error, OSError) and error.strerror:
        reason = error.strerror.replace("No such file or directory", "no such file")
        text = f"{error.filename or subject}: {reason}"
    elif isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in text:
        lower = f"a lower {' or '.join(smaller)}, or " if smaller else ""
        text = f"out of memory; try {lower}a shorter input"
    elif not isinstance(error, (ValueError, ImportError, OSError)):
        text = (
            f"{type(error).__name__}: {text} (unexpected; set {DEBUG_VARIABLE}=1 for a traceback)"
        )
    return text if str(subject) in text else f"{subject}: {text}"


def minutes(seconds: float) -> str:
    """Return a time as M:SS, or as H:MM:SS from an hour on."""
    whole = round(seconds)
    hours, rest = divmod(whole, 3600)
    if hours:
        return f"{hours}:{rest // 60:02d}:{rest % 60:02d}"
    return f"{rest // 60}:{rest % 60:02d}"


Update = Callable[[float, float | None], None]


def audio_progress(title: str, enabled: bool) -> AbstractContextManager[Update]:
    """Show a progress bar on stderr with the audio done, and yield the function that moves it.

    That function takes the seconds of audio done and in all, None if unknown. Nothing is shown if
    stderr is not a terminal.
    """
    return _progress(title, enabled, _of_audio)


def share_progress(title: str, enabled: bool) -> AbstractContextManager[Update]:
    """Show a progress bar with the share done; otherwise as `audio_progress`, for any unit."""
    return _progress(title, enabled, lambda done, total: f"{done / total:.0%}" if total else "")


def _of_audio(done: float, total: float | None) -> str:
    return minutes(done) + (f" of {minutes(total)}" if total else "")


@contextmanager
def _progress(
    title: str, enabled: bool, describe: Callable[[float, float | None], str]
) -> Iterator[Update]:
    if not enabled or not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns: tuple[Any, ...] = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[done]}"),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None, done="")

        def update(done: float, total: float | None) -> None:
            bar.update(task, completed=done, total=total, done=describe(done, total))

        yield update
