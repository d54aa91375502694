import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdcd.contents import Bytes, Letters, Melody, Pieces, contents_of
from cdcd.vocabularies import LettersVocabulary
from musax.events.melody import STEPS_PER_BAR, MelodyVocabulary
from musax.notes import empty_notes, make_notes, notes_equal
from t5x.data.vocabularies import ByteVocabulary, PassThroughVocabulary, SentencePieceVocabulary
from tests.piece_model import write_piece_model

PLAIN = st.text("abc xyz", min_size=1, max_size=8)


# --------------------------------------------------------------------------------------------- text


@given(st.lists(st.tuples(PLAIN, st.integers(1, 4)), min_size=1, max_size=5))
def test_every_blank_is_one_symbol_and_the_rest_is_given(parts):
    text = "".join(part + "_" * blanks for part, blanks in parts)
    for contents in (Letters(), Bytes()):
        ids, noisy = contents.encode_blanks(text)
        normal = "".join(contents.normalise(part) + "_" * blanks for part, blanks in parts)
        assert [c == "_" for c in normal] == noisy.tolist()
        filled = np.where(noisy, contents.encode("z")[0], ids)
        assert contents.decode(filled) == normal.replace("_", "z")


@given(st.text(min_size=1))
def test_bytes_hold_any_text(text):
    assert Bytes().decode(Bytes().encode(text)) == text


def test_letters_are_normalised():
    letters = Letters()
    assert letters.decode(letters.encode("Été, 3 To_be!")) == "ete three to be "
    ids, noisy = letters.encode_blanks("Be ??, Not!", blank="?")
    assert letters.decode(np.where(noisy, letters.encode("q")[0], ids)) == "be qq not "


@pytest.mark.parametrize(
    ("text", "blank", "message"),
    [
        ("to be", "_", "no blanks; write a '_'"),
        ("", "_", "no blanks"),
        ("____", "_", "only blanks"),
        ("a__", "__", "blank='__': expected one character"),
        ("__ 你好", "_", "'.*你好' has symbols that the model does not know"),
    ],
)
def test_texts_that_cannot_be_filled_in(text, blank, message):
    with pytest.raises(ValueError, match=message):
        Letters().encode_blanks(text, blank)


@pytest.mark.parametrize(("text", "message"), [("", "prompt: empty"), ("你好", "does not know")])
def test_texts_without_symbols(text, message):
    with pytest.raises(ValueError, match=message):
        Letters().encode(text, "prompt")


def test_pieces(tmp_path):
    sentences = ["the cat sat on the mat", "the dog sat on the log"] * 20
    pieces = Pieces(write_piece_model(tmp_path / "small.model", sentences, 19))
    assert pieces.decode(pieces.encode("the cat sat")) == "the cat sat"
    with pytest.raises(ValueError, match="symbols that the model does not know"):
        pieces.encode("zebra")
    with pytest.raises(ValueError, match="of letters or bytes"):
        pieces.encode_blanks("the ___")
    assert contents_of(SentencePieceVocabulary(pieces.model)) == pieces


# ----------------------------------------------------------------------------------------- melodies

TUNE = make_notes([0.0, 0.5, 1.0, 2.5], [0.5, 0.75, 2.0, 3.5], [60, 64, 67, 72])


def test_a_melody_is_read_as_written_at_any_tempo():
    for tempo, rate in ((120.0, 8), (90.0, 6)):
        melody = Melody(tempo)
        assert melody.steps_per_second == rate
        slower = TUNE.copy()
        for name in ("onset", "offset"):
            slower[name] *= 120 / tempo
        ids = melody.encode(slower)
        assert len(ids) == 28
        assert notes_equal(melody.decode(ids), slower, 1e-9)
        np.testing.assert_array_equal(ids, Melody().encode(TUNE))


def test_far_notes_are_named_before_a_grid_is_made():
    far = make_notes([0.0, 1e7], [1.0, 1e7 + 1], 60)
    with pytest.raises(ValueError, match=r"notes: note 1 .* at most 6 are possible"):
        Melody().encode(far)


def test_whole_bars_end_with_the_last_note_silent():
    ids = Melody().encode(TUNE, whole_bars=True)
    assert len(ids) == 2 * STEPS_PER_BAR
    assert notes_equal(Melody().decode(ids), TUNE)
    full = make_notes([0.0], [4.0], [60])
    assert len(Melody().encode(full, whole_bars=True)) == 2 * STEPS_PER_BAR


def test_other_voices_do_not_lengthen_a_melody():
    drums = make_notes([9.0], [9.5], [38], is_drum=True)
    low = make_notes([9.0], [9.5], [5])
    together = np.concatenate([TUNE, drums, low])
    np.testing.assert_array_equal(Melody().encode(together), Melody().encode(TUNE))


@pytest.mark.parametrize(
    "notes", [empty_notes(), make_notes([0], [1], [38], is_drum=True), make_notes([0], [1], [3])]
)
def test_notes_without_a_melody(notes):
    with pytest.raises(ValueError, match=r"song\.mid: no notes of a melody; expected .* 21 to 108"):
        Melody().encode(notes, "song.mid")


def test_gaps_in_bars_and_seconds():
    melody = Melody(60.0)  # a bar lasts 4 s
    gap = melody.gap(64, bars=(2, 3))
    assert np.flatnonzero(gap).tolist() == list(range(16, 48))
    np.testing.assert_array_equal(melody.gap(64, seconds=(4, 12)), gap)
    assert melody.gap(20, bars=(2, 2)).sum() == 4  # of a last bar, what there is


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bars": (0, 2)}, "bars 0 to 2: expected bars of 1 to 4"),
        ({"bars": (3, 2)}, "bars 3 to 2"),
        ({"bars": (2, 5)}, "expected bars of 1 to 4"),
        ({"seconds": (2.0, 9.0)}, "expected begin and end, 0 to 8"),
        ({"seconds": (2.0, 2.01)}, "shorter than a step"),
        ({}, "either bars or seconds"),
        ({"bars": (1, 1), "seconds": (0, 1)}, "either bars or seconds"),
    ],
)
def test_gaps_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        Melody().gap(64, **options)


def test_a_tempo_is_positive():
    with pytest.raises(ValueError, match="tempo=0: expected a positive"):
        Melody(0)


def test_vocabularies_say_what_tokens_stand_for():
    found = [contents_of(v) for v in (MelodyVocabulary(), LettersVocabulary(), ByteVocabulary())]
    assert found == [Melody(), Letters(), Bytes()]
    with pytest.raises(ValueError, match=r"PassThroughVocabulary.*: expected the vocabulary of"):
        contents_of(PassThroughVocabulary(9))
