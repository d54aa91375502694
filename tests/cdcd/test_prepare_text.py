"""The script that prepares text."""

import importlib.util
import re
from pathlib import Path

import pytest

from cdcd.text import normalise_text8, text_task
from t5x.examples.shakespeare.plays import HELD_OUT, load_plays

SCRIPT = Path(__file__).parents[2] / "scripts" / "prepare_text.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("prepare_text", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_works_are_held_out_whole(script, tmp_path, capsys):
    script.main(["--shakespeare", "--out", str(tmp_path)])
    names = {s: {p.stem for p in (tmp_path / s).iterdir()} for s in ("train", "validation", "test")}
    assert names["validation"] == {f"shakespeare-{name}" for name in HELD_OUT}
    assert len(names["test"]) == 3
    assert sum(map(len, names.values())) == len(set().union(*names.values())) == 42
    text = (tmp_path / "train" / "shakespeare-hamlet.txt").read_text()
    assert text == load_plays()["hamlet"]
    assert "test: 3 files, 416,508 bytes" in capsys.readouterr().out
    assert text_task(tmp_path, 64).splits == ("train", "validation", "test")


def test_no_paragraph_of_the_manual_is_in_two_splits(script, tmp_path):
    script.main(["--python-docs", "--out", str(tmp_path)])
    paragraphs = {
        split: {
            normalise_text8(paragraph).strip()
            for path in (tmp_path / split).iterdir()
            for paragraph in path.read_text().split("\n\n")
        }
        - {""}
        for split in ("train", "validation", "test")
    }
    assert sum(map(len, paragraphs.values())) == len(set().union(*paragraphs.values()))
    assert all(len(found) > 10 for found in paragraphs.values())
    assert len(paragraphs["train"]) > 1000


def test_letters(script, tmp_path):
    script.main(["--python-docs", "--letters", "--out", str(tmp_path)])
    texts = [path.read_text() for path in tmp_path.rglob("*.txt")]
    assert all(re.fullmatch("( ?[a-z]+)+ ?", text) for text in texts)
    assert sum(map(len, texts)) > 200_000


def test_something_has_to_be_chosen(script, tmp_path, capsys):
    with pytest.raises(SystemExit):
        script.main(["--out", str(tmp_path)])
    assert "give --shakespeare, --python-docs or both" in capsys.readouterr().err
