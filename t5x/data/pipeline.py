"""From a task to batches: `get_dataset`.

    place in the stream -> raw example -> preprocessors -> prepared examples      (workers)
    -> a batch, a packed batch, or a window of batches sorted by length -> model features

The heavy part is a pure function of the place (see `order`), so the examples and their order do
not depend on the number of workers, and the state of the iterator is a place and a few counters.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing.util import Finalize
from typing import Any

import numpy as np

from t5x.data import batching, caching, lookup, order
from t5x.data.converters import FeatureConverter, PassThroughFeatureConverter
from t5x.data.examples import ExampleMaker
from t5x.data.fingerprint import fingerprint
from t5x.data.memory import check_batch_memory
from t5x.data.packing import axis_limits
from t5x.data.prefetch import Prefetcher
from t5x.data.tasks import Mixture, Task
from t5x.moved import moved_names

__getattr__ = moved_names(__name__, {"task_examples": "t5x.data.examples"})

STATE_VERSION = 1
_WORKER_BUFFER = 16
#: Examples dropped in a row that are too many, in small tasks; in others two epochs.
_PATIENCE = 20_000


@dataclasses.dataclass(frozen=True)
class _Settings:
    """What decides which examples come in which order; saved with the state."""

    name: str
    split: str
    shuffle: bool
    seed: int
    shard_index: int
    num_shards: int
    num_epochs: int | None
    cached: str | None = None  # names of the tasks that are read from a cache
    examples: dict[str, int | None] | None = None  # task -> examples in the split


class _OffsetPlaces(Sequence[order.Place]):
    """The places of an order from `start` on."""

    def __init__(self, places, start: int):
        self._places, self._start = places, start

    def __len__(self) -> int:
        return max(len(self._places) - self._start, 0)

    def __getitem__(self, position: int) -> order.Place:
        return self._places[self._start + position]


class Elements:
    """Elements (lists of prepared examples) from any place on.

    Through grain where threads or processes make them; without, its bookkeeping for each element
    would cost about as much as the element.
    """

    def __init__(self, places, maker: ExampleMaker, num_workers: int, num_read_threads: int):
        self._places = places
        self._maker = maker
        self._num_workers = num_workers
        self._num_read_threads = num_read_threads

    def open(self, start: int) -> Iterator[list[dict]]:
        if not self._num_workers and not self._num_read_threads:
            return (self._maker(self._places[i]) for i in range(start, len(self._places)))
        import grain
        from absl import flags

        if start >= len(self._places):
            return iter(())
        threads = self._num_read_threads
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=4 * threads)
        dataset = grain.MapDataset.source(_OffsetPlaces(self._places, start)).map(self._maker)
        elements = dataset.to_iter_dataset(options)
        if self._num_workers:
            if not flags.FLAGS.is_parsed():  # grain reads absl flags, outside absl.app too
                flags.FLAGS.mark_as_parsed()
            elements = elements.mp_prefetch(
                grain.MultiprocessingOptions(self._num_workers, _WORKER_BUFFER)
            )
        return iter(elements)


#: The name of earlier versions.
GrainElements = Elements


class DataWorkerError(OSError):
    """A process that makes examples ended; says what to do."""


class BatchIterator:
    """Batches from elements; the state says where in the elements the next batch begins."""

    def __init__(self, elements, batcher, settings: _Settings, patience: int | None = None):
        self._elements = elements
        self._batcher = batcher
        self._patience = patience
        self._settings = settings
        self._position: dict[str, int] = dict(batching.START)
        self._opened: Any = None
        self._batches: Any = None

    def __iter__(self):
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        if self._batches is None:
            self._opened = self._elements.open(self._position["element"])
            stream = batching.ExampleStream(self._opened, self._position, self._patience)
            self._batches = self._batcher.batches(stream, self._position)
        try:
            batch, self._position = next(self._batches)
        except RuntimeError as error:
            if "process was terminated" not in str(error):
                raise
            raise DataWorkerError(
                "a process that makes training examples was ended from outside, often for want of "
                "memory; run the same again, which goes on from the last checkpoint. Fewer "
                f"num_workers take less memory. ({str(error).partition('. ')[0]})"
            ) from error
        return batch

    def get_state(self) -> dict[str, Any]:
        settings = dataclasses.asdict(self._settings)
        return {"version": STATE_VERSION, "settings": settings, "position": dict(self._position)}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from a state of `get_state`.

        Raises:
          ValueError: when the state belongs to another stream of examples.
        """
        if state.get("version") != STATE_VERSION:
            raise ValueError(
                f"data state has version {state.get('version')!r}, expected {STATE_VERSION}"
            )
        mine = dataclasses.asdict(self._settings)
        if "examples" not in state["settings"]:  # states of earlier versions
            del mine["examples"]
        different = [
            f"{k}: saved {state['settings'].get(k)!r}, now {mine[k]!r}"
            for k in mine
            if state["settings"].get(k) != mine[k]
        ]
        if different:
            raise ValueError(
                "the saved data state belongs to another stream of examples ("
                + "; ".join(different)
                + "); use the same dataset configuration, or start without the data state"
            )
        self._batcher.check_position(state["position"])
        self.close()
        self._position = dict(state["position"])

    def close(self) -> None:
        """End the worker processes; the next batch starts them again."""
        if hasattr(self._opened, "close"):
            self._opened.close()
        self._opened = self._batches = None


class DatasetIterator:
    """What `get_dataset` returns: an iterator over batches, with a JSON-able state.

    The state is that before the next batch which `next` will return, however many batches are
    prefetched, see `t5x.data.prefetch.Prefetcher`.

    Attributes:
      model_feature_lengths: {model feature: length} of a full batch.
      batch_size: rows in a batch of this shard.
      lookahead: batches whose examples are read together: a window with length buckets, else 1.
      source: the raw examples: {task: sequence}; empty where seqio reads them.
    """

    def __init__(self, make_batches, seed: int | None, prefetch: int):
        self.source: dict[str, Sequence[Any]] = {}
        self._make_batches = make_batches
        self._seed = seed
        self._prefetch = prefetch
        self._peeked: tuple[dict, dict] | None = None
        self.model_feature_lengths: dict[str, Any] = {}
        self.batch_size = 0
        self.lookahead = 1
        self._open(int(np.random.default_rng().integers(2**31)) if seed is None else seed)

    def _open(self, seed: int) -> None:
        self._inner: Any = self._make_batches(int(seed))
        if self._prefetch:
            self._inner = Prefetcher(self._inner, self._prefetch)
        # At exit this must come before multiprocessing ends the workers (grain's priority is 1).
        self._finalizer = Finalize(self, self._inner.close, exitpriority=10)

    def __iter__(self):
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        if self._peeked is not None:
            (batch, _), self._peeked = self._peeked, None
            return batch
        return next(self._inner)

    def peek(self) -> dict[str, np.ndarray]:
        """The batch that the next `next` returns; the state does not change."""
        if self._peeked is None:
            before = self._inner.get_state()
            self._peeked = (next(self._inner), before)
        return self._peeked[0]

    @property
    def element_spec(self) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        """{model feature: (shape, dtype)} of a batch at full lengths (looks at one batch)."""
        spec = {}
        for name, value in self.peek().items():
            shape = (self.batch_size, *value.shape[1:])
            length = self.model_feature_lengths.get(name)
            if length is not None and value.ndim > 1:
                limits = axis_limits(length)
                shape = (self.batch_size, *limits, *value.shape[1 + len(limits) :])
            spec[name] = (shape, value.dtype)
        return spec

    def fingerprints(self) -> dict[str, str]:
        """Return {task: digest of its raw examples}; reads three of each task."""
        return {name: fingerprint(examples) for name, examples in self.source.items()}

    def get_state(self) -> dict[str, Any]:
        return self._peeked[1] if self._peeked is not None else self._inner.get_state()

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from `state`; without a seed of its own the iterator takes the saved one.

        Raises:
          ValueError: when the state belongs to another stream of examples.
        """
        self._peeked = None
        saved = state.get("settings", {}).get("seed")
        if self._seed is None and saved is not None:
            self.close()
            self._open(saved)
        self._inner.set_state(state)

    def close(self) -> None:
        """End prefetching and the worker processes; the iterator cannot be used after it."""
        self._finalizer()


def get_dataset(
    task_or_mixture: str | Task | Mixture,
    task_feature_lengths: Mapping[str, Any],
    split: str = "train",
    batch_size: int = 1,
    *,
    shuffle: bool = True,
    seed: int | None = None,
    num_epochs: int | None = None,
    feature_converter: FeatureConverter | type[FeatureConverter] = PassThroughFeatureConverter,
    pack: bool = False,
    shard_index: int = 0,
    num_shards: int = 1,
    drop_remainder: bool = True,
    trim_output_features: bool = True,
    length_buckets: Sequence[int] | Mapping[str, Sequence[int]] | None = None,
    bucket_window: int = 16,
    num_workers: int = 0,
    num_read_threads: int = 0,
    prefetch: int = 2,
    use_cached: bool = False,
) -> DatasetIterator:
    """Batches of a task or mixture, deterministic in (seed, step).

    Args:
      task_or_mixture: an object, a registered name, or a name registered with seqio.
      task_feature_lengths: {task feature: length}, the lengths the converter asks for.
      split: split of the source.
      batch_size: GLOBAL number of rows; this shard's batches have batch_size / num_shards.
      shuffle: whether each epoch is a new random permutation of the split.
      seed: of the order and of the preprocessors' `rng`. None draws one and keeps it in the
        state, so that a resumed run continues the same stream.
      num_epochs: passes over the data; None repeats for ever.
      feature_converter: an instance, or a class that is called with `pack`.
      pack: whether several examples share a row.
      shard_index, num_shards: this process's part; each example is in exactly one part.
      drop_remainder: whether a last batch with fewer rows is left out (finite num_epochs).
      trim_output_features: whether features longer than their length are cut; otherwise they are
        an error.
      length_buckets: lengths of `targets`, or {task feature: lengths}. Examples of `bucket_window`
        batches are sorted by length, and each batch is padded to the smallest bucket that holds
        it (the full length is always one). Each example still appears exactly once.
      bucket_window: batches in a window.
      num_workers: processes that make examples; the batches do not depend on it.
      num_read_threads: threads that make examples, in each process.
      prefetch: finished batches kept ready by a thread; with buckets at least a window. 0 makes
        batches when asked.
      use_cached: whether tasks that have a cache are read from it (`t5x.data.caching`).

    Returns:
      `DatasetIterator` over dicts of arrays [batch_size / num_shards, ...].

    Raises:
      ValueError: for an unknown name, split or feature, options that exclude each other, or a
        batch that exceeds the memory.
    """
    rows = _rows_per_shard(batch_size, shard_index, num_shards, seed)
    converter = _converter(feature_converter, pack)
    lengths = dict(task_feature_lengths)
    converter.check_lengths(lengths)
    batcher = batching.make_batcher(
        converter, lengths, rows, drop_remainder, length_buckets, bucket_window, shuffle
    )
    if length_buckets and num_shards > 1:
        raise ValueError(
            "length_buckets gives each shard its own batch shapes; use it with num_shards=1"
        )
    source = lookup.find(task_or_mixture)
    features = getattr(source, "output_features", None)
    check_batch_memory(converter, lengths, rows, source.name, features)
    raw: dict[str, Sequence[Any]] = {}

    def make_batches(seed: int) -> BatchIterator:
        settings = _Settings(source.name, split, shuffle, seed, shard_index, num_shards, num_epochs)
        batcher.seed = seed
        if not isinstance(source, Task | Mixture):
            settings = dataclasses.replace(settings, examples=source.num_examples(split))
            elements = source.elements(
                settings, lengths, converter, trim_output_features, use_cached
            )
            return BatchIterator(elements, batcher, settings)
        tasks = source.tasks if isinstance(source, Mixture) else [source]
        tasks, settings = _from_caches(tasks, settings, use_cached)
        sequences = [task.sequence(split) for task in tasks]
        raw.update((task.name, each) for task, each in zip(tasks, sequences))
        sizes = {name: len(each) for name, each in raw.items()}
        settings = dataclasses.replace(settings, examples=sizes)
        places = _order(source, tasks, [len(s) for s in sequences], settings)
        maker = ExampleMaker(tasks, sequences, lengths, converter, seed, trim_output_features)
        elements = Elements(places, maker, num_workers, num_read_threads)
        # An endless stream without any example would be searched for ever.
        patience = max(_PATIENCE, 2 * sum(map(len, sequences)))
        return BatchIterator(elements, batcher, settings, patience)

    lookahead = bucket_window if length_buckets else 1
    iterator = DatasetIterator(make_batches, seed, prefetch and max(prefetch, lookahead))
    iterator.source = raw
    iterator.lookahead = lookahead
    iterator.batch_size = rows
    iterator.model_feature_lengths = dict(converter.get_model_feature_lengths(lengths))
    return iterator


def _from_caches(tasks: Sequence[Task], settings: _Settings, use_cached: bool):
    """The tasks as they are read, and the settings that say so."""
    read = caching.read_by(tasks, settings.split, use_cached)
    names = [new.name for new, old in zip(read, tasks) if new is not old]
    return read, dataclasses.replace(settings, cached=",".join(names) or None)


def _order(source: Task | Mixture, tasks: Sequence[Task], sizes: Sequence[int], s: _Settings):
    orders = [
        order.TaskOrder(size, s.shuffle, s.seed, number, s.shard_index, s.num_shards)
        for number, size in enumerate(sizes)
    ]
    for task, each in zip(tasks, orders):
        if each.size == 0 and s.num_epochs is None:
            raise ValueError(
                f"task {task.name!r}, split {s.split!r}: no examples; look at what its source reads"
            )
        if each.shard_size == 0 and s.num_epochs is None:
            raise ValueError(
                f"task {task.name!r}, split {s.split!r}: {each.size} examples leave none for "
                f"shard {s.shard_index} of {s.num_shards}"
            )
    if s.num_epochs is not None:
        return order.ConcatenatedOrder(orders, s.num_epochs)
    rates = [source.rate(task) for task in tasks] if isinstance(source, Mixture) else [1.0]
    return order.MixedOrder(orders, rates, s.seed)


def _rows_per_shard(batch_size: int, shard_index: int, num_shards: int, seed: int | None) -> int:
    if not 0 <= shard_index < num_shards:
        raise ValueError(f"shard_index {shard_index} is not in [0, num_shards={num_shards})")
    if batch_size < 1 or batch_size % num_shards:
        raise ValueError(
            f"batch_size {batch_size} must be a positive multiple of num_shards={num_shards}"
        )
    if seed is not None and seed < 0:
        raise ValueError(f"seed must not be negative, got {seed}")
    if num_shards > 1 and seed is None:
        raise ValueError("num_shards > 1 needs a seed, the same on every host; got seed=None")
    return batch_size // num_shards


def _converter(converter, pack: bool) -> FeatureConverter:
    if isinstance(converter, type):
        return converter(pack=pack)
    if pack and not converter.pack:
        raise ValueError("pack=True, but the feature_converter was made with pack=False")
    return converter
