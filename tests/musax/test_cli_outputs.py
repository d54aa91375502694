"""Where verbs write: one rule for `-o FILE|DIR`, formats, and what is refused beforehand."""

import argparse
import json
import os
from pathlib import Path

import pytest

from musax import cli
from musax.commands.outputs import InputError, check_places, plan_outputs
from tests import tiny_drum_model


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    Path("out").mkdir()
    Path("folder.mid").mkdir()
    for name in ("in/a.wav", "in/b.wav"):
        Path(name).touch()
    return tmp_path


def plan(*sources, output=None, count=1, **options):
    args = argparse.Namespace(output=None if output is None else Path(output), **options)
    return plan_outputs(args, [*map(Path, sources)], count=count, infix="new")


def paths(planned):
    return [str(path) for job in planned.jobs for path in job.paths]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ["in/a.mid"]),
        ({"plot": True, "render": True}, ["in/a.mid", "in/a.png", "in/a.new.wav"]),
        ({"format": ("csv",)}, ["in/a.csv"]),
        ({"output": "out"}, ["out/a.mid"]),
        ({"output": "new.v2"}, ["new.v2/a.mid"]),
        ({"output": "out/x.mid"}, ["out/x.mid"]),
        ({"output": "x.MIDI", "plot": True}, ["x.MIDI", "x.png"]),
        ({"output": "x.csv"}, ["x.csv"]),
        ({"output": "x.json", "format": ("mid", "json")}, ["x.json", "x.mid"]),
        ({"output": "x.mid", "count": 2}, ["x-1.mid", "x-2.mid"]),
    ],
)
def test_files_and_folders(options, expected):
    planned = plan("in/a.wav", **options)
    assert paths(planned) == expected
    assert planned.overwrite == ("output" in options)


@pytest.mark.parametrize(
    ("sources", "output", "message"),
    [
        (["in/a.wav", "in/b.wav"], "x.mid", "one file for 2 inputs"),
        (["in/a.wav"], "folder.mid", "folder.mid: this is a folder"),
        (["in/a.wav"], "absent/x.mid", "absent: no such folder"),
        (["in/a.wav"], "absent/out", "absent: no such folder"),
        (["in/a.wav"], "in/a.wav/x.mid", "in/a.wav: no such folder"),
        (["in/a.wav"], "in/a.wav", "in/a.wav: a result would replace this input"),
        (["in/a.wav"], "x.mp3", "x.mp3: results are not written in this format; expected"),
        (["in/a.wav"], "x.xml", "x.xml: results are not written in this format; expected"),
        (["in/a.wav"], "in/other", "in/other: this file is not a folder"),
    ],
)
def test_places_that_are_refused(sources, output, message):
    Path("in/other").touch()
    with pytest.raises(InputError, match=message):
        plan(*sources, output=output)
    assert sorted(os.listdir()) == ["folder.mid", "in", "out"]


def test_results_do_not_replace_folders_and_checks_create_nothing():
    (Path("out") / "a.mid").mkdir()
    with pytest.raises(InputError, match=r"out/a\.mid: this is a folder"):
        check_places(plan("in/a.wav", output="out"))
    check_places(plan("in/a.wav", output="new"))
    assert not Path("new").exists()


def test_models_are_checked_before_anything_is_read_or_written(folder, capsys):
    drums = tiny_drum_model.save_tiny_model(folder / "tiny-drums")
    broken = folder / "broken"
    broken.mkdir()
    for system, message in [
        ([], '"system" is []'),
        (3, '"system" is 3'),
        ("mt4", "did you mean 'mt3'?"),
        ("cdcd", "transcribe needs one of: mt3-"),
    ]:
        (broken / "config.json").write_text(json.dumps({"system": system}))
        assert cli.main(["transcribe", "in/a.wav", "--model", "broken", "-o", "new"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line
    (drums / "model.safetensors").unlink()  # the configuration alone is read
    assert cli.main(["transcribe", "absent.wav", "--model", str(drums)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "a model of drums (drums); transcribe needs one of: mt3-" in line
    assert not Path("new").exists()
