"""Vocabularies."""

import io
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from t5x.data.vocabularies import (
    ByteVocabulary,
    PassThroughVocabulary,
    SentencePieceVocabulary,
    TokenVocabulary,
    Vocabulary,
    text_vocabulary,
)
from tests.piece_model import write_piece_model


@pytest.mark.parametrize(
    "vocabulary", [PassThroughVocabulary(5), ByteVocabulary(), TokenVocabulary(5)]
)
def test_protocol(vocabulary):
    assert isinstance(vocabulary, Vocabulary)
    assert vocabulary.pad_id == 0
    assert vocabulary == vocabulary
    assert hash(vocabulary) == hash(vocabulary)


def test_pass_through():
    vocabulary = PassThroughVocabulary(100, eos_id=9)
    assert vocabulary.vocab_size == 100
    assert vocabulary.encode([3, 9]) == [3, 9]
    assert vocabulary.decode(np.array([3, 200, 9, 4])) == [3, 200, 9]
    assert PassThroughVocabulary(3).decode([3, 1, 0]) == [3, 1, 0]
    assert vocabulary != PassThroughVocabulary(100)


@given(st.text())
def test_bytes_round_trip(text):
    vocabulary = ByteVocabulary(extra_ids=4)
    ids = vocabulary.encode(text)
    assert vocabulary.decode(ids) == text
    assert vocabulary.decode([*ids, 1, 70, 0]) == text
    assert vocabulary.encode(text.encode()) == ids


def test_bytes_skip_what_is_no_text():
    vocabulary = ByteVocabulary(extra_ids=4)
    assert vocabulary.vocab_size == 263
    assert vocabulary.decode([0, 2, 68, 259, 262]) == "A"
    assert vocabulary.decode([3 + 0xC3, 68]) == "A"


@given(st.lists(st.integers(0, 9)))
def test_tokens_round_trip(ids):
    vocabulary = TokenVocabulary(10, extra_ids=3)
    assert vocabulary.decode(vocabulary.encode(ids)) == ids


def test_token_decoding_rules():
    vocabulary = TokenVocabulary(10, extra_ids=3)
    assert vocabulary.vocab_size == 16
    assert vocabulary.eos_id == 1
    assert vocabulary.encode([0, 9]) == [3, 12]
    assert vocabulary.decode([3, 12, 13, 15, 0, 2, 99, 1, 4]) == [0, 9, -2, -2, -2, -2, -2, -1]
    rows = np.array([[3, 1, 4, 0], [13, -4, 2, 12]])
    assert vocabulary.decode_array(rows).tolist() == [[0, -1, -1, -1], [-2, -2, -2, 9]]
    for bad in ([10], [-1]):
        with pytest.raises(ValueError, match=r"outside \[0, 10\)"):
            vocabulary.encode(bad)


@pytest.fixture(scope="module")
def piece_model(tmp_path_factory):
    text = [f"the quick brown fox number {i} jumps over the lazy dog" for i in range(50)]
    path = tmp_path_factory.mktemp("pieces") / "text.model"
    write_piece_model(path, text, 40)
    return path


def test_sentence_pieces(piece_model):
    vocabulary = SentencePieceVocabulary(str(piece_model), extra_ids=5)
    assert vocabulary.vocab_size == 45
    assert (vocabulary.pad_id, vocabulary.eos_id, vocabulary.unk_id) == (0, 1, 2)
    ids = vocabulary.encode("the lazy fox")
    assert vocabulary.decode([*ids, 1, 7, 8]) == "the lazy fox"
    assert vocabulary.encode(b"the lazy fox") == ids
    marked = vocabulary.encode("the <extra_id_0> fox <extra_id_4>")
    assert [i for i in marked if i >= 40] == [44, 40]
    upwards = SentencePieceVocabulary(str(piece_model), 5, reverse_extra_ids=False)
    assert upwards.encode("<extra_id_0>") == [40]
    assert pickle.loads(pickle.dumps(vocabulary)) == vocabulary != upwards
    assert vocabulary.decode([99]) == vocabulary.decode([2])


def test_bad_piece_models_are_named(tmp_path):
    pytest.importorskip("sentencepiece")
    with pytest.raises(ValueError, match=r"nothing\.model: No such file"):
        SentencePieceVocabulary(str(tmp_path / "nothing.model")).encode("a")
    (tmp_path / "bad.model").write_bytes(b"text")
    with pytest.raises(ValueError, match=r"bad\.model: not a SentencePiece model"):
        SentencePieceVocabulary(str(tmp_path / "bad.model")).encode("a")


def test_vocabularies_of_text(piece_model, tmp_path):
    sentencepiece = pytest.importorskip("sentencepiece")
    assert text_vocabulary("bytes") == ByteVocabulary()
    assert text_vocabulary(str(piece_model)).vocab_size == 40
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["to be or not to be"] * 9), model_writer=model, vocab_size=11
    )
    (tmp_path / "other.model").write_bytes(model.getvalue())
    with pytest.raises(ValueError, match=r"other\.model: EOS has id 2.*--eos_id=1"):
        text_vocabulary(str(tmp_path / "other.model"))


@pytest.mark.parametrize("extra_ids", [0, 7])
def test_vocabularies_equal_seqios(piece_model, extra_ids):
    seqio = pytest.importorskip("seqio")
    pairs = [
        (ByteVocabulary(extra_ids), seqio.ByteVocabulary(extra_ids)),
        (
            SentencePieceVocabulary(str(piece_model), extra_ids),
            seqio.SentencePieceVocabulary(str(piece_model), extra_ids),
        ),
    ]
    texts = ["the quick fox", "", "Ünknown — ☃", "a <extra_id_0> b <extra_id_3>"]
    rng = np.random.default_rng(0)
    for ours, theirs in pairs:
        for name in ("vocab_size", "eos_id", "unk_id", "pad_id", "extra_ids"):
            assert getattr(ours, name) == getattr(theirs, name), name
        for text in texts:
            assert list(ours.encode(text)) == list(theirs.encode(text))
        for _ in range(20):
            ids = rng.integers(0, ours.vocab_size + 5, 12).tolist()
            assert ours.decode(ids) == theirs.decode(ids)
