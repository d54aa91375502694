import time

import pytest

from t5x.device_prefetch import DevicePrefetcher


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

    def close(self):
        self.closed = True


def test_state_is_that_of_what_was_given_out_not_of_what_was_fetched():
    source = Counter()
    batches = DevicePrefetcher(source, dict, depth=3)
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
    batches = DevicePrefetcher(source, dict, depth=2)
    time.sleep(0.2)
    assert source.next <= 4
    batches.close()


def test_errors_and_the_end_reach_the_reader():
    batches = DevicePrefetcher(Counter(fail_at=1), dict)
    next(batches)
    with pytest.raises(RuntimeError, match="broken example"):
        next(batches)
    with pytest.raises(RuntimeError, match="broken example"):
        next(batches)
    batches.close()
    batches = DevicePrefetcher(Counter(end=2), dict)
    assert [b["x"] for b in batches] == [0, 1]
    batches.close()


def test_waiting_is_counted():
    def slow():
        while True:
            time.sleep(0.05)
            yield {}

    batches = DevicePrefetcher(slow(), dict)
    next(batches)
    assert batches.wait_seconds > 0.03
    assert batches.get_state() is None
    batches.close()
