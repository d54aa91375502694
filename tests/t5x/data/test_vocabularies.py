"""Vocabularies."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from t5x.data.vocabularies import (
    ByteVocabulary,
    PassThroughVocabulary,
    TokenVocabulary,
    Vocabulary,
)


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
