import functools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdcd.melodies import melody_task, vary_pitch
from musax.datasets.pieces import Piece
from musax.events.melody import MelodyVocabulary, melody_to_notes, transpositions
from musax.midi import save_midi
from musax.notes import empty_notes, make_notes
from tests.cdcd.batches import rows

VOCABULARY = MelodyVocabulary()


def melody(seed):
    """64 bars of scales with rests, on the grid of lakh64."""
    rng = np.random.default_rng(seed)
    onset = np.flatnonzero(rng.random(1024) < 0.3)
    pitch = 60 + np.cumsum(rng.integers(-2, 3, len(onset))) % 24
    offset = np.minimum(onset + rng.integers(1, 6, len(onset)), np.append(onset[1:], 1024))
    return make_notes(onset / 8, offset / 8, pitch)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A folder as lakh64's: five melodies for training, and four others, of which one is silent."""
    folder = tmp_path_factory.mktemp("lakh64")
    for split, seeds in (("train", range(5)), ("valid", range(10, 14))):
        (folder / "samples" / split / "melody").mkdir(parents=True)
        for seed in seeds:
            notes = empty_notes() if seed == 10 else melody(seed)
            save_midi(folder / "samples" / split / "melody" / f"{seed}.mid", notes)
    return str(folder)


def test_windows_are_the_melodies(corpus):
    task = melody_task(corpus, purpose="evaluate")
    for split, seeds in (("train", range(5)), ("validation", [11]), ("test", [12, 13])):
        found = np.concatenate(rows(task, 256, split))
        tokens = VOCABULARY.decode_array(found).reshape(-1, 1024)
        assert len(tokens) == len(seeds)
        for row, seed in zip(tokens, seeds):
            notes, wanted = melody_to_notes(row, 8), melody(seed)
            for name in ("onset", "offset", "pitch"):
                np.testing.assert_array_equal(notes[name], wanted[name])


def test_crops_begin_at_bars_and_are_transposed(corpus):
    windows = rows(melody_task(corpus, 16, purpose="evaluate"), 16)
    bars = {shape(row): row for row in windows}
    found = rows(melody_task(corpus, 32), 32, num_epochs=3)
    shifts = []
    for row in found:
        assert shape(row[:16]) in bars
        assert shape(row[16:]) in bars
        notes = row[:16] > 4
        shifts += (row[:16] - bars[shape(row[:16])])[notes][:1].tolist()
    assert len(found) == 3 * 5 * 32
    assert set(range(-5, 7)) <= set(shifts)
    plain = rows(melody_task(corpus, 32, transpose=(0, 0)), 32)
    assert {row[:16].tobytes() for row in plain} <= {row.tobytes() for row in windows}


def shape(tokens):
    """What does not change when a melody is transposed."""
    steps = np.diff(tokens[tokens > 4])
    return (*np.minimum(tokens, 5).tolist(), *steps.tolist())


@given(st.lists(st.integers(0, 89), max_size=9), st.integers(-12, 0), st.integers(0, 12))
def test_transpositions_that_fit_are_all_drawn(tokens, least, greatest):
    example = {"targets": VOCABULARY.encode_array(tokens)}
    low, high = transpositions(np.array(tokens, int))
    found = set()
    for seed in range(200):
        varied = vary_pitch(example, np.random.default_rng(seed), (least, greatest))["targets"]
        assert varied.dtype == np.int32
        shift = varied - example["targets"]
        notes = example["targets"] >= 5
        assert not shift[~notes].any()
        found |= set(shift[notes].tolist())
        assert varied.min(initial=3) >= 3
        assert varied.max(initial=3) <= 92
    if max(tokens, default=0) >= 2:
        assert found == set(range(max(low, least), min(high, greatest) + 1))


def test_parts_are_disjoint_and_together_all(corpus):
    def windows(**options):
        return {r.tobytes() for r in rows(melody_task(corpus, purpose="evaluate", **options), 256)}

    even, odd = (windows(train_part=(i, 2)) for i in range(2))
    assert (len(even), len(odd)) == (12, 8)
    assert even | odd == windows()


def test_other_readers():
    def reader(directory, split):
        assert directory == "here"
        return [Piece("a", functools.partial(make_notes, [0.0, 1.0], [0.5, 2.0], [60, 61]))]

    task = melody_task("here", 16, reader=reader, steps=20, steps_per_second=4, purpose="evaluate")
    (row,) = rows(task, 16)
    assert (row - 3).tolist() == [41, 0, 1, 0, 42, 0, 0, 0, 1, *[0] * 7]


def test_what_does_not_fit_is_named(corpus, tmp_path):
    for options, message in (
        ({"length": 100}, "length=100: expected a multiple of 16"),
        ({"transpose": (1, 3)}, r"transpose=\(1, 3\)"),
        ({"train_part": (3, 2)}, r"train_part=\(3, 2\)"),
        ({"purpose": "listen"}, "purpose='listen'"),
    ):
        with pytest.raises(ValueError, match=message):
            melody_task(corpus, **options)
    with pytest.raises(FileNotFoundError, match=r"samples/train/melody/\*\.mid"):
        melody_task(str(tmp_path)).sequence("train")
