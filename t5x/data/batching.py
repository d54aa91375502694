"""Examples to batches, from any position of the stream.

A position is a dict of ints: the next example is number `offset` of element number `element`
(an element is the list of examples made from one raw example). `emitted` counts the batches given
out of the window that begins there, `window` numbers the windows, and `seen` is the packer's
count of examples since the last forced end of a row.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from t5x.data.converters import FeatureConverter
from t5x.data.packing import RowPacker

Position = dict[str, int]
START: Position = {"element": 0, "offset": 0, "emitted": 0, "window": 0, "seen": 0}


class ExampleStream:
    """Single examples out of elements, and the position of the next one.

    Args:
      elements: lists of examples, which may be empty.
      position: of the next example.
      patience: so many empty elements one after the other are an error; None never is.
    """

    def __init__(
        self, elements: Iterable[list[dict]], position: Position, patience: int | None = None
    ):
        self._elements = iter(elements)
        self._patience = patience
        self._current: Sequence[dict] = ()
        self.element = position["element"]
        self.offset = position["offset"]
        self._opened = False

    def __iter__(self):
        return self

    def __next__(self) -> dict:
        """Raise ValueError when patience is lost."""
        if not self._opened:
            self._current = next(self._elements)
            self._opened = True
        empty = 0
        while self.offset >= len(self._current):
            self._current = next(self._elements)
            self.element += 1
            self.offset = 0
            empty += not self._current
            if self._patience is not None and empty > self._patience:
                raise ValueError(
                    f"the preprocessors dropped each of {empty} examples in a row, so there are "
                    "no batches; find the preprocessor that returns None or no example"
                )
        self.offset += 1
        return self._current[self.offset - 1]

    def before_last(self) -> Position:
        """Position of the example that was read last."""
        return {**START, "element": self.element, "offset": self.offset - 1}

    def position(self) -> Position:
        """Position after the example that was read last."""
        return {**START, "element": self.element, "offset": self.offset}


class WindowBatcher:
    """Padded batches; with buckets, of examples sorted by length inside a window.

    Args:
      converter: gives the model features.
      lengths: task feature lengths.
      rows: examples in a batch.
      drop_remainder: whether a last, smaller batch is left out.
      buckets: {prepared feature: ascending lengths}, the last being the full length; empty for
        plain batches.
      window: batches in a window.
      shuffle: whether the batches of a window come in random order, else by ascending length.
    """

    def __init__(
        self,
        converter: FeatureConverter,
        lengths: Mapping[str, Any],
        rows: int,
        drop_remainder: bool,
        buckets: Mapping[str, Sequence[int]],
        window: int,
        shuffle: bool,
    ):
        self._converter = converter
        self._lengths = dict(converter.prepared_lengths(lengths))
        self._rows = rows
        self._drop_remainder = drop_remainder
        self._buckets = dict(buckets)
        self._window = window if buckets else 1
        self._shuffle = shuffle
        self.seed = 0

    def check_position(self, position: Position) -> None:
        if position["emitted"] >= self._window:
            raise ValueError(
                f"the saved data state stands at batch {position['emitted']} of a window, but "
                f"windows have {self._window} batches; use the saved bucket_window"
            )

    def batches(self, stream: ExampleStream, start: Position) -> Iterator[tuple[dict, Position]]:
        begin = dict(start)
        while examples := list(itertools.islice(stream, self._window * self._rows)):
            end = {**stream.position(), "window": begin["window"] + 1}
            groups = self._groups(examples, begin["window"])
            for number, group in enumerate(groups, start=1):
                if number > begin["emitted"]:
                    after = {**begin, "emitted": number} if number < len(groups) else end
                    yield self._make(group), after
            begin = end

    def _groups(self, examples: list[dict], window: int) -> list[list[dict]]:
        if self._drop_remainder:
            examples = examples[: len(examples) - len(examples) % self._rows]
        if self._buckets:
            keys = [tuple(len(e[name]) for name in self._buckets) for e in examples]
            examples = [examples[i] for i in sorted(range(len(keys)), key=keys.__getitem__)]
        groups = [examples[i : i + self._rows] for i in range(0, len(examples), self._rows)]
        if self._buckets and self._shuffle:
            rng = np.random.default_rng((self.seed, window))
            groups = [groups[i] for i in rng.permutation(len(groups))]
        return groups

    def _make(self, group: list[dict]) -> dict[str, np.ndarray]:
        lengths = dict(self._lengths)
        for name, buckets in self._buckets.items():
            longest = max(len(e[name]) for e in group)
            lengths[name] = next(b for b in buckets if b >= longest)
        return self._converter.convert(self._converter.collate(group, lengths))


class PackedBatcher:
    """Batches of packed rows."""

    def __init__(
        self,
        converter: FeatureConverter,
        lengths: Mapping[str, Any],
        rows: int,
        drop_remainder: bool,
    ):
        self._converter = converter
        self._lengths: dict[str, Any] = dict(converter.prepared_lengths(lengths))
        self._rows = rows
        self._drop_remainder = drop_remainder
        self.seed = 0

    def check_position(self, position: Position) -> None:
        if position["emitted"]:
            raise ValueError(
                "the saved data state stands inside a window of length_buckets; packing has none"
            )

    def batches(self, stream: ExampleStream, start: Position) -> Iterator[tuple[dict, Position]]:
        packer = RowPacker(self._lengths, start["seen"])
        rows: list[list[dict]] = []
        for example in stream:
            seen = packer.seen
            row = packer.add(example)
            if row is None:
                continue
            rows.append(row)
            if len(rows) == self._rows:
                yield self._make(rows), {**stream.before_last(), "seen": seen}
                rows = []
        if (row := packer.flush()) is not None:
            rows.append(row)
        if len(rows) == self._rows or (rows and not self._drop_remainder):
            yield self._make(rows), {**stream.position(), "seen": packer.seen}

    def _make(self, rows: list[list[dict]]) -> dict[str, np.ndarray]:
        return self._converter.convert(self._converter.collate(rows, self._lengths))


def make_batcher(
    converter: FeatureConverter,
    lengths: Mapping[str, Any],
    rows: int,
    drop_remainder: bool,
    length_buckets: Sequence[int] | Mapping[str, Sequence[int]] | None,
    bucket_window: int,
    shuffle: bool,
) -> WindowBatcher | PackedBatcher:
    """The batcher for these options; see `get_dataset`."""
    if converter.pack:
        if length_buckets:
            raise ValueError("length_buckets and packing exclude each other")
        return PackedBatcher(converter, lengths, rows, drop_remainder)
    if bucket_window < 1:
        raise ValueError(f"bucket_window must be at least 1, got {bucket_window}")
    buckets = _bucket_lengths(length_buckets, converter.prepared_lengths(lengths))
    return WindowBatcher(converter, lengths, rows, drop_remainder, buckets, bucket_window, shuffle)


def _bucket_lengths(length_buckets, lengths: Mapping[str, Any]) -> dict[str, list[int]]:
    """{feature: ascending bucket lengths}, capped by and ending with the full length."""
    if not length_buckets:
        return {}
    if not isinstance(length_buckets, Mapping):
        length_buckets = {"targets": length_buckets}
    buckets = {}
    for name, values in length_buckets.items():
        full = lengths.get(name)
        if not isinstance(full, int):
            raise ValueError(
                f"length_buckets: {name!r} has no integer length; features are {dict(lengths)}"
            )
        if any(value < 1 for value in values):
            raise ValueError(f"length_buckets: lengths must be positive, got {list(values)}")
        buckets[name] = sorted({value for value in values if value < full} | {full})
    return buckets
