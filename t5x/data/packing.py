"""Examples to rows of a batch: padding, and packing several examples into a row.

Lengths are {feature: length of its first axis}, or {feature: tuple}, one length an axis.
"""

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

Lengths = Mapping[str, int | Sequence[int]]


def axis_limits(length: int | Sequence[int]) -> tuple[int, ...]:
    """A length as one limit for each of the first axes."""
    return tuple(length) if isinstance(length, Sequence) else (int(length),)


def pad_batch(examples: Sequence[dict], lengths: Lengths) -> dict[str, np.ndarray]:
    """Trim and zero-pad each feature in `lengths`: B arrays [l_i, ...] -> [B, L, ...].

    One array is allocated for a feature and each row is copied once.
    """
    return {name: _pad_feature([e[name] for e in examples], lengths[name]) for name in lengths}


def _pad_feature(rows: Sequence[np.ndarray], length: int | Sequence[int]) -> np.ndarray:
    first = np.asarray(rows[0])
    if first.ndim == 0:
        return np.asarray(rows)
    limits = axis_limits(length)
    batch = np.zeros((len(rows), *limits, *first.shape[len(limits) :]), first.dtype)
    if batch.ndim == 2:  # tokens, quickly
        for target, row in zip(batch, rows):
            target[: len(row)] = row[: len(target)]
        return batch
    for i, row in enumerate(rows):
        cut = row[tuple(slice(0, limit) for limit in limits)]
        batch[(i, *(slice(0, n) for n in cut.shape[: len(limits)]))] = cut
    return batch


def strip_padding(tokens: np.ndarray, name: str) -> np.ndarray:
    """Return the first n of `tokens` [L], n being how many of them are not the padding id 0.

    That cuts the padding at the end. As in seqio, a 0 between tokens counts as padding, too: it
    stays, and costs a token at the end, which is warned of.
    """
    count = np.count_nonzero(tokens)
    if np.count_nonzero(tokens[:count]) != count:
        warnings.warn(
            f"feature {name!r} has the padding id 0 between tokens; packed, as in seqio, it loses "
            "a token at its end for each of them. Use another id, or pack=False.",
            stacklevel=2,
        )
    return tokens[:count]


class RowPacker:
    """Greedy packing in order: a row is closed by the first example that does not fit.

    As in seqio, a row is also closed after every `max(lengths)` examples, which bounds the
    number of examples in a row.
    """

    def __init__(self, lengths: Mapping[str, int], seen: int = 0):
        self._lengths = dict(lengths)
        self._limit = max(self._lengths.values())
        self._seen = seen
        self._row: list[dict] = []
        self._used = dict.fromkeys(self._lengths, 0)

    @property
    def seen(self) -> int:
        """Examples since the last forced close."""
        return self._seen

    def closes_before(self, example: Mapping[str, np.ndarray]) -> bool:
        """Whether `example` does not belong to the row that is being filled."""
        full = any(self._used[n] + len(example[n]) > self._lengths[n] for n in self._lengths)
        return bool(self._row) and (full or self._seen == self._limit)

    def add(self, example: dict) -> list[dict] | None:
        """Put an example in the row; return the row that it closed, if any."""
        closed = self.flush() if self.closes_before(example) else None
        if self._seen == self._limit:
            self._seen = 0
        self._seen += 1
        self._row.append(example)
        for name in self._used:
            self._used[name] += len(example[name])
        return closed

    def flush(self) -> list[dict] | None:
        """The examples of the unfinished row, if there are any."""
        row, self._row = self._row, []
        self._used = dict.fromkeys(self._lengths, 0)
        return row or None


def pack_rows(examples: Iterable[dict], lengths: Mapping[str, int]) -> Iterator[list[dict]]:
    """Group stripped and trimmed examples into rows that fit `lengths`."""
    packer = RowPacker(lengths)
    for example in examples:
        if (row := packer.add(example)) is not None:
            yield row
    if (row := packer.flush()) is not None:
        yield row


def pack_batch(rows: Sequence[Sequence[dict]], lengths: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Rows of examples -> for each feature int32 [B, L]: itself, `_segment_ids`, `_positions`.

    Positions restart with each example. As in seqio, segment ids count from 1 those examples of a
    row whose feature is not empty, and are 0 on the padding id. So the ids of `inputs` and
    `targets` disagree after an example of which one is empty; leave such examples out.
    """
    batch = {}
    for name, length in lengths.items():
        tokens = np.zeros((len(rows), length), np.int32)
        positions = np.zeros_like(tokens)
        for i, row in enumerate(rows):
            start = 0
            for example in row:
                end = start + len(example[name])
                tokens[i, start:end] = example[name]
                positions[i, start:end] = np.arange(end - start)
                start = end
        batch[name] = tokens
        segments = np.cumsum(positions == 0, axis=1, dtype=np.int32)
        batch[f"{name}_segment_ids"] = np.where(tokens != 0, segments, 0)
        batch[f"{name}_positions"] = positions
    return batch
