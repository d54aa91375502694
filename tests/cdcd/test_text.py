"""Text tasks, on plays of Shakespeare."""

import lzma
import pickle
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdcd.text import TEXT8_SIZE, normalise_text8, text8_task, text_task, vocabulary_of
from cdcd.vocabularies import LettersVocabulary
from t5x.data.examples import task_examples
from t5x.data.vocabularies import ByteVocabulary
from t5x.examples.shakespeare.plays import load_plays
from tests.cdcd.batches import batches, rows
from tests.piece_model import write_piece_model

SIZE = 2000  # bytes taken of a play
LETTERS, BYTES = LettersVocabulary(), ByteVocabulary()


@pytest.fixture(scope="module")
def plays(tmp_path_factory):
    """The beginnings of five plays, one of them packed."""
    folder = tmp_path_factory.mktemp("plays")
    for name in ("hamlet", "kinglear", "macbeth", "othello"):
        (folder / f"{name}.txt").write_text(load_plays()[name][:SIZE])
    (folder / "tempest.txt.xz").write_bytes(lzma.compress(load_plays()["tempest"][:SIZE].encode()))
    return folder


def task_of(plays, length=32, vocabulary="letters", **options):
    options = {"validation_files": ["macbeth.txt"]} | options
    return text_task(plays, length, vocabulary, **options)


# ----------------------------------------------------------------------------- normalisation


@pytest.mark.parametrize(
    ("text", "normalised"),
    [
        ("The Café,\nin 1942!", "the cafe in one nine four two "),
        ("don't", "don t"),
        ("  ÅNGSTRÖM ﬁne", " angstrom fine"),
        ("日本 ß", " "),
        ("", ""),
    ],
)
def test_normalised_text(text, normalised):
    assert normalise_text8(text) == normalised


@given(st.text() | st.text("aZ é\n\u03010١Ⅷ"))
def test_normalising_again_changes_nothing(text):
    normalised = normalise_text8(text)
    assert re.fullmatch("( ?[a-z]+)* ?", normalised)
    assert normalise_text8(normalised) == normalised
    assert LETTERS.decode(LETTERS.encode(normalised)) == normalised


# ------------------------------------------------------------------------------------ files


@pytest.mark.parametrize(
    ("name", "vocabulary", "prepare"),
    [("letters", LETTERS, normalise_text8), ("bytes", BYTES, str)],
)
def test_crops_are_passages_of_the_plays(plays, name, vocabulary, prepare):
    names = ("hamlet", "kinglear", "othello", "tempest")
    texts = [prepare(load_plays()[name][:SIZE]) for name in names]
    found = [vocabulary.decode(row) for row in rows(task_of(plays, vocabulary=name), 32)]
    places = [next(i for i, text in enumerate(texts) if crop in text) for crop in found]
    assert set(places) == {0, 1, 2, 3}
    assert all(len(crop) == 32 for crop in found)
    assert abs(len(found) - sum(map(len, texts)) / 32) <= 4


@pytest.mark.parametrize(
    ("name", "vocabulary", "prepare"),
    [("letters", LETTERS, normalise_text8), ("bytes", BYTES, str)],
)
def test_windows_are_the_whole_play(plays, name, vocabulary, prepare):
    task = task_of(plays, vocabulary=name, purpose="evaluate")
    text = prepare(load_plays()["macbeth"][:SIZE])
    found = "".join(vocabulary.decode(row) for row in rows(task, 32, "validation"))
    assert found == text[: len(text) // 32 * 32]
    assert task.splits == ("train", "validation")


def test_pieces(plays, tmp_path):
    sentences = load_plays()["hamlet"][:20_000].splitlines()
    name = write_piece_model(tmp_path / "plays.model", sentences, 300)
    task = task_of(plays, vocabulary=name, purpose="evaluate")
    ids = vocabulary_of(name).encode(load_plays()["macbeth"][:SIZE])
    found = np.concatenate(rows(task, 32, "validation"))
    assert max(ids) > 255
    assert found.tolist() == ids[: len(found)]
    assert len(ids) - len(found) < 32


@pytest.mark.parametrize("vocabulary", ["letters", "bytes"])
def test_parts_are_disjoint_and_together_all(plays, vocabulary):
    def texts(**options):
        task = task_of(plays, vocabulary=vocabulary, purpose="evaluate", **options)
        return {row.tobytes() for row in rows(task, 32)}, rows(task, 32, "validation")

    whole, validation = texts()
    parts = [texts(train_part=(i, 3)) for i in range(3)]
    assert set().union(*(part for part, _ in parts)) == whole
    assert sum(len(part) for part, _ in parts) == len(whole)
    assert all(len(part) > 0 for part, _ in parts)
    for _, same in parts:
        np.testing.assert_array_equal(same, validation)


@pytest.mark.parametrize("vocabulary", ["letters", "bytes"])
def test_workers_get_the_same(plays, vocabulary):
    sequence = task_of(plays, vocabulary=vocabulary).sequence("train")
    sent = pickle.dumps(sequence)
    assert len(sent) < 20_000
    again = pickle.loads(sent)
    np.testing.assert_array_equal(again[7]["targets"], sequence[7]["targets"])


def test_training_goes_on_in_another_order(plays):
    options = {"shuffle": True, "num_epochs": None, "batch_size": 4, "seed": 3}
    first, again = (batches(task_of(plays), 32, **options) for _ in range(2))
    for _ in range(70):
        np.testing.assert_array_equal(
            next(first)["decoder_target_tokens"], next(again)["decoder_target_tokens"]
        )
    again.set_state(first.get_state())
    np.testing.assert_array_equal(
        next(first)["decoder_target_tokens"], next(again)["decoder_target_tokens"]
    )


# ------------------------------------------------------------------------------------ text8


@pytest.fixture(scope="module")
def text8(tmp_path_factory):
    """A file of text8's size with letters at the beginning of each split, zeros elsewhere."""
    path = tmp_path_factory.mktemp("text8") / "text8"
    with path.open("wb") as file:
        for place, text in ((0, "train"), (45, "half"), (90, "valid"), (95, "test")):
            file.seek(place * 1_000_000)
            file.write(text.encode() * 8)
        file.truncate(TEXT8_SIZE)
    return str(path)


def test_splits_of_text8(text8):
    task = text8_task(text8, 16, purpose="evaluate")
    assert task.num_input_examples("train") == 90_000_000 // 16
    assert task.num_input_examples("test") == 5_000_000 // 16

    def first(task, split):
        return LETTERS.decode(next(task_examples(task, split, {"targets": 16}))["targets"])

    assert first(task, "train") == "traintraintraint"
    assert first(task, "validation") == "validvalidvalidv"
    assert first(task, "test") == "testtesttesttest"
    second_half = text8_task(text8, 16, purpose="evaluate", train_part=(1, 2))
    assert first(second_half, "train") == "halfhalfhalfhalf"
    assert second_half.num_input_examples("train") == 45_000_000 // 16
    assert len(pickle.dumps(text8_task(text8, 4096).sequence("train")._sequences)) < 1000


def test_what_is_not_text8_is_named(text8, tmp_path):
    with pytest.raises(
        ValueError, match=r"text8, bytes 95000032 to 95000048: character '\\x00' is neither"
    ):
        rows(text8_task(text8, 16, purpose="evaluate"), 16, "test")
    (tmp_path / "short").write_text("abc")
    with pytest.raises(ValueError, match=r"short: 3 bytes, but text8 has 100000000"):
        text8_task(str(tmp_path / "short"), 16).sequence("test")
    with pytest.raises(FileNotFoundError, match="none"):
        text8_task(str(tmp_path / "none"), 16).sequence("test")


# ----------------------------------------------------------------------------------- errors


def test_what_does_not_fit_is_named(plays, tmp_path):
    with pytest.raises(ValueError, match=r"vocabulary='words': expected 'letters', 'bytes' or"):
        task_of(plays, vocabulary="words")
    with pytest.raises(ValueError, match=r"train_part=\(2, 2\)"):
        task_of(plays, train_part=(2, 2))
    with pytest.raises(ValueError, match="0 sequences of at most 0 tokens"):
        task_of(plays, train_part=(4, 5)).sequence("train")
    with pytest.raises(FileNotFoundError, match=r"no file below it ends in \.txt"):
        text_task(tmp_path, 8).sequence("train")
    (tmp_path / "a.txt").write_text("")
    (tmp_path / "b.txt").write_bytes("Café".encode("latin-1"))
    task = text_task(tmp_path, 2, validation_files=["a.txt"])
    with pytest.raises(ValueError, match="'validation': 1 sequences of at most 0 tokens"):
        task.sequence("validation")
    with pytest.raises(ValueError, match=r"b\.txt: not UTF-8"):
        task.sequence("train")
