"""`musax prepare text`."""

import re

import pytest

from cdcd.text import normalise_text8, text_task
from musax import cli
from t5x.examples.shakespeare.plays import HELD_OUT, load_plays


@pytest.fixture
def prepare(tmp_path):
    def run(*options):
        return cli.main(["prepare", "text", *options, "-o", str(tmp_path)])

    return run


def test_works_are_held_out_whole(prepare, tmp_path, capsys):
    assert prepare("--shakespeare") == 0
    names = {s: {p.stem for p in (tmp_path / s).iterdir()} for s in ("train", "validation", "test")}
    assert names["validation"] == {f"shakespeare-{name}" for name in HELD_OUT}
    assert len(names["test"]) == 3
    assert sum(map(len, names.values())) == len(set().union(*names.values())) == 42
    text = (tmp_path / "train" / "shakespeare-hamlet.txt").read_text()
    assert text == load_plays()["hamlet"]
    assert "test: 3 files of shakespeare, 416,508 bytes" in capsys.readouterr().out
    assert text_task(tmp_path, 64).splits == ("train", "validation", "test")


def test_no_paragraph_of_the_manual_is_in_two_splits(prepare, tmp_path):
    assert prepare("--python-docs") == 0
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


def test_letters(prepare, tmp_path):
    assert prepare("--python-docs", "--letters") == 0
    texts = [path.read_text() for path in tmp_path.rglob("*.txt")]
    assert all(re.fullmatch("( ?[a-z]+)+ ?", text) for text in texts)
    assert sum(map(len, texts)) > 200_000


def test_something_has_to_be_chosen(prepare, tmp_path, capsys):
    assert prepare() == 2
    assert not list(tmp_path.iterdir())
    assert "give --shakespeare, --python-docs or both" in capsys.readouterr().err
