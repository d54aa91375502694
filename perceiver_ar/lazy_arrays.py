"""Lazy sequences, of which only slices are read: a crop of a book, not the book."""

from collections.abc import Callable

import numpy as np

from perceiver_ar.tasks import SOS
from t5x.data.vocabularies import EOS_ID


class LazyArray:
    """A stand-in for an array where only its length and slices of it are needed.

    `np.asarray` makes a real one.

    Args:
      length: number of rows.
      read: (first, end) -> the rows from first to end - 1.
    """

    def __init__(self, length: int, read: Callable[[int, int], np.ndarray]):
        self._length, self._read = length, read

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, rows: slice) -> np.ndarray:
        first, end, _ = rows.indices(self._length)
        return self._read(first, max(end, first))

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return np.asarray(self[:], dtype)


def lazy_sequence(size: int, read: Callable[[int, int], np.ndarray]) -> dict[str, LazyArray]:
    """Return a lazy example for `perceiver_ar.tasks.sequence_task`.

    Args:
      size: number of ids.
      read: (first, end) -> ids int32 [end - first].

    Returns:
      `tokens`, which is like int32 [size + 2], SOS to EOS, and `positions`, like int32
      [size + 2, 1], counted from 1.
    """

    def tokens(first: int, end: int) -> np.ndarray:
        ids = read(min(max(first - 1, 0), size), min(max(end - 1, 0), size))
        before = [SOS] if first == 0 < end else []
        after = [EOS_ID] if first < end == size + 2 else []
        return np.concatenate([before, ids, after]).astype(np.int32)

    def positions(first: int, end: int) -> np.ndarray:
        return np.arange(first + 1, end + 1, dtype=np.int32)[:, None]

    return {"tokens": LazyArray(size + 2, tokens), "positions": LazyArray(size + 2, positions)}
