"""Batches that exceed the memory are refused before they are made."""

import numpy as np
import pytest

from t5x.data import (
    ByteVocabulary,
    ContinuousInputsEncDecFeatureConverter,
    DecoderFeatureConverter,
    EncDecFeatureConverter,
    Evaluator,
    Feature,
    LMFeatureConverter,
    PassThroughFeatureConverter,
    Task,
    get_dataset,
    memory,
)
from t5x.inference.data import BatchMaker

TOKENS = Feature(ByteVocabulary())
LENGTHS = {"inputs": 12, "targets": 20}
EXAMPLE = {name: np.arange(1, 5, dtype=np.int32) for name in LENGTHS}


def _task():
    source = {"train": [EXAMPLE], "validation": [EXAMPLE]}
    return Task("numbers", source, (), dict.fromkeys(LENGTHS, TOKENS), [lambda t, p: {}])


@pytest.mark.parametrize(
    ("converter", "lengths", "pack"),
    [
        (EncDecFeatureConverter, LENGTHS, False),
        (EncDecFeatureConverter, LENGTHS, True),
        (LMFeatureConverter, {"targets": 20}, True),
        (DecoderFeatureConverter, LENGTHS, False),
        (PassThroughFeatureConverter, LENGTHS, False),
    ],
)
def test_the_bytes_of_a_row_are_those_of_a_batch(converter, lengths, pack, monkeypatch):
    batches = get_dataset(_task(), lengths, feature_converter=converter, pack=pack, seed=0)
    size = sum(value.nbytes for value in next(batches).values())
    batches.close()
    monkeypatch.setattr(memory, "physical_memory", lambda: 3 * size)
    features = _task().output_features
    check = memory.check_batch_memory
    check(converter(pack=pack), lengths, 3, "numbers", features)
    with pytest.raises(ValueError, match=f"4 rows of numbers, of {size} bytes or more each"):
        check(converter(pack=pack), lengths, 4, "numbers", features)


def test_axes_without_a_length_count_once(monkeypatch):
    monkeypatch.setattr(memory, "physical_memory", lambda: 100)
    converter = ContinuousInputsEncDecFeatureConverter()
    with pytest.raises(ValueError, match=f"of {4 * (12 + 3 * 20)} bytes or more each"):
        memory.check_batch_memory(converter, LENGTHS, 1, "frames")


MESSAGE = (
    r"batch_size \(BATCH_SIZE\): 1000000000000 rows of \w+, .* lower it to far fewer than \d+ row"
)


def test_training_evaluation_and_inference_refuse_before_they_read():
    rows, converter = 10**12, EncDecFeatureConverter(pack=False)
    with pytest.raises(ValueError, match=MESSAGE):
        get_dataset(_task(), LENGTHS, "train", rows, feature_converter=converter)
    with pytest.raises(ValueError, match=MESSAGE):
        Evaluator(_task(), converter, batch_size=rows, sequence_length=LENGTHS)
    with pytest.raises(ValueError, match=MESSAGE):
        Evaluator(_task(), converter, batch_size=rows)
    with pytest.raises(ValueError, match=MESSAGE):
        BatchMaker(converter, LENGTHS, rows)
