import json
import shutil

import numpy as np
import pytest

from musax import cli
from musax.audio import load_audio, save_audio
from musax.midi import load_midi
from tests import tiny_drum_model as tiny
from tests.tiny_drums import write_kit


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(tiny.save_tiny_model(tmp_path_factory.mktemp("models") / "tiny-drums"))


@pytest.fixture
def loop(tmp_path):
    path = tmp_path / "loop.wav"
    save_audio(path, tiny.clicks(3.0), tiny.RATE)
    return path


def drums(*arguments):
    return cli.main(["drums", "--threshold", "0.05", *map(str, arguments)])


def test_one_file_and_everything_beside_it(model, loop, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    kit = write_kit(tmp_path / "kit")
    out = tmp_path / "out" / "groove.mid"
    out.parent.mkdir()
    formats = ["--format", "csv,json", "--plot", "--render"]
    options = [*formats, "--kit", kit, "--tempo", "100", "--map", "gm"]
    assert drums(loop, "-o", out, "--model", model, *options) == 0
    assert {p.name for p in out.parent.iterdir()} == {
        f"groove.{suffix}" for suffix in ("mid", "csv", "json", "png", "wav")
    }
    notes = load_midi(out)
    assert len(notes) > 5
    assert notes["is_drum"].all()
    assert notes["velocity"].min() >= 1
    assert len(json.loads((out.parent / "groove.json").read_text())["notes"]) == len(notes)
    audio, rate = load_audio(out.parent / "groove.wav")
    assert rate == 44100
    assert 0.9 < np.abs(audio).max() <= 1.0
    assert "hits in 0:03 of audio" in capsys.readouterr().out


def test_a_folder_beside_itself_and_no_overwriting(model, loop, tmp_path, capsys):
    shutil.copy(loop, tmp_path / "second.wav")
    arguments = [tmp_path, "--model", model, "--tempo", "none", "--classes", "3-hit"]
    assert drums(*arguments) == 0
    assert set(load_midi(tmp_path / "second.mid")["pitch"]) <= {36, 38, 42}
    assert drums(*arguments) == 1
    assert "exists already" in capsys.readouterr().err
    assert drums(*arguments, "--overwrite", "-q") == 0


def test_the_tempo_is_estimated(model, loop, capsys):
    assert drums(loop, "--model", model) == 0
    assert " bpm" in capsys.readouterr().out


def test_an_estimate_that_fails_loses_nothing(model, loop, capsys, monkeypatch):
    def fail(notes, **options):
        raise MemoryError

    monkeypatch.setattr("musax.tempo.estimate_tempo", fail)
    assert drums(loop, "--model", model) == 0
    assert "the tempo could not be estimated (MemoryError" in capsys.readouterr().err
    assert len(load_midi(loop.with_suffix(".mid")))


def test_a_picture_that_fails_loses_no_notes(model, loop, capsys, monkeypatch):
    pytest.importorskip("matplotlib")

    def fail(figure, path):
        raise MemoryError

    monkeypatch.setattr("musax.plots.save_figure", fail)
    picture = loop.with_name("groove.png")
    assert drums(loop, "--model", model, "-o", picture, "--format", "mid,csv") == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "out of memory" in error
    assert not picture.exists()
    assert len(load_midi(loop.with_name("groove.mid")))
    assert loop.with_name("groove.csv").is_file()


def test_silence_is_said_and_written(model, tmp_path, capsys):
    save_audio(tmp_path / "silence.wav", np.zeros(tiny.RATE, np.float32), tiny.RATE)
    assert drums(tmp_path / "silence.wav", "--model", model) == 0
    assert "silent" in capsys.readouterr().out
    assert len(load_midi(tmp_path / "silence.mid")) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--render", "--kit", "NoSuchKit"], "NoSuchKit"),
        (["--kit", "GMRockKit"], "--kit: only audio needs it; add --render"),
        (["--model", "no-such-model"], "no such model or folder"),
        (["--model", "mt3-piano-tiny"], "a model of mt3 (transcribe); drums needs"),
        (["extra.wav", "-o", "one.mid"], "one file for 2 inputs"),
    ],
)
def test_wrong_requests_start_nothing(model, loop, capsys, arguments, message):
    if "--model" not in arguments:
        arguments = [*arguments, "--model", model]
    assert drums(loop, *arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_other_files_go_on_after_a_bad_one(model, loop, tmp_path, capsys):
    (tmp_path / "broken.wav").write_bytes(b"RIFF not audio")
    assert drums(tmp_path, "--model", model) == 1
    assert "broken.wav" in capsys.readouterr().err
    assert (tmp_path / "loop.mid").is_file()
    assert not (tmp_path / "broken.mid").exists()


@pytest.mark.parametrize("option", [["--threshold", "2"], ["--tempo", "fast"], ["--map", "akai"]])
def test_wrong_values(loop, option):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["drums", str(loop), *option])
    assert stopped.value.code == 2
