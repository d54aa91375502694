"""Parts of one length out of long sequences of tokens.

An example has `targets` int32 [n]. In training it is a stretch of a sequence in which a crop may
begin at some places; together the stretches of a sequence have all places, each once, so that an
epoch is about as long as the data and every crop is as likely as any other. In evaluation it is one
of the consecutive windows.
"""

from collections.abc import Mapping, Sequence

import numpy as np

Example = dict[str, np.ndarray]


def crop_stretches(size: int, length: int, multiple: int = 1) -> np.ndarray:
    """Return begin and end of the stretches of a sequence, int64 [K, 2].

    Each has places for `length` tokens to begin, and all about as many: as few as make up one
    crop. A sequence that is shorter is one stretch; one without tokens has none.

    Args:
      size: tokens of the sequence.
      length: of a crop.
      multiple: crops begin at multiples of it; up to multiple - 1 tokens at the end are left out.
    """
    if size <= length:
        return np.array([[0, size]] if size else [], np.int64).reshape(-1, 2)
    places = (size - length) // multiple + 1
    count = -(-places // max(length // multiple, 1))
    bounds = places * np.arange(count + 1) // count
    return np.stack([bounds[:-1] * multiple, (bounds[1:] - 1) * multiple + length], axis=1)


def side_by_side(size: int, length: int) -> np.ndarray:
    """Return begin and end of a sequence's windows, int64 [K, 2]; a shorter last one is dropped."""
    begin = length * np.arange(size // length)
    return np.stack([begin, begin + length], axis=1)


class Parts(Sequence):
    """Parts of sequences as raw examples, read when asked for.

    Args:
      sequences: ids int [n] each, arrays or other sequences with `len()` and slices.
      spans: begin and end of the parts of each sequence, int [K, 2].
    """

    def __init__(self, sequences: Sequence, spans: Sequence[np.ndarray]):
        self._sequences = sequences
        self._sequence = np.repeat(np.arange(len(spans)), [len(each) for each in spans])
        self._span = np.concatenate([np.zeros((0, 2), np.int64), *spans])

    def __len__(self) -> int:
        return len(self._span)

    def __getitem__(self, index: int) -> Example:  # type: ignore[override]
        begin, end = self._span[index]
        part = self._sequences[self._sequence[index]][begin:end]
        return {"targets": np.asarray(part, np.int32)}


def random_crop(
    example: Example, rng: np.random.Generator, length: int, multiple: int = 1
) -> Example:
    """Return `length` tokens of `targets` from a random multiple on; all of a shorter example."""
    places = max(len(example["targets"]) - length, 0) // multiple + 1
    begin = multiple * int(rng.integers(places))
    return {**example, "targets": example["targets"][begin : begin + length]}


def check_length(
    example: Example, sequence_length: Mapping[str, int] | None, length: int
) -> Example:
    """Return the example; raise ValueError if a run asks for another length than the task's.

    Raises:
      ValueError: naming both lengths.
    """
    asked = (sequence_length or {}).get("targets", length)
    if asked != length:
        raise ValueError(
            f"task_feature_lengths['targets']={asked}, but the task was made with "
            f"length={length}: give both the same"
        )
    return example
