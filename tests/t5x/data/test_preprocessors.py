"""How preprocessors are called, and those that exist."""

import functools

import numpy as np
import pytest

from t5x.data import ByteVocabulary, Feature, PassThroughVocabulary
from t5x.data.preprocessors import (
    PreprocessorChain,
    append_eos,
    append_eos_after_trim,
    injected_parameters,
    rekey,
    tokenize,
)

FEATURES = {
    "inputs": Feature(PassThroughVocabulary(10, eos_id=1), add_eos=False),
    "targets": Feature(PassThroughVocabulary(10, eos_id=1)),
}


def test_parameters_are_found_by_name():
    def every(example, rng, sequence_length, output_features, other=1):
        return example

    class Callable:
        def __call__(self, example, rng):
            return example

    assert injected_parameters(every) == ("rng", "sequence_length", "output_features")
    assert injected_parameters(functools.partial(every, rng=3)) == (
        "sequence_length",
        "output_features",
    )
    assert injected_parameters(Callable()) == ("rng",)
    assert injected_parameters(lambda example: example) == ()


def test_rng_depends_on_seed_epoch_index_and_step():
    def draw(example, rng):
        return {**example, "draws": [*example["draws"], rng.integers(2**40)]}

    def run(seed, epoch, index):
        chain = PreprocessorChain([draw, draw], FEATURES, None, seed)
        return chain({"draws": []}, epoch, index)[0]["draws"]

    draws = [d for key in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)] for d in run(*key)]
    assert len(set(draws)) == 8
    assert run(0, 1, 0) == run(0, 1, 0)


def test_one_example_becomes_none_one_or_many():
    def split(example):
        for i in range(example["n"]):
            yield {"n": i}

    chain = PreprocessorChain([split, lambda e: [e, e] if e["n"] else None], FEATURES, None, 0)
    assert chain({"n": 3}, 0, 0) == [{"n": 1}, {"n": 1}, {"n": 2}, {"n": 2}]
    assert chain({"n": 1}, 0, 0) == []
    wrong = PreprocessorChain([lambda e: 3], FEATURES, None, 0)
    with pytest.raises(TypeError, match="returned int; expected an example"):
        wrong({}, 0, 0)


def test_tokenize_and_eos():
    features = {"targets": Feature(ByteVocabulary())}
    example = tokenize({"targets": "AB", "id": 3}, features)
    assert example["targets"].tolist() == [68, 69]
    assert example["targets_pretokenized"] == "AB"
    assert append_eos(example, features)["targets"].tolist() == [68, 69, 1]
    assert "targets_pretokenized" not in tokenize({"targets": "A"}, features, False)


def test_eos_after_trim():
    example = {"inputs": np.arange(5), "targets": np.arange(2, 7)}
    ended = append_eos_after_trim(example, FEATURES, {"inputs": 2, "targets": 4})
    assert ended["inputs"].tolist() == [0, 1, 2, 3, 4]
    assert ended["targets"].tolist() == [2, 3, 4, 1]
    assert append_eos_after_trim(example, FEATURES)["targets"].tolist() == [2, 3, 4, 5, 6, 1]


def test_rekey():
    assert rekey({"a": 1, "b": 2}, {"inputs": "a", "targets": None}) == {"inputs": 1, "targets": ""}
