import json

import pytest

from mt3 import evaluation
from mt3.evaluation import System
from musax import cli
from musax.datasets import recordings
from tests.benchmarks.test_baselines import NOTES
from tests.musax.datasets.test_recordings import write_set


def oracle(shift=0.0):
    def transcribe(audio, rate):
        notes = NOTES.copy()
        notes["onset"] += shift
        return notes

    return System(f"shifted by {shift}", transcribe)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("set"))


def test_scores_are_perfect_for_the_truth_and_fall_with_late_onsets(folder):
    seen = []
    report = evaluation.evaluate(
        {"tones": recordings.folder_set(folder)},
        [oracle(), oracle(0.2)],
        programs="midi_class",
        progress=lambda *done: seen.append(done),
    )
    exact, late = (s["scores"] for s in report.data["sets"]["tones"]["systems"].values())
    program = "Onset + offset + program"
    assert set(exact) == {"Onset", "Onset + offset", "Frame", "Drum onset", program}
    assert exact["Drum onset"]["f1"] == 0.0  # there are none
    for name in ("Onset", "Onset + offset", program):
        assert exact[name]["f1"] == exact[name]["low"] == exact[name]["high"] == 1.0
        assert late[name]["f1"] == 0.0
    assert 0 < late["Frame"]["f1"] < exact["Frame"]["f1"]
    assert seen[-1] == ("shifted by 0.2: tones", 2, 2)
    lines = report.render().splitlines()
    assert lines[0] == f"tones: 2 recordings, 0.1 min, {2 * len(NOTES)} notes"
    assert lines[3].startswith("shifted by 0.0  1.000 [1.00, 1.00]")


def test_command_scores_models_and_writes_all_numbers(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(evaluation, "load_system", lambda name, decode: oracle())
    path = tmp_path / "scores.json"
    arguments = ["evaluate", "transcribe", "--model", "mt3-piano-tiny", "-o", str(path)]
    arguments += ["--folder", f"tones={folder}", "--programs", "midi-class"]
    assert cli.main([*arguments, "--format", "markdown"]) == 0
    scored = json.loads(path.read_text())["sets"]["tones"]
    assert scored["systems"]["shifted by 0.0"]["recordings"]["b"]["Onset"]["f1"] == 1.0
    header, rule, row = capsys.readouterr().out.strip().splitlines()[-3:]
    assert header.startswith("| System | Onset F1 | Onset + offset F1 | Frame F1 | Drum")
    assert rule.count("|") == row.count("|") == header.count("|")
