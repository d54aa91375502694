"""A trace of a few training steps, for TensorBoard's profiler or Perfetto."""

from collections.abc import Sequence
from pathlib import Path

import jax


class Profiler:
    """Traces a window of steps into a folder.

    Args:
      folder: where the trace goes.
      window: (first, last) step, counted from `start`; None traces nothing. The first steps of a
        process compile, so a window is best begun after them.
      start: the step at which this process begins.

    Raises:
      ValueError: a window that is not two ascending steps.
    """

    def __init__(self, folder: Path, window: Sequence[int] | None, start: int):
        if window is not None and not (len(window) == 2 and 0 <= window[0] <= window[1]):
            raise ValueError(
                f"profile_steps is {tuple(window)}, expected (first, last) with 0 <= first <= last."
            )
        self._folder = folder
        self._window = None if window is None else (start + window[0], start + window[1])
        self._running = False

    def begins_before(self, last: int) -> bool:
        """Whether there is something to trace in the steps up to `last`."""
        return self._window is None or self._window[0] < last

    def before(self, step: int) -> None:
        """Called before the step from `step` to `step` + 1: starts or ends the trace."""
        if self._window is None:
            return
        first, last = self._window
        if step == first:
            jax.profiler.start_trace(str(self._folder))
            self._running = True
        elif step == last + 1:
            self.close()

    def close(self) -> None:
        """End a running trace and write it."""
        if self._running:
            jax.profiler.stop_trace()
            self._running = False
