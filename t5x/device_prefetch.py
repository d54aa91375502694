"""Batches are made and moved to the devices by a thread, ahead of the training step."""

import json
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

Batch = Mapping[str, Any]


class DevicePrefetcher:
    """Iterates over device batches; knows the data position after the last batch it gave out.

    Args:
      batches: iterator over host batches; with `get_state` its position is tracked.
      to_device: host batch -> device batch, such as `PjitPartitioner.shard_batch`.
      depth: batches kept ready.

    Attributes:
      wait_seconds: total time `next` waited for a batch.
    """

    def __init__(
        self, batches: Iterator[Batch], to_device: Callable[[Batch], Batch], depth: int = 2
    ):
        self.wait_seconds = 0.0
        self._batches = batches
        self._to_device = to_device
        self._queue: queue.Queue[Any] = queue.Queue(maxsize=depth)
        self._stop = threading.Event()
        self._state = self._read_state()
        self._peeked: Any = None
        self._thread = threading.Thread(target=self._fill, name="device-prefetch", daemon=True)
        self._thread.start()

    def _read_state(self) -> str | None:
        get_state = getattr(self._batches, "get_state", None)
        # As text, so that later changes of the iterator cannot reach it.
        return None if get_state is None else json.dumps(get_state())

    def _fill(self) -> None:
        try:
            for batch in self._batches:
                if not self._put((self._to_device(batch), self._read_state())):
                    return
            self._put(StopIteration())
        except Exception as error:
            self._put(error)

    def _put(self, item: Any) -> bool:
        while not self._stop.is_set():
            try:
                self._queue.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def _take(self) -> Any:
        if self._peeked is not None:
            item, self._peeked = self._peeked, None
            return item
        start = time.perf_counter()
        item = self._queue.get()
        self.wait_seconds += time.perf_counter() - start
        return item

    def __iter__(self) -> "DevicePrefetcher":
        return self

    def __next__(self) -> Batch:
        item = self._take()
        if isinstance(item, Exception):
            self._peeked = item  # every later call says the same
            raise item
        batch, self._state = item
        return batch

    def peek(self) -> Batch:
        """The batch that the next `next` gives."""
        if self._peeked is None:
            self._peeked = self._take()
        if isinstance(self._peeked, Exception):
            raise self._peeked
        return self._peeked[0]

    def get_state(self) -> dict[str, Any] | None:
        """State of the host iterator after the last batch given out; None if it has none."""
        return None if self._state is None else json.loads(self._state)

    def close(self) -> None:
        """Ends the thread, and the host iterator if it can be closed."""
        self._stop.set()
        self._thread.join()
        close = getattr(self._batches, "close", None)
        if close is not None:
            close()
