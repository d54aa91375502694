"""Runs the notebooks from top to bottom, with a tiny model and a short recording."""

import json
from pathlib import Path

import numpy as np
import pytest

from cdcd.contents import Melody
from musax.audio import save_audio
from musax.midi import load_midi, save_midi
from musax.notes import make_notes
from musax.pretrained import DEFAULT_MODELS
from tests import tiny_cdcd, tiny_drum_model, tiny_perceiver
from tests.tiny_mt3 import write_model

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

FOLDER = Path(__file__).parents[2] / "notebooks"


def parameters_of(notebook):
    (cell,) = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    return cell


def run(notebook, folder):
    nbclient.NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": str(folder)}}
    ).execute()


def shown(notebook, kind):
    """How many outputs have data of MIME type `kind`."""
    outputs = [o for c in notebook.cells if c.cell_type == "code" for o in c.outputs]
    return sum(kind in output.get("data", {}) for output in outputs)


def printed(notebook):
    cells = [c for c in notebook.cells if c.cell_type == "code"]
    return "".join(o.text for c in cells for o in c.outputs if o.output_type == "stream")


def test_transcribe(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    notebook = nbformat.read(FOLDER / "transcribe.ipynb", as_version=4)
    time = np.arange(16000) / 16000
    save_audio(tmp_path / "tone.wav", (0.3 * np.sin(2 * np.pi * 440 * time)).astype("f4"), 16000)
    save_midi(tmp_path / "tone.mid", make_notes([0.0], [1.0], [69]))
    write_model(tmp_path / "tiny")
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path / "matplotlib"))
    parameters = parameters_of(notebook)
    parameters.source = 'AUDIO, TRUE_NOTES, MODEL, OUT = "tone.wav", "tone.mid", "tiny", "out"'
    run(notebook, tmp_path)
    count = len(load_midi(tmp_path / "out/transcription.mid"))
    text = printed(notebook)
    assert "tone.wav: 1.0 s at 16000 Hz" in text
    assert f"{count} notes" in text
    assert "Onset F1" in text
    assert shown(notebook, "image/png") == 2
    assert sum("audio" in str(c.get("outputs", "")) for c in notebook.cells) == 2


def test_transcribe_names_what_the_repository_has():
    notebook = nbformat.read(FOLDER / "transcribe.ipynb", as_version=4)
    values = {}
    exec(parameters_of(notebook).source, values)
    assert (FOLDER / values["AUDIO"]).is_file()
    assert (FOLDER / values["TRUE_NOTES"]).is_file()
    assert values["MODEL"] == DEFAULT_MODELS["transcribe"][0]


def test_drums(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    pytest.importorskip("librosa")
    notebook = nbformat.read(FOLDER / "drums.ipynb", as_version=4)
    save_audio(tmp_path / "loop.wav", tiny_drum_model.clicks(3.0), tiny_drum_model.RATE)
    hits = make_notes(np.arange(11) * 0.25 + 0.1, 3.0, 38, 90, 0, True)
    save_midi(tmp_path / "loop.mid", hits)
    tiny_drum_model.save_tiny_model(tmp_path / "tiny")
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path / "matplotlib"))
    parameters = parameters_of(notebook)
    parameters.source = (
        'AUDIO, TRUE_NOTES, MODEL, LEVEL, OUT = "loop.wav", "loop.mid", "tiny", "3-hit", "out"'
    )
    run(notebook, tmp_path)
    text = printed(notebook)
    assert "loop.wav: 3.0 s at 11025 Hz" in text
    assert "onset F1" in text
    assert shown(notebook, "image/png") == 4
    assert (tmp_path / "out/drums.mid").is_file()


def test_drums_names_what_the_repository_has():
    notebook = nbformat.read(FOLDER / "drums.ipynb", as_version=4)
    values = {}
    exec(parameters_of(notebook).source, values)
    assert (FOLDER / values["AUDIO"]).is_file()
    assert (FOLDER / values["TRUE_NOTES"]).is_file()
    assert values["MODEL"] == DEFAULT_MODELS["drums"][0]


def test_compose(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    notebook = nbformat.read(FOLDER / "compose.ipynb", as_version=4)
    save_midi(tmp_path / "begin.mid", make_notes([0.0, 0.5, 1.0], [0.4, 0.9, 2.0], [60, 64, 67]))
    tiny_perceiver.save_tiny_model(tmp_path / "tiny")
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path / "matplotlib"))
    parameters_of(notebook).source = 'PROMPT, MODEL, SECONDS, OUT = "begin.mid", "tiny", 3.0, "out"'
    run(notebook, tmp_path)
    assert printed(notebook).count("\n") == 5
    assert shown(notebook, "image/png") == 2
    assert load_midi(tmp_path / "out/continued.mid")["pitch"][0] == 60


def test_compose_names_what_the_repository_has():
    notebook = nbformat.read(FOLDER / "compose.ipynb", as_version=4)
    values = {}
    exec(parameters_of(notebook).source, values)
    assert (FOLDER / values["PROMPT"]).is_file()
    assert values["MODEL"] == DEFAULT_MODELS["compose"][0]


def test_infill(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    notebook = nbformat.read(FOLDER / "infill.ipynb", as_version=4)
    notes = make_notes([0.0, 0.5, 2.0, 4.5], [0.4, 0.9, 3.0, 5.0], [60, 64, 67, 72])
    save_midi(tmp_path / "song.mid", notes)
    tiny_cdcd.save_tiny_model(tmp_path / "melody", tiny_cdcd.tiny_config(Melody()))
    tiny_cdcd.save_tiny_model(tmp_path / "text")
    point = {"judge_nats": 1.0, "entropy": 2.0, "label": "T=1"}
    (tmp_path / "results.json").write_text(json.dumps({"samples": {"data": [point], "a": [point]}}))
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path / "matplotlib"))
    parameters_of(notebook).source = (
        'MELODY, BARS, MELODY_MODEL, TEXT_MODEL = "song.mid", (2, 2), "melody", "text"\n'
        'TEXT, RESULTS, STEPS, OUT = "to ___ or", "results.json", 4, "out"'
    )
    run(notebook, tmp_path)
    text = printed(notebook)
    assert "4 notes, 4 of them the melody's" in text
    assert text.count("bits a sixteenth (any_order)") == 4
    assert "bits a letter  to " in text
    assert shown(notebook, "image/png") == 6
    filled = load_midi(tmp_path / "out/filled-1.mid")
    assert filled["pitch"][:2].tolist() == [60, 64]
    assert filled["pitch"][-1] == 72


def test_infill_names_what_the_repository_has():
    notebook = nbformat.read(FOLDER / "infill.ipynb", as_version=4)
    values = {}
    exec(parameters_of(notebook).source, values)
    assert (FOLDER / values["MELODY"]).is_file()
    assert (values["MELODY_MODEL"], values["TEXT_MODEL"]) == DEFAULT_MODELS["infill"]
