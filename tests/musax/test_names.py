"""Files whose names are unusual, through verbs, audio and pictures."""

import io
import os
import sys
import warnings

import numpy as np
import pytest

from musax import cli, plots
from musax.audio import audio_info, load_audio, save_audio
from musax.midi import load_midi, save_midi
from musax.notes import make_notes
from tests import tiny_drum_model as tiny

NAMES = [
    "~take",
    os.fsdecode(b"caf\xe9"),
    "日本語" * 27 + "日本",  # 83 characters, 249 bytes
    "a $x_1^$ b",
    "two  words\n",
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(tiny.save_tiny_model(tmp_path_factory.mktemp("models") / "tiny-drums"))


@pytest.mark.parametrize("name", NAMES, ids=["tilde", "latin-1", "long", "maths", "spaces"])
def test_recordings_of_any_name_are_transcribed_and_rendered(
    model, tmp_path, monkeypatch, capsys, name
):
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    save_audio(f"{name}.wav", tiny.clicks(1.0), tiny.RATE)
    options = ["--model", model, "--threshold", "0.05", "--format", "mid,json,png"]
    assert cli.main(["drums", f"{name}.wav", *options]) == 0
    assert len(load_midi(f"{name}.mid"))
    assert cli.main(["render", f"{name}.mid", "-o", f"{name}.flac"]) == 0
    assert audio_info(f"{name}.flac").sample_rate == 44100
    written = {path.name for path in tmp_path.iterdir()}
    assert written == {f"{name}.{suffix}" for suffix in ("wav", "mid", "json", "png", "flac")}
    assert capsys.readouterr().err.count("drawn as boxes") <= 1


def test_a_tilde_in_front_of_a_file_is_a_letter(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_audio("~take.wav", np.zeros(100, np.float32), 8000)
    assert load_audio("~take.wav")[1] == 8000
    assert (tmp_path / "~take.wav").is_file()


def test_names_reach_an_output_that_lacks_their_letters(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = os.fsdecode(b"\xff") + "日"
    save_midi(f"{name}.mid", make_notes([0.0], [0.2], 60))
    output = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="strict")
    monkeypatch.setattr(sys, "stdout", output)
    assert cli.main(["render", f"{name}.mid"]) == 0
    assert b"-> \\udcff\\u65e5.wav" in output.buffer.getvalue()


def test_a_name_that_is_too_long_is_refused_before_any_work(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    name = "x" * 250
    save_midi(f"{name}.mid", make_notes([0.0], [0.2], 60))
    assert cli.main(["render", f"{name}.mid", "--format", "wav,flac"]) == 0
    (tmp_path / "sub").mkdir()
    save_midi(f"sub/{name}.mid", make_notes([0.0], [0.2], 60))
    capsys.readouterr()
    (tmp_path / "out").mkdir()
    assert cli.main(["render", f"{name}.mid", f"sub/{name}.mid", "-o", "out"]) == 2
    assert "bytes, expected 255 at most; choose a shorter one" in capsys.readouterr().err
    assert not list((tmp_path / "out").iterdir())


def test_missing_glyphs_are_one_warning(tmp_path):
    pytest.importorskip("matplotlib")
    figure = plots.plot_piano_roll(make_notes([0.0], [0.5], 60), title="日本語の音 $1 $2")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        plots.save_figure(figure, tmp_path / "x.png")
    (warning,) = caught
    assert "lacks 5 of the characters of names (日本語の音)" in str(warning.message)


def test_titles_are_literal_and_short():
    assert plots.plain_text("a $x^$ b") == r"a \$x^\$ b"
    assert plots.plain_text(os.fsdecode(b"\xff\n")) == "\N{REPLACEMENT CHARACTER}" * 2
    assert len(plots.plain_text("日" * 200)) == 79
