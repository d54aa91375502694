import json

import pytest

from benchmarks import accuracy
from musax.audio import save_audio
from musax.midi import save_midi
from tests.benchmarks.test_baselines import NOTES, play


def test_baselines_are_scored(tmp_path):
    pytest.importorskip("librosa")
    save_audio(tmp_path / "a.wav", play(NOTES), 16000)
    save_midi(tmp_path / "a.mid", NOTES)
    path = tmp_path / "scores.json"
    arguments = ["transcribe", "--folder", f"tones={tmp_path}", "--baseline", "cqt"]
    assert accuracy.main([*arguments, "-o", str(path)]) == 0
    scored = json.loads(path.read_text())["sets"]["tones"]
    assert list(scored["systems"]) == ["cqt"]
    assert scored["systems"]["cqt"]["scores"]["Onset"]["f1"] > 0.8


def test_unknown_baseline_is_named(capsys):
    with pytest.raises(SystemExit):
        accuracy.main(["drums", "--mdb", "x", "--baseline", "cqt"])
    assert "invalid choice: 'cqt'" in capsys.readouterr().err
