"""SIGTERM and Ctrl-C ask a run to save and end; a second one ends it at once."""

import signal
import threading
from types import FrameType
from typing import Self


class StopRequest:
    """Context manager: `requested` turns true on the first SIGTERM or SIGINT inside.

    Outside the main thread, where Python allows no handlers, it never turns true by itself.
    """

    def __init__(self):
        self.requested = False
        self._before: dict[int, object] = {}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        signal.signal(number, self._before[number])  # type: ignore[arg-type]

    def agreed(self) -> bool:
        """Has any process been asked to stop? All processes must call this at the same step."""
        import jax

        if jax.process_count() == 1:
            return self.requested
        import numpy as np
        from jax.experimental import multihost_utils

        return bool(multihost_utils.process_allgather(np.asarray(self.requested)).any())

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
