"""A thread that keeps finished batches ready."""

import queue
import threading
from typing import Any

_POLL_SECONDS = 0.1


class ThreadPrefetch:
    """Runs an iterator with `get_state`, `set_state` and `close` ahead of its consumer.

    Each batch travels with the state after it, so `get_state` speaks of what was consumed, not of
    what was prefetched. An exception of the iterator is raised where its batch would have come.
    """

    def __init__(self, batches, size: int):
        self._batches = batches
        self._size = size
        self._state = batches.get_state()
        self._queue: queue.Queue = queue.Queue(size)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __iter__(self):
        return self

    def __next__(self):
        if self._thread is None:
            self._start()
        batch, state, error = self._queue.get()
        if error is not None:
            self._halt()
            raise error
        self._state = state
        return batch

    def get_state(self) -> dict[str, Any]:
        return self._state

    def set_state(self, state: dict[str, Any]) -> None:
        self._halt()
        self._batches.set_state(state)
        self._state = self._batches.get_state()

    def close(self) -> None:
        """Ends the thread, and with it the iterator."""
        self._halt()
        self._batches.close()

    def _start(self) -> None:
        self._queue = queue.Queue(self._size)
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=_produce,
            args=(self._batches, self._queue, self._stop),
            name="t5x-data-prefetch",
            daemon=True,
        )
        self._thread.start()

    def _halt(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self._thread = None


def _produce(batches, out: queue.Queue, stop: threading.Event) -> None:
    """Fills `out` until `stop` is set or the batches end. Knows nothing of the consumer."""
    while not stop.is_set():
        try:
            item = (next(batches), batches.get_state(), None)
        except Exception as e:  # handed to the consumer, StopIteration too
            item = (None, None, e)
        while not stop.is_set():
            try:
                out.put(item, timeout=_POLL_SECONDS)
                break
            except queue.Full:
                continue
        if item[2] is not None:
            return
