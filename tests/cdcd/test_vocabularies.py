import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdcd.translation.pronunciation import SPELLING, phoneme_vocabulary
from cdcd.vocabularies import TEXT8_SYMBOLS, LettersVocabulary, SymbolVocabulary
from t5x.data.vocabularies import Vocabulary

LETTERS = LettersVocabulary()


@given(st.text(TEXT8_SYMBOLS), st.lists(st.integers(0, 40)))
def test_letters_round_trip(text, after):
    ids = LETTERS.encode(text)
    assert LETTERS.decode(ids) == text
    assert LETTERS.decode([*ids, 1, *after]) == text
    data = np.frombuffer(text.encode(), np.uint8)
    np.testing.assert_array_equal(LETTERS.encode_bytes(data), ids)
    assert LETTERS.encode_bytes(data).dtype == np.int32


def test_ids():
    assert LETTERS.vocab_size == 30
    assert LETTERS.encode(" az") == [3, 4, 29]
    assert LETTERS.decode([0, 2, 30, 99, 4]) == "a"


@pytest.mark.parametrize("stress", [False, True])
def test_phonemes_round_trip(stress):
    vocabulary = phoneme_vocabulary(stress)
    assert vocabulary.vocab_size == 3 + (69 if stress else 39)
    everything = " ".join(vocabulary.symbols)
    assert vocabulary.encode(everything) == list(range(3, vocabulary.vocab_size))
    assert vocabulary.decode(range(3, vocabulary.vocab_size)) == everything
    assert vocabulary.encode("") == []


@pytest.mark.parametrize(
    "vocabulary", [LETTERS, phoneme_vocabulary(), SymbolVocabulary(SPELLING)], ids=str
)
def test_vocabularies_can_be_compared_and_sent(vocabulary):
    assert isinstance(vocabulary, Vocabulary)
    again = pickle.loads(pickle.dumps(vocabulary))
    assert again == vocabulary != SymbolVocabulary("ab")
    assert hash(again) == hash(vocabulary)


def test_what_is_no_symbol_is_named():
    with pytest.raises(ValueError, match=r"'T' is neither a space.*normalise_text8"):
        LETTERS.encode("The")
    with pytest.raises(ValueError, match=r"'<' is neither"):
        LETTERS.encode_bytes(np.frombuffer(b"a <b>", np.uint8))
    with pytest.raises(ValueError, match=r"'AH0' is not a known symbol: expected AA AE"):
        phoneme_vocabulary().encode("HH AH0")
    with pytest.raises(ValueError, match="expected each once"):
        SymbolVocabulary("aba")
