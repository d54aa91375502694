"""Mixtures of several recordings as one training example (MT3's augmentation)."""

from collections.abc import Callable, Mapping, Sequence

import gin
import numpy as np

from musax.events.codec import Codec
from musax.events.run_length import merge_run_length_encoded_targets

Example = dict[str, np.ndarray]


def mix_audio(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Return the sum of frames float32 [T_i, hop], zero-padded to the longest, with peak 1.

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
    """Return one example from several: audio summed, targets merged in time.

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


@gin.configurable(module="mt3.mixing")  # pyright: ignore[reportCallIssue]
def mix_transcription_examples(
    example: Mapping,
    rng: np.random.Generator,
    sequence_length: Mapping[str, int],
    *,
    others: Callable[[], Sequence[Mapping]],
    prepare: Callable[[Mapping, np.random.Generator, Mapping[str, int]], Mapping],
    codec: Codec,
    max_examples_per_mix: int | None = None,
    join_ties: bool = True,
) -> Example:
    """Mix an example with up to `max_examples_per_mix - 1` others; how many is uniform.

    Args:
      example: frames and run-length-encoded targets.
      others: returns the raw examples from which the others are drawn.
      prepare: takes a raw example to frames and targets, as `mt3.preprocessors.random_segment`.
      codec, join_ties: see `mix_examples`.
      max_examples_per_mix: None and 1 mix nothing.

    Returns:
      inputs float32 [T, hop], targets int32 [L] that leave room for EOS.
    """
    if not max_examples_per_mix or max_examples_per_mix <= 1:
        return dict(example)
    source = others()
    chosen = rng.integers(len(source), size=int(rng.integers(max_examples_per_mix)))
    parts = [example, *(prepare(source[i], rng, sequence_length) for i in chosen.tolist())]
    room = sequence_length["targets"] - 1
    return mix_examples(parts, codec=codec, max_tokens=room, join_ties=join_ties)
