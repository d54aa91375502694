import threading
import time

import pytest

from t5x.data.prefetch import Prefetcher


class Counter:
    """0, 1, 2, ... up to `end`, with a state."""

    def __init__(self, end=100, fail_at=None):
        self.next, self.end, self.fail_at, self.closed = 0, end, fail_at, False

    def __iter__(self):
        return self

    def __next__(self):
        if self.next == self.fail_at:
            raise RuntimeError("broken example")
        if self.next == self.end:
            raise StopIteration
        self.next += 1
        return {"x": self.next - 1}

    def get_state(self):
        return {"next": self.next}

    def set_state(self, state):
        self.next = state["next"]

    def close(self):
        self.closed = True


def test_state_is_that_of_what_was_given_out_not_of_what_was_fetched():
    source = Counter()
    batches = Prefetcher(source, depth=3, place=dict)
    assert batches.get_state() == {"next": 0}
    for expected in range(5):
        assert batches.peek() == {"x": expected}
        assert batches.get_state() == {"next": expected}
        assert next(batches) == {"x": expected}
        assert batches.get_state() == {"next": expected + 1}
    time.sleep(0.05)
    assert source.next > 5
    batches.close()
    assert source.closed


def test_does_not_run_further_ahead_than_its_depth():
    source = Counter()
    batches = Prefetcher(source, depth=2)
    assert next(batches) == {"x": 0}
    time.sleep(0.2)
    assert source.next == 4  # one consumed, two ready, one in the thread's hands
    batches.close()


def test_errors_and_the_end_reach_the_reader():
    batches = Prefetcher(Counter(fail_at=1))
    next(batches)
    with pytest.raises(RuntimeError, match="broken example"):
        next(batches)
    with pytest.raises(RuntimeError, match="broken example"):
        next(batches)
    batches.close()
    batches = Prefetcher(Counter(end=2))
    assert [b["x"] for b in batches] == [0, 1]
    batches.close()


def test_waiting_is_counted():
    def slow():
        while True:
            time.sleep(0.05)
            yield {}

    batches = Prefetcher(slow())
    next(batches)
    assert batches.wait_seconds > 0.03
    assert batches.get_state() is None
    batches.close()


def test_place_runs_in_the_thread_and_its_errors_reach_the_reader():
    def place(batch):
        if batch["x"] == 1:
            raise ValueError("no room on the device")
        return {"x": -batch["x"], "thread": threading.current_thread().name}

    batches = Prefetcher(Counter(), place=place)
    assert next(batches) == {"x": 0, "thread": "t5x-prefetch"}
    with pytest.raises(ValueError, match="no room on the device"):
        next(batches)
    assert batches.get_state() == {"next": 1}
    batches.close()


def test_it_continues_from_a_state():
    source = Counter()
    batches = Prefetcher(source, depth=3)
    seen = [next(batches)["x"] for _ in range(3)]
    state = batches.get_state()
    assert [next(batches)["x"] for _ in range(2)] == [3, 4]
    batches.peek()
    batches.set_state(state)
    assert batches.get_state() == state
    assert seen == [0, 1, 2]
    assert [next(batches)["x"] for _ in range(2)] == [3, 4]
    batches.close()


def test_closing_ends_the_thread():
    before = set(threading.enumerate())
    batches = Prefetcher(Counter(), depth=1)
    next(batches)
    (thread,) = set(threading.enumerate()) - before
    batches.close()
    assert not thread.is_alive()
