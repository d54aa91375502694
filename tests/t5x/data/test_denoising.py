"""Span corruption."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t5x.data import ByteVocabulary, Feature, PassThroughVocabulary
from t5x.data.denoising import (
    corrupt_spans,
    random_spans_noise_mask,
    span_corruption,
    span_corruption_lengths,
    spans_to_sentinels,
)


def _features(vocabulary):
    return {name: Feature(vocabulary) for name in ("inputs", "targets")}


def _join(inputs, targets, first_sentinel):
    """The text again: every sentinel of the inputs gives way to what the targets have for it."""
    spans, key = {}, None
    for token in targets.tolist():
        if token > first_sentinel:
            key = token
            spans[key] = []
        else:
            spans[key].append(token)
    text = []
    for token in inputs.tolist():
        text.extend(spans.pop(token) if token in spans else [token])
    return text, spans


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 300), st.integers(0, 9), st.floats(0.05, 0.6), st.floats(1, 20))
def test_nothing_is_lost_and_the_counts_are_t5s(length, seed, density, span):
    rng = np.random.default_rng(seed)
    tokens = rng.integers(3, 259, length).astype(np.int32)
    inputs, targets = corrupt_spans(tokens, 10_000, rng, density, span)
    text, unused = _join(inputs, targets, 9_000)
    noise = min(max(round(length * density), 1), length - 1)
    spans = min(max(round(noise / span), 1), length - noise)
    assert (inputs > 9_000).sum() == spans
    assert len(targets) - (targets > 9_000).sum() == noise
    # A text begins with what is kept, so each span has its sentinel in the inputs.
    assert text == tokens.tolist()
    assert not unused
    assert inputs.dtype == targets.dtype == np.int32
    assert (inputs[inputs > 9_000] == 9_999 - np.arange(spans)).all()


def test_the_paper_s_example():
    words = ["thank", "you", "for", "inviting", "me", "to", "your", "party", "last", "week"]
    tokens = np.arange(len(words)) + 10
    mask = np.array([w in ("for", "inviting", "last") for w in words])
    inputs = spans_to_sentinels(tokens, mask, 100)
    targets = spans_to_sentinels(tokens, ~mask, 100)
    assert inputs.tolist() == [10, 11, 99, 14, 15, 16, 17, 98, 19]
    assert targets.tolist() == [99, 12, 13, 98, 18, 97]


def test_lengths_are_those_of_t5():
    # t5.data.preprocessors.random_spans_helper(512, 0.15, 3.0, 1, 1), as T5's own runs use it
    assert span_corruption_lengths(512) == (568, 114)
    assert span_corruption_lengths(512, 114) == (568, 114)
    assert span_corruption_lengths(512, 60)[0] < 568
    with pytest.raises(ValueError, match="too short for span corruption"):
        span_corruption_lengths(2)


def test_every_place_is_as_likely_as_its_neighbours():
    rng = np.random.default_rng(0)
    counts = sum(random_spans_noise_mask(40, rng).astype(int) for _ in range(4000))
    assert counts[0] == 0  # the text comes first
    assert counts.sum() == 4000 * 6
    middle = counts[10:30]
    assert middle.max() / middle.min() < 1.5
    means = [_mean_span(random_spans_noise_mask(568, rng)) for _ in range(20)]
    assert np.mean(means) == pytest.approx(85 / 28)


def _mean_span(mask):
    starts = (np.diff(mask.astype(int), prepend=0) == 1).sum()
    return mask.sum() / starts


def test_the_preprocessor_fills_the_row():
    vocabulary = ByteVocabulary(extra_ids=125)
    tokens = np.arange(1000) % 256 + 3
    lengths = {"inputs": 128, "targets": 32}
    seen = set()
    for seed in range(5):
        rng = np.random.default_rng(seed)
        example = span_corruption({"targets": tokens}, rng, lengths, _features(vocabulary))
        assert len(example["inputs"]) == 127  # and one for EOS
        assert len(example["targets"]) <= 31
        seen.add(int(example["inputs"][0]))
    assert len(seen) > 1  # another window every time
    short = span_corruption({"targets": tokens[:2]}, rng, lengths, _features(vocabulary))
    assert (len(short["inputs"]), len(short["targets"])) == (2, 2)
    assert span_corruption({"targets": tokens[:1]}, rng, lengths, _features(vocabulary)) is None


def test_bad_arguments_are_named():
    rng = np.random.default_rng(0)
    example = {"targets": np.arange(3, 200)}
    few = _features(ByteVocabulary(extra_ids=2))
    with pytest.raises(ValueError, match="needs 7 sentinels, but ByteVocabulary"):
        span_corruption(example, rng, {"inputs": 128, "targets": 32}, few)
    with pytest.raises(ValueError, match="has 0 extra ids"):
        span_corruption(example, rng, {"inputs": 128}, _features(PassThroughVocabulary(500)))
    with pytest.raises(ValueError, match="needs task_feature_lengths"):
        span_corruption(example, rng, {}, few)
    with pytest.raises(ValueError, match="noise_density 1"):
        random_spans_noise_mask(10, rng, 1.0)
