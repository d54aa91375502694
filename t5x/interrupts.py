"""What Ctrl-C does while an entry point is imported.

Python raises KeyboardInterrupt wherever it stands, which extension modules turn into other errors
and callbacks lose. Here it ends the process, without a word, as SIGTERM does. `main` then takes
both signals, see `t5x.training.preemption`.
"""

import contextlib
import signal
import threading
from collections.abc import Iterator


def end_the_process() -> None:
    """From here on, let Ctrl-C end the process, unless it is ignored or somebody handles it."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextlib.contextmanager
def ending_the_process() -> Iterator[None]:
    """In this block, let Ctrl-C end the process; outside the main thread, do nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)
    end_the_process()
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
