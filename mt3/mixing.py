"""Mixtures of several recordings as one training example (MT3's augmentation)."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np

from musax.events.codec import Codec
from musax.events.run_length import merge_run_length_encoded_targets

Example = dict[str, np.ndarray]


def mix_audio(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Sum of frames float32 [T_i, hop], padded with zeros to the longest, with peak 1.

    Silence stays silence.
    """
    length = max(len(part) for part in parts)
    total = np.zeros((length, *parts[0].shape[1:]), np.float32)
    for part in parts:
        total[: len(part)] += part
    peak = np.abs(total).max(initial=0.0)
    return total / peak if peak > 0 else total


def mix_examples(
    examples: Sequence[Mapping],
    *,
    codec: Codec,
    max_tokens: int | None = None,
    join_ties: bool = True,
) -> Example:
    """One example from several: audio added up, targets merged in time.

    Args:
      examples: at least one, each with inputs float32 [T, hop] (frames of audio) and targets
        int32 [L] (run-length encoded, not yet freed from redundant state changes).
      max_tokens: examples whose targets would make the mixture longer are left out, though never
        the first; None for no bound.
      join_ties: one tie section for the mixture; False leaves each example its own `tie`, as the
        reference does.

    Returns:
      inputs float32 [T, hop] of peak 1, targets int32 [L].
    """
    if not examples:
        raise ValueError("a mixture needs at least one example")
    chosen = [examples[0]]
    targets = _merge(chosen, codec, join_ties)
    for example in examples[1:]:
        merged = _merge([*chosen, example], codec, join_ties)
        if max_tokens is None or len(merged) <= max_tokens:
            chosen.append(example)
            targets = merged
    return {"inputs": mix_audio([e["inputs"] for e in chosen]), "targets": targets}


def _merge(examples: Sequence[Mapping], codec: Codec, join_ties: bool) -> np.ndarray:
    rows = [np.asarray(example["targets"], np.int32) for example in examples]
    width = max(len(row) for row in rows)
    matrix = np.stack([np.pad(row, (0, width - len(row))) for row in rows])
    has_ties = codec.has("tie") and (matrix == codec.event_type_range("tie")[0]).any()
    return merge_run_length_encoded_targets(matrix, codec, join_ties=join_ties and bool(has_ties))


def mix_transcription_examples(
    examples: Iterable[Mapping],
    rng: np.random.Generator,
    *,
    codec: Codec,
    max_examples_per_mix: int | None = None,
    max_tokens: int | None = None,
    join_ties: bool = True,
) -> Iterator[Example]:
    """Mixes a stream of (shuffled) examples, 1 to `max_examples_per_mix` at a time.

    The number in each mixture is uniform; None or 1 passes examples through unchanged.
    """
    if max_examples_per_mix is None or max_examples_per_mix <= 1:
        yield from (dict(example) for example in examples)
        return
    stream = iter(examples)
    while True:
        count = int(rng.integers(1, max_examples_per_mix + 1))
        group = list(itertools.islice(stream, count))
        if not group:
            return
        yield mix_examples(group, codec=codec, max_tokens=max_tokens, join_ties=join_ties)


class MixedExamples:
    """A source of mixtures, by index: mixture i depends on (seed, i) alone.

    `prepare(example, rng)` takes an example of `source` to frames and run-length-encoded targets,
    for example by `mt3.preprocessors.random_segment`. The first part of mixture i is example i,
    the others are drawn at random.
    """

    def __init__(
        self,
        source: Sequence[Mapping],
        prepare: Callable[[Mapping, np.random.Generator], Mapping],
        *,
        codec: Codec,
        max_examples_per_mix: int,
        seed: int,
        max_tokens: int | None = None,
        join_ties: bool = True,
    ):
        if max_examples_per_mix < 1:
            raise ValueError(f"max_examples_per_mix={max_examples_per_mix} must be at least 1")
        self._source, self._prepare = source, prepare
        self._max_examples, self._seed = max_examples_per_mix, seed
        self._options = {"codec": codec, "max_tokens": max_tokens, "join_ties": join_ties}

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Example:
        if not 0 <= index < len(self):
            raise IndexError(f"mixture {index} of {len(self)}")
        rng = np.random.default_rng((self._seed, index))
        others = int(rng.integers(self._max_examples))
        chosen = [index, *rng.integers(len(self._source), size=others).tolist()]
        parts = [self._prepare(self._source[i], rng) for i in chosen]
        return mix_examples(parts, **self._options)
