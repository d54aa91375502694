"""The command `musax`, mostly with a model that hears one note a segment."""

import argparse
import importlib.util
import json
import subprocess
import sys

import mir_eval
import numpy as np
import pytest

from mt3.streaming import segment_stride
from musax import cli, pretrained
from musax.audio import load_audio, save_audio
from musax.commands.console import minutes
from musax.commands.outputs import plan_outputs
from musax.midi import load_midi, save_midi
from musax.notes import make_notes
from musax.notes_io import load_notes_csv, load_notes_json
from tests.tiny_mt3 import EOS, scripted, tiny_config, write_model

RATE = 16000
CONFIG = tiny_config()
STEPS_PER_SECOND = CONFIG.vocabulary.steps_per_second
STRIDE_SECONDS = segment_stride(CONFIG.segment, CONFIG.spectrogram, STEPS_PER_SECOND) / RATE
PITCH = 1 + STEPS_PER_SECOND + 3 + 60  # id of pitch 60
VELOCITY = PITCH - 60 + 128 + 1  # id of velocity bin 1


class OneNote:
    """Predicts that pitch 60 is struck at the start of every segment."""

    def __call__(self, features, decode, batch_size):
        return np.tile(np.array([VELOCITY, PITCH, EOS, 0], np.int32), (len(features), 1))


@pytest.fixture
def model(monkeypatch):
    """Makes every model name load the one-note model."""
    monkeypatch.setattr(pretrained, "load", lambda name: scripted(CONFIG, OneNote()))


@pytest.fixture
def tone(tmp_path):
    def make(name="tone.wav", seconds=0.5):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        audio = 0.3 * np.sin(2 * np.pi * 262 * np.arange(round(seconds * RATE)) / RATE)
        save_audio(path, audio.astype(np.float32), RATE)
        return path

    return make


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_every_format_holds_the_notes(model, tone, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ["transcribe", str(tone()), "-o", str(out), "--format", "mid,csv,json,png,wav"]
    assert cli.main(arguments) == 0
    assert names(out) == ["tone.csv", "tone.json", "tone.mid", "tone.png", "tone.wav"]
    expected = np.arange(0, 0.5, STRIDE_SECONDS)
    for notes in (
        load_midi(out / "tone.mid"),
        load_notes_csv(out / "tone.csv"),
        load_notes_json(out / "tone.json"),
    ):
        np.testing.assert_allclose(notes["onset"], expected, atol=0.001)
        assert set(notes["pitch"]) == {60}
    assert (out / "tone.png").read_bytes().startswith(b"\x89PNG")
    audio, rate = load_audio(out / "tone.wav")
    assert rate == 44100
    assert np.abs(audio).max() > 0.01
    said = capsys.readouterr()
    assert f"{len(expected)} notes" in said.out
    assert str(out / "tone.mid") in said.out
    assert said.err == ""


def test_results_lie_beside_the_input_and_replace_nothing(model, tone, tmp_path, capsys):
    path = tone()
    assert cli.main(["transcribe", str(path)]) == 0
    assert names(tmp_path) == ["tone.mid", "tone.wav"]
    before = (tmp_path / "tone.mid").read_bytes()
    (tmp_path / "tone.mid").write_bytes(b"my own work")
    capsys.readouterr()
    assert cli.main(["transcribe", str(path)]) == 1
    assert "exists already; give -o, or --overwrite" in capsys.readouterr().err
    assert (tmp_path / "tone.mid").read_bytes() == b"my own work"
    assert cli.main(["transcribe", str(path), "--overwrite", "--quiet"]) == 0
    assert (tmp_path / "tone.mid").read_bytes() == before
    assert capsys.readouterr().out == ""


def test_an_input_is_never_a_result(model, tone, tmp_path):
    path = tone()
    before = path.read_bytes()
    assert cli.main(["transcribe", str(path), "--format", "wav"]) == 0
    assert path.read_bytes() == before
    assert names(tmp_path) == ["tone.transcribed.wav", "tone.wav"]


def test_folders_patterns_and_repetitions(model, tone, tmp_path, monkeypatch):
    for name in ("in/a.wav", "in/deep/b.flac", "more/c.wav", "more/d.wav", "more/.hidden.wav"):
        tone(name, 0.1)
    (tmp_path / "in" / "notes.txt").write_text("no audio")
    monkeypatch.chdir(tmp_path)
    arguments = ["in", "more/*.wav", "more/c.wav", "./in/a.wav"]
    assert cli.main(["transcribe", *arguments, "-o", "out"]) == 0
    assert names(tmp_path / "out") == ["a.mid", "b.mid", "c.mid", "d.mid"]


def plan(sources, **options):
    return plan_outputs(argparse.Namespace(**options), sources)


def test_equal_stems_get_distinct_names(tmp_path):
    sources = [tmp_path / p for p in ("x/a.wav", "x/a.mp3", "y/A.wav", "y/b.wav", "z/x/a.wav")]
    jobs = plan(sources, output=tmp_path / "out", format=("mid",)).jobs
    found = [job.outputs["mid"].name for job in jobs]
    assert found == ["x-a.wav-1.mid", "a.mp3.mid", "y-A.wav.mid", "b.mid", "x-a.wav-2.mid"]
    beside = plan(sources, output=None, format=("mid", "csv"))
    assert [job.outputs["csv"].name for job in beside.jobs] == [
        "a.wav.csv",
        "a.mp3.csv",
        "A.csv",
        "b.csv",
        "a.csv",
    ]


def test_other_files_go_on_after_a_bad_one(model, tone, tmp_path, capsys):
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"this is no audio")
    out = tmp_path / "out"
    assert cli.main(["transcribe", str(bad), str(tone()), "absent.wav", "-o", str(out)]) == 1
    assert names(out) == ["tone.mid"]
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert str(bad) in lines[0]
    assert "absent.wav: no such file" in lines[1]
    assert lines[2] == "musax: error: 2 of 3 inputs failed"


def test_interruption_leaves_no_half_written_files(tone, tmp_path, monkeypatch, capsys):
    class Interrupted:
        def __call__(self, features, decode, batch_size):
            raise KeyboardInterrupt

    monkeypatch.setattr(pretrained, "load", lambda name: scripted(CONFIG, Interrupted()))
    out = tmp_path / "out"
    assert cli.main(["transcribe", str(tone()), "-o", str(out)]) == 130
    assert names(out) == []
    assert "interrupted" in capsys.readouterr().err


def test_a_failing_writer_leaves_no_half_written_file(model, tone, tmp_path, monkeypatch, capsys):
    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device", str(tmp_path / "out" / "tone.csv"))

    monkeypatch.setattr("pathlib.Path.write_text", fail)
    out = tmp_path / "out"
    assert cli.main(["transcribe", str(tone()), "-o", str(out), "--format", "csv"]) == 1
    assert names(out) == []
    assert "tone.csv: No space left on device" in capsys.readouterr().err


def test_unexpected_errors_are_one_line_too(tone, tmp_path, monkeypatch, capsys):
    class Broken:
        def __call__(self, features, decode, batch_size):
            raise RuntimeError("a\nlong\nstory")

    monkeypatch.setattr(pretrained, "load", lambda name: scripted(CONFIG, Broken()))
    path = tone()
    assert cli.main(["transcribe", str(path), "-o", str(tmp_path)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert str(path) in line
    assert "RuntimeError: a long story" in line
    assert "MUSAX_DEBUG=1" in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["transcribe"], "INPUT"),
        (["transcribe", "a.wav", "--format", "mid,xml"], "unknown format 'xml'"),
        (["transcribe", "a.wav", "--decode", "beam"], "invalid choice: 'beam'"),
        (
            ["transcribe", "a.wav", "--decode", "t5x_beam1", "--steps", "3"],
            "--steps 3; see `musax tr",
        ),
        (["transcribe", "a.wav", "--batch-size", "0"], "whole number of 1 or more"),
        (["transcribe", "a.wav", "--batch-size", "two"], "whole number of 1 or more"),
        (["transpose"], "invalid choice"),
    ],
)
def test_wrong_usage(arguments, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main(arguments)
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert "--help" in line


def test_missing_extras_are_told_before_the_work(model, tone, monkeypatch, capsys):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name == "matplotlib" else real(name)
    )
    assert cli.main(["transcribe", str(tone()), "--format", "png"]) == 2
    assert "extra `plots`" in capsys.readouterr().err


def test_models_lists_tasks_sizes_and_licences(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MUSAX_PRETRAINED", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "60")
    sentence = "A model of the piano that was made for this test and says nothing of note."
    card = f"---\ndata_licence: CC0\n---\n\n# P\n\n{sentence} More.\n"
    pretrained.save_model_folder(tmp_path / "test-piano", {}, {"system": "mt3"}, card)
    assert cli.main(["models"]) == 0
    (entry,) = [x for x in capsys.readouterr().out.split("\n\n") if x.startswith("test-piano")]
    assert max(map(len, entry.splitlines())) <= 60
    assert " ".join(entry.split()) == (
        f"test-piano {sentence} tasks: transcribe size: 0.0 MB licence: CC0"
    )
    assert cli.main(["models", "--paths", "--task", "transcribe"]) == 0
    assert str(tmp_path / "test-piano") in capsys.readouterr().out.splitlines()
    assert cli.main(["models", "--format", "json", "--task", "drums"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [model["name"] for model in found] == ["drums-small"]
    assert found[0]["tasks"] == ["drums"]
    assert cli.main(["models", "--task", "drum"]) == 2
    assert "did you mean 'drums'?" in capsys.readouterr().err
    monkeypatch.setattr(pretrained, "list_models", lambda task: [])
    assert cli.main(["models"]) == 1
    assert "no models found" in capsys.readouterr().err


def test_render_plays_the_notes(tmp_path, capsys):
    midi = tmp_path / "scale.mid"
    save_midi(midi, make_notes([0.0, 0.5], [0.4, 0.9], [60, 64], 127))
    assert cli.main(["render", str(midi)]) == 0
    audio, rate = load_audio(tmp_path / "scale.wav", mono=False)
    assert (rate, audio.shape[1]) == (44100, 2)
    assert 0.01 < np.abs(audio).max() <= 1.0
    assert cli.main(["render", str(midi)]) == 1
    assert "scale.wav: exists already" in capsys.readouterr().err
    low = tmp_path / "low.flac"
    assert cli.main(["render", str(midi), "-o", str(low), "--sample-rate", "22050"]) == 0
    assert load_audio(low)[1] == 22050
    said = capsys.readouterr().out
    assert "2 notes" in said
    assert said.endswith(f"-> {low}\n")
    assert cli.main(["render", str(tmp_path), "-o", str(tmp_path / "out"), "-q"]) == 0
    assert names(tmp_path / "out") == ["scale.wav"]


def test_render_errors_name_the_file(tmp_path, capsys):
    bad, good = tmp_path / "bad.mid", tmp_path / "good.mid"
    bad.write_bytes(b"MThd")
    save_midi(good, make_notes(0.0, 1.0, 60))
    assert cli.main(["render", str(bad)]) == 1
    assert cli.main(["render", str(tmp_path / "absent.mid")]) == 1
    assert cli.main(["render", str(good), "--soundfont", "absent.sf2"]) == 2
    assert cli.main(["render", str(good), "-o", str(tmp_path / "good.mp3")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4
    for line, name in zip(lines, ("bad.mid", "absent.mid", "absent.sf2", "good.mp3")):
        assert name in line
    assert names(tmp_path) == ["bad.mid", "good.mid"]


def test_no_verb_prints_the_help(capsys):
    assert cli.main([]) == 2
    assert "transcribe" in capsys.readouterr().out
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("musax ")


def test_help_loads_nothing_heavy():
    code = (
        "import sys, musax.cli\n"
        "try: musax.cli.main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "heavy = {'jax', 'numpy', 'rich', 'soundfile', 'matplotlib', 'mt3', 't5x'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    for arguments in (["--help"], ["transcribe", "--help"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert "examples:" in done.stdout


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (605, "10:05"), (3725, "1:02:05")]
)
def test_minutes(seconds, text):
    assert minutes(seconds) == text


def test_from_the_command_line_to_notes(tone, tmp_path):
    """A real (random) network in a process of its own."""
    write_model(tmp_path / "models" / "tiny-random")
    out = tmp_path / "out"
    model = str(tmp_path / "models" / "tiny-random")
    options = ["--model", model, "--format", "mid,json", "--batch-size", "4", "--decode", "greedy"]
    done = subprocess.run(
        [sys.executable, "-m", "musax", "transcribe", str(tone()), "-o", str(out), *options],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert names(out) == ["tone.json", "tone.mid"]
    notes = load_notes_json(out / "tone.json")
    assert f"{len(notes)} notes" in done.stdout
    assert json.loads((out / "tone.json").read_text())["units"]["onset"] == "s"
    if len(notes):
        mir_eval.transcription.validate_intervals(
            np.c_[notes["onset"], notes["offset"]], np.c_[notes["onset"], notes["offset"]]
        )
