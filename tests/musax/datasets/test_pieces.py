import json

import numpy as np
import pytest

from musax.datasets import pieces
from musax.midi import save_midi
from musax.notes import make_notes


@pytest.fixture
def pop909_folder(tmp_path):
    for number in (1, 800, 801, 830, 831, 909):
        folder = tmp_path / f"{number:03d}"
        folder.mkdir()
        save_midi(folder / f"{number:03d}.mid", make_notes([0.0], [1.0], [60]))
    return tmp_path


def test_pop909_splits_by_song(pop909_folder):
    names = {
        split: [p.name for p in pieces.pop909(pop909_folder, split)] for split in pieces.SPLITS
    }
    assert names == {"train": ["001", "800"], "valid": ["801", "830"], "test": ["831", "909"]}
    assert pieces.pop909(pop909_folder, "train")[0].load()["pitch"].tolist() == [60]


def test_lakh64_splits_do_not_overlap(tmp_path):
    for folder, count in (("train", 2), ("valid", 4)):
        (tmp_path / "samples" / folder / "trio").mkdir(parents=True)
        for i in range(count):
            path = tmp_path / "samples" / folder / "trio" / f"{folder}_{i}.mid"
            save_midi(path, make_notes([0.0], [1.0], [60 + i]))
    names = [p.name for split in pieces.SPLITS for p in pieces.lakh64_trios(tmp_path, split)]
    assert sorted(names) == sorted(set(names))
    assert len(names) == 6


def test_chorales_hold_equal_neighbours(tmp_path):
    grid = [[60, 48], [60, -1], [62, 48], [62, 48]]
    content = {"train": [grid], "valid": [], "test": []}
    (tmp_path / "Jsb16thSeparated.json").write_text(json.dumps(content))
    (piece,) = pieces.jsb_chorales(tmp_path, "train")
    notes = piece.load()
    step = 0.15
    np.testing.assert_allclose(notes["onset"] / step, [0, 0, 2, 2])
    np.testing.assert_allclose((notes["offset"] - notes["onset"]) / step, [1, 2, 2, 2])
    assert notes["pitch"].tolist() == [48, 60, 48, 62]


@pytest.mark.parametrize("reader", [pieces.pop909, pieces.lakh64_trios, pieces.jsb_chorales])
def test_wrong_folder_or_split_is_named(reader, tmp_path):
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        reader(tmp_path, "train")
    with pytest.raises(ValueError, match=r"'dev'.*train, valid, test"):
        reader(tmp_path, "dev")
