"""Evaluation, one module a task."""

from collections.abc import Callable

#: Progress of an evaluation: its description, and the items done and in all.
Progress = Callable[[str, int, int], None]


def no_progress(title: str, done: int, total: int) -> None:
    """Show nothing."""
