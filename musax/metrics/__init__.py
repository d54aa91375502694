"""Evaluation, one module a task."""

from collections.abc import Callable

#: Called while an evaluation runs, with what is measured, and the items done and in all.
Progress = Callable[[str, int, int], None]


def no_progress(title: str, done: int, total: int) -> None:
    """Show nothing."""
