"""Which example comes at which place of the stream: O(1) for any place.

Every host and every worker computes the same order from (seed, place), so a stream can start
anywhere and needs no state but the place.
"""

import dataclasses
import functools
import sys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

ENDLESS = sys.maxsize
_LARGEST_TABLE = 2**16


class Place(NamedTuple):
    """Example `index` of component `component`, in its pass number `epoch`."""

    component: int
    epoch: int
    index: int


@functools.lru_cache(maxsize=32)
def _permutation(size: int, *seeds: int) -> np.ndarray:
    return np.random.default_rng(seeds).permutation(np.arange(size, dtype=np.int32))


@functools.lru_cache(maxsize=64)
def _cipher_seed(*seeds: int) -> int:
    return int(np.random.SeedSequence(seeds).generate_state(1)[0])


def permuted(position: int, size: int, *seeds: int) -> int:
    """Element `position` of the permutation of range(size) that belongs to `seeds`.

    A table for small sizes; a cipher on the indices, without memory, for large ones (on small
    ones it is slow, because it walks until it falls into the range).
    """
    if size <= _LARGEST_TABLE:
        return int(_permutation(size, *seeds)[position])
    from grain.experimental import index_shuffle

    return int(index_shuffle(position, max_index=size - 1, seed=_cipher_seed(*seeds), rounds=4))


@dataclasses.dataclass(frozen=True)
class TaskOrder:
    """Order of one shard of one task.

    Attributes:
      size: number of examples of the whole split.
      shuffle: whether each epoch is a new random permutation of the whole split.
      seed, component: what the permutation depends on, besides the epoch.
      shard_index, num_shards: this shard has the positions shard_index, shard_index + num_shards,
        … of the permutation, so that in every epoch each example is in exactly one shard.
    """

    size: int
    shuffle: bool
    seed: int
    component: int = 0
    shard_index: int = 0
    num_shards: int = 1

    @functools.cached_property
    def shard_size(self) -> int:
        return len(range(self.shard_index, self.size, self.num_shards))

    def place(self, position: int) -> Place:
        """The example at `position` of this shard's stream of epochs."""
        epoch, position = divmod(position, self.shard_size)
        index = self.shard_index + position * self.num_shards
        if self.shuffle:
            index = permuted(index, self.size, self.seed, self.component, epoch)
        return Place(self.component, epoch, index)


class ConcatenatedOrder:
    """`num_epochs` passes over every task; the tasks' places are shuffled together if asked."""

    def __init__(self, tasks: Sequence[TaskOrder], num_epochs: int):
        self._tasks = list(tasks)
        sizes = [task.shard_size * num_epochs for task in self._tasks]
        self._ends = np.cumsum(sizes)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, position: int) -> Place:
        if not 0 <= position < len(self):
            raise IndexError(position)
        if len(self._tasks) > 1 and self._tasks[0].shuffle:
            position = permuted(position, len(self), self._tasks[0].seed, len(self._tasks))
        number = int(np.searchsorted(self._ends, position, side="right"))
        start = int(self._ends[number - 1]) if number else 0
        return self._tasks[number].place(position - start)


class MixedOrder:
    """An endless stream in which task i has the share rates[i] / sum(rates).

    The stream is cut in blocks. Rounding keeps the number of a task's examples in the first n
    blocks within one of its share, for every n; inside a block the tasks are in random order.
    """

    def __init__(self, tasks: Sequence[TaskOrder], rates: Sequence[float], seed: int):
        self._tasks = list(tasks)
        self._shares = np.cumsum(np.asarray(rates, np.float64) / np.sum(rates))
        self._shares[-1] = 1.0
        smallest = float(np.min(rates) / np.sum(rates))
        self._block_size = int(min(max(64, np.ceil(4 / smallest)), 2**20))
        self._seed = seed
        self._cached: tuple[int, np.ndarray, np.ndarray, np.ndarray] | None = None

    def __len__(self) -> int:
        return ENDLESS

    def __getitem__(self, position: int) -> Place:
        block, slot = divmod(position, self._block_size)
        if len(self._tasks) == 1:
            return self._tasks[0].place(position)
        _, before, chosen, rank = self._block(block)
        number = int(chosen[slot])
        return self._tasks[number].place(int(before[number] + rank[slot]))

    def _counts(self, blocks: int) -> np.ndarray:
        """How many examples each task has in the first `blocks` blocks."""
        ends = np.floor(blocks * self._block_size * self._shares + 0.5).astype(np.int64)
        return np.diff(ends, prepend=0)

    def _block(self, block: int):
        cached = self._cached
        if cached is None or cached[0] != block:
            before = self._counts(block)
            counts = np.maximum(self._counts(block + 1) - before, 0)
            chosen = np.repeat(np.arange(len(counts)), counts)
            np.random.default_rng((self._seed, len(counts), block)).shuffle(chosen)
            rank = np.empty_like(chosen)
            for number, count in enumerate(counts):
                rank[chosen == number] = np.arange(count)
            self._cached = cached = (block, before, chosen, rank)
        return cached
