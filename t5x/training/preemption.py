"""What SIGTERM and Ctrl-C do to a run: nothing is lost, and it ends within seconds.

Before its first step a run has nothing to save, and ends at once (`prompt_end`). From then on it
saves and ends (`StopRequest`); a second signal ends it at once.
"""

import contextlib
import multiprocessing
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Self

SIGNALS = (signal.SIGTERM, signal.SIGINT)
#: Seconds that a process may take to end when it has nothing to save.
GRACE = 5.0
#: Seconds that an evaluation, or waiting for data, may still take after a request to stop.
PATIENCE = 10.0


class Interrupted(KeyboardInterrupt):
    """A signal ended what has nothing to save.

    Attributes:
      status: the exit status of a process that this ends.
    """

    def __init__(self, number: int):
        super().__init__(_told(number))
        self.status = 128 + number


def _told(number: int) -> str:
    name = signal.Signals(number).name
    return f"ended by {name}; nothing is half-written, and the same command goes on from there"


# ---------------------------------------------------------------------------- nothing to save


@contextlib.contextmanager
def prompt_end() -> Iterator[None]:
    """Inside, SIGTERM and SIGINT raise `Interrupted`, unless a `StopRequest` takes them.

    Python calls its handlers only between its own instructions, and compiling or reading a
    checkpoint may take minutes without any. Where the exception has not ended the block after
    `GRACE` seconds, the process exits. Handlers that somebody else has set stay; outside the main
    thread, or inside itself, this does nothing.
    """
    if threading.current_thread() is not threading.main_thread() or _Watcher.active:
        yield
        return
    default = (signal.SIG_DFL, signal.default_int_handler)
    before = {n: handler for n in SIGNALS if (handler := signal.getsignal(n)) in default}
    for number in before:
        signal.signal(number, _interrupt)
    hook, sys.unraisablehook = sys.unraisablehook, _report_others
    try:
        with _Watcher(set(before)):
            yield
    finally:
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    _Watcher.received = number  # an exception is lost if it hits a destructor or a callback
    raise Interrupted(number)


def _break_off(number: int, frame: FrameType | None) -> None:
    raise Interrupted(number)


def _report_others(lost: Any) -> None:
    if not issubclass(lost.exc_type, Interrupted):  # which is remembered
        sys.__unraisablehook__(lost)


class _Watcher:
    """A thread that exits the process if a signal has not ended the block in time."""

    active = False
    received: int | None = None

    def __init__(self, numbers: set[int]):
        self._numbers = numbers
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        self._thread = threading.Thread(target=self._watch, name="t5x-signals", daemon=True)

    def __enter__(self) -> Self:
        self._before = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        if self._before != -1:  # an interactive program has its own
            signal.set_wakeup_fd(self._before)
        _Watcher.active, _Watcher.received = True, None
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        signal.set_wakeup_fd(self._before)
        _Watcher.active, _Watcher.received = False, None
        os.write(self._writer, b"\0")  # no signal: the end
        self._thread.join()
        os.close(self._reader)
        os.close(self._writer)

    def _watch(self) -> None:
        while number := os.read(self._reader, 1)[0]:
            if number not in self._numbers or StopRequest.active:
                continue
            ended, _, _ = select.select([self._reader], [], [], GRACE)
            if not ended and not StopRequest.active:
                _exit(number)


def _exit(number: int) -> None:
    for child in multiprocessing.active_children():
        child.terminate()
    print(_told(number), file=sys.stderr, flush=True)
    os._exit(128 + number)


# ---------------------------------------------------------------------------- something to save


class StopRequest:
    """Context manager: `requested` turns true on the first SIGTERM or SIGINT inside.

    Outside the main thread, where Python allows no handlers, it never turns true by itself.

    Raises:
      Interrupted: on entry, if a signal came before.
    """

    active = False

    def __init__(self):
        self.requested = False
        self._before: dict[int, object] = {}
        self._interrupting = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        for other, handler in self._before.items():
            default = signal.SIG_DFL if handler is _interrupt else handler
            signal.signal(other, default)  # type: ignore[arg-type]
        if self._interrupting:
            signal.setitimer(signal.ITIMER_REAL, PATIENCE)

    def agreed(self) -> bool:
        """Has any process been asked to stop? All processes must call this at the same step."""
        import jax

        if jax.process_count() == 1:
            return self.requested
        import numpy as np
        from jax.experimental import multihost_utils

        return bool(multihost_utils.process_allgather(np.asarray(self.requested)).any())

    def interruptible[T](self, function: Callable[[], T]) -> T | None:
        """Return what a function that changes no state returns.

        After a request it has `PATIENCE` seconds; then it is broken off, and the result is None.
        In a run of several processes, which must all do the same, nothing breaks it off.
        """
        import jax

        if jax.process_count() > 1 or not self._before:
            return function()
        before = signal.signal(signal.SIGALRM, _break_off)
        self._interrupting = True
        try:
            if self.requested:
                signal.setitimer(signal.ITIMER_REAL, PATIENCE)
            return function()
        except Interrupted:
            return None
        finally:
            self._interrupting = False
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            if _Watcher.received is not None:
                raise Interrupted(_Watcher.received)
            StopRequest.active = True
            for number in SIGNALS:
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        if self._before:
            StopRequest.active = False
