"""A thread that reads batches ahead of their consumer, and places them on the devices."""

import copy
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Self

Batch = Mapping[str, Any]

_POLL_SECONDS = 0.1
_CLOSING_SECONDS = 5.0


class _Item(NamedTuple):
    """A batch with the state after it, or the exception raised in its place."""

    batch: Any
    state: dict[str, Any] | None
    error: Exception | None = None


class Prefetcher:
    """Iterates over batches that one thread keeps ready; the thread starts with the first batch.

    Each batch travels with the state after it, so `get_state` is the state of what was consumed,
    not of what was read ahead. An exception of the iterator or of `place` is raised where its batch
    would have come, and by every later call.

    Args:
      batches: iterator over host batches; with `get_state` and `set_state` its position is tracked,
        and `close` closes it.
      depth: batches kept ready.
      place: host batch -> device batch, such as `PjitPartitioner.shard_batch`; runs in the thread.

    Attributes:
      wait_seconds: total time that `next` waited for a batch.
    """

    def __init__(
        self,
        batches: Iterator[Batch],
        depth: int = 2,
        place: Callable[[Batch], Batch] | None = None,
    ):
        self.wait_seconds = 0.0
        self._batches = batches
        self._depth = depth
        self._place = place
        self._state = _read_state(batches)
        self._peeked: _Item | None = None
        self._queue: queue.Queue[_Item] = queue.Queue(depth)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Batch:
        item = self._peeked or self._take()
        self._peeked = item if item.error is not None else None
        if item.error is not None:
            raise item.error
        self._state = item.state
        return item.batch

    def peek(self) -> Batch:
        """Return the batch that the next `next` returns; the state does not change."""
        self._peeked = self._peeked or self._take()
        if self._peeked.error is not None:
            raise self._peeked.error
        return self._peeked.batch

    def get_state(self) -> Any:
        """Return the iterator's state after the last batch consumed; None if it has none."""
        return copy.deepcopy(self._state)

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from a state of `get_state`; what was read ahead is dropped."""
        self._halt()
        self._peeked = None
        self._batches.set_state(state)  # type: ignore[attr-defined]
        self._state = _read_state(self._batches)

    def close(self) -> None:
        """End the thread, and the iterator if it can be closed.

        A thread that waits for its data without end is left to wait, with its iterator.
        """
        self._stop.set()
        if self._thread is not None:
            self._thread.join(_CLOSING_SECONDS)
            if self._thread.is_alive():
                return
        self._halt()
        close = getattr(self._batches, "close", None)
        if close is not None:
            close()

    def _take(self) -> _Item:
        if self._thread is None:
            self._start()
        start = time.perf_counter()
        item = self._queue.get()
        self.wait_seconds += time.perf_counter() - start
        return item

    def _start(self) -> None:
        self._queue = queue.Queue(self._depth)
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=_produce,
            args=(self._batches, self._place, self._queue, self._stop),
            name="t5x-prefetch",
            daemon=True,
        )
        self._thread.start()

    def _halt(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self._thread = None


def _read_state(batches: Any) -> Any:
    get_state = getattr(batches, "get_state", None)
    # A copy, so that later changes of the iterator cannot reach it.
    return None if get_state is None else copy.deepcopy(get_state())


def _produce(
    batches: Iterator[Batch],
    place: Callable[[Batch], Batch] | None,
    out: "queue.Queue[_Item]",
    stop: threading.Event,
) -> None:
    """Fill `out` until `stop` is set or the batches end; holds no reference to the consumer."""
    while not stop.is_set():
        try:
            batch = next(batches)
            item = _Item(place(batch) if place else batch, _read_state(batches))
        except Exception as error:  # handed to the consumer, StopIteration too
            item = _Item(None, None, error)
        while not stop.is_set():
            try:
                out.put(item, timeout=_POLL_SECONDS)
                break
            except queue.Full:
                continue
        if item.error is not None:
            return


# Names of earlier versions.
ThreadPrefetch = Prefetcher


def DevicePrefetcher(
    batches: Iterator[Batch], to_device: Callable[[Batch], Batch], depth: int = 2
) -> Prefetcher:
    """Return a `Prefetcher`, whose arguments have another order."""
    return Prefetcher(batches, depth, to_device)
