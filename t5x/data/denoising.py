"""Span corruption, the pretraining of T5 (Raffel et al., arXiv 1910.10683, section 3.1.4).

Random spans of a text are cut out. The inputs hold a sentinel in the place of each, the targets the
same sentinels with what stood there; the sentinels are the vocabulary's last ids, downwards:

    text     to be or not to be that is the question
    inputs   to be <0> to be that <1> the question
    targets  <0> or not <1> is
"""

import functools
from collections.abc import Mapping

import numpy as np

from t5x.data.features import Feature

NOISE_DENSITY = 0.15
MEAN_SPAN_LENGTH = 3.0


def _noise_counts(length: int, noise_density: float, mean_span_length: float) -> tuple[int, int]:
    """Noise tokens and noise spans of a text of `length` >= 2 tokens; both at least 1."""
    tokens = min(max(round(length * noise_density), 1), length - 1)
    spans = max(round(tokens / mean_span_length), 1)
    return tokens, min(spans, length - tokens)


def _random_segmentation(items: int, segments: int, rng: np.random.Generator) -> np.ndarray:
    """Lengths >= 1, int [segments], of a uniformly drawn cut of `items` into `segments`."""
    ends = np.full(segments, items, np.int64)
    if segments > 1:
        ends[:-1] = np.sort(rng.choice(items - 1, segments - 1, replace=False)) + 1
    ends[1:] -= ends[:-1].copy()
    return ends


def random_spans_noise_mask(
    length: int,
    rng: np.random.Generator,
    noise_density: float = NOISE_DENSITY,
    mean_span_length: float = MEAN_SPAN_LENGTH,
) -> np.ndarray:
    """Which tokens are noise: bool [length], spans of text and noise in turn, text first.

    Their number is fixed by `length`; where they lie is uniform over all such masks, as in T5.

    Raises:
      ValueError: a density outside (0, 1) or a mean span below 1.
    """
    if not 0 < noise_density < 1 or mean_span_length < 1:
        raise ValueError(
            f"noise_density {noise_density} must lie in (0, 1) and mean_span_length "
            f"{mean_span_length} be at least 1"
        )
    padded = max(length, 2)
    tokens, spans = _noise_counts(padded, noise_density, mean_span_length)
    lengths = np.empty(2 * spans, np.int64)
    lengths[1::2] = _random_segmentation(tokens, spans, rng)
    lengths[::2] = _random_segmentation(padded - tokens, spans, rng)
    return np.repeat(np.arange(2 * spans) % 2 == 1, lengths)[:length]


def spans_to_sentinels(tokens: np.ndarray, mask: np.ndarray, vocab_size: int) -> np.ndarray:
    """`tokens` [L] with each run where `mask` holds replaced by one sentinel, int [<= L].

    The first run becomes `vocab_size - 1`, the next `vocab_size - 2`, and so on.
    """
    first = mask.copy()
    first[1:] &= ~mask[:-1]
    replaced = np.where(first, vocab_size - np.cumsum(first), tokens)
    return replaced[first | ~mask].astype(tokens.dtype)


def corrupt_spans(
    tokens: np.ndarray,
    vocab_size: int,
    rng: np.random.Generator,
    noise_density: float = NOISE_DENSITY,
    mean_span_length: float = MEAN_SPAN_LENGTH,
) -> tuple[np.ndarray, np.ndarray]:
    """(inputs, targets) of a text, int [L] -> int [Li], int [Lt], both without EOS."""
    mask = random_spans_noise_mask(len(tokens), rng, noise_density, mean_span_length)
    return (
        spans_to_sentinels(tokens, mask, vocab_size),
        spans_to_sentinels(tokens, ~mask, vocab_size),
    )


@functools.lru_cache(maxsize=32)
def span_corruption_lengths(
    inputs_length: int,
    targets_length: int | None = None,
    noise_density: float = NOISE_DENSITY,
    mean_span_length: float = MEAN_SPAN_LENGTH,
) -> tuple[int, int]:
    """The longest text whose inputs and targets, with EOS, fit; and the length of its targets.

    Of 512 tokens of input: (568, 114) with T5's density and span.

    Raises:
      ValueError: the lengths hold no text of two tokens.
    """

    def needed(length: int) -> tuple[int, int]:
        tokens, spans = _noise_counts(length, noise_density, mean_span_length)
        return length - tokens + spans + 1, tokens + spans + 1

    def fits(length: int) -> bool:
        inputs, targets = needed(length)
        return inputs <= inputs_length and (targets_length is None or targets <= targets_length)

    length = 2
    if not fits(length):
        raise ValueError(
            f"task_feature_lengths inputs={inputs_length}, targets={targets_length} are too short "
            "for span corruption"
        )
    while fits(length + 1):
        length += 1
    return length, needed(length)[1]


def random_window(tokens: np.ndarray, length: int, rng: np.random.Generator) -> np.ndarray:
    """`length` consecutive tokens from anywhere in `tokens`; all of them if they are fewer."""
    start = rng.integers(0, max(len(tokens) - length, 0) + 1)
    return tokens[start : start + length]


def span_corruption(
    example: dict,
    rng: np.random.Generator,
    sequence_length: Mapping[str, int],
    output_features: Mapping[str, Feature],
    noise_density: float = NOISE_DENSITY,
    mean_span_length: float = MEAN_SPAN_LENGTH,
) -> dict | None:
    """A preprocessor: `targets` int [L] -> `inputs` and `targets` of a random window of them.

    The window is as long as fits in `sequence_length` once both have their EOS
    (`preprocessors.append_eos`). Examples of less than two tokens are dropped.

    Raises:
      ValueError: the sequence lengths are missing or too short, or the vocabulary has fewer
        sentinels (`extra_ids`) than the window has spans.
    """
    if not sequence_length or "inputs" not in sequence_length:
        raise ValueError("span_corruption needs task_feature_lengths of inputs and targets")
    options = (noise_density, mean_span_length)
    length, _ = span_corruption_lengths(
        sequence_length["inputs"], sequence_length.get("targets"), *options
    )
    tokens = random_window(np.asarray(example["targets"]), length, rng)
    if len(tokens) < 2:
        return None
    vocabulary = output_features["targets"].vocabulary
    _check_sentinels(vocabulary, _noise_counts(len(tokens), *options)[1])
    inputs, targets = corrupt_spans(tokens, vocabulary.vocab_size, rng, *options)
    return {**example, "inputs": inputs, "targets": targets}


def _check_sentinels(vocabulary, spans: int) -> None:
    extra = getattr(vocabulary, "extra_ids", 0)
    if extra < spans:
        raise ValueError(
            f"span corruption needs {spans} sentinels, but {vocabulary!r} has {extra} extra ids; "
            "create it with extra_ids=100 or more"
        )
