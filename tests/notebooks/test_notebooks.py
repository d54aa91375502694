"""Runs the notebooks from top to bottom, with tiny models and short recordings."""

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
pytest.importorskip("matplotlib")

FOLDER = Path(__file__).parents[2] / "notebooks"


def read(name):
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def parameters_of(notebook):
    (cell,) = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    return cell


# Each writes what its notebook reads into a folder, and returns the parameters that name it.


def for_transcribe(folder):
    time = np.arange(16000) / 16000
    save_audio(folder / "tone.wav", (0.3 * np.sin(2 * np.pi * 440 * time)).astype("f4"), 16000)
    save_midi(folder / "tone.mid", make_notes([0.0], [1.0], [69]))
    write_model(folder / "tiny")
    return 'AUDIO, TRUE_NOTES, MODEL, OUT = "tone.wav", "tone.mid", "tiny", "out"'


def for_drums(folder):
    save_audio(folder / "loop.wav", tiny_drum_model.clicks(3.0), tiny_drum_model.RATE)
    hits = make_notes(np.arange(11) * 0.25 + 0.1, 3.0, 38, 90, 0, True)
    save_midi(folder / "loop.mid", hits)
    tiny_drum_model.save_tiny_model(folder / "tiny")
    return 'AUDIO, TRUE_NOTES, MODEL, LEVEL, OUT = "loop.wav", "loop.mid", "tiny", "3-hit", "out"'


def for_compose(folder):
    save_midi(folder / "begin.mid", make_notes([0.0, 0.5, 1.0], [0.4, 0.9, 2.0], [60, 64, 67]))
    tiny_perceiver.save_tiny_model(folder / "tiny")
    return 'PROMPT, MODEL, SECONDS, OUT = "begin.mid", "tiny", 3.0, "out"'


def for_infill(folder):
    notes = make_notes([0.0, 0.5, 2.0, 4.5], [0.4, 0.9, 3.0, 5.0], [60, 64, 67, 72])
    save_midi(folder / "song.mid", notes)
    tiny_cdcd.save_tiny_model(folder / "melody", tiny_cdcd.tiny_config(Melody()))
    tiny_cdcd.save_tiny_model(folder / "text")
    point = {"judge_nats": 1.0, "entropy": 2.0, "label": "T=1"}
    (folder / "results.json").write_text(json.dumps({"samples": {"data": [point], "a": [point]}}))
    return (
        'MELODY, BARS, MELODY_MODEL, TEXT_MODEL = "song.mid", (2, 2), "melody", "text"\n'
        'TEXT, RESULTS, STEPS, OUT = "to ___ or", "results.json", 4, "out"'
    )


PREPARE = {
    "transcribe": for_transcribe,
    "drums": for_drums,
    "compose": for_compose,
    "infill": for_infill,
}


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """(cells, folder) of each notebook after its run.

    They share a kernel, which costs seconds to start; each begins with an empty namespace.
    """
    root = tmp_path_factory.mktemp("notebooks")
    found = {}
    for name, prepare in PREPARE.items():
        notebook, folder = read(name), root / name
        folder.mkdir()
        parameters_of(notebook).source = prepare(folder)
        begin = nbformat.v4.new_code_cell(f"%reset -f\n%cd -q {folder}")
        for number, cell in enumerate(notebook.cells):
            cell.id = f"{name}-{number}"
        found[name] = [begin, *notebook.cells], folder
    together = nbformat.v4.new_notebook(
        cells=[cell for cells, _ in found.values() for cell in cells]
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MPLCONFIGDIR", str(root / "matplotlib"))
        nbclient.NotebookClient(
            together, timeout=300, resources={"metadata": {"path": str(root)}}
        ).execute()
    return found


def outputs(cells):
    return [output for c in cells if c.cell_type == "code" for output in c.outputs]


def shown(cells, kind):
    """How many outputs have data of MIME type `kind`."""
    return sum(kind in output.get("data", {}) for output in outputs(cells))


def printed(cells):
    return "".join(output.text for output in outputs(cells) if output.output_type == "stream")


def test_transcribe(executed):
    cells, folder = executed["transcribe"]
    count = len(load_midi(folder / "out/transcription.mid"))
    text = printed(cells)
    assert "tone.wav: 1.0 s at 16000 Hz" in text
    assert f"{count} notes" in text
    assert "Onset F1" in text
    assert shown(cells, "image/png") == 2
    assert sum("audio" in str(c.get("outputs", "")) for c in cells) == 2


def test_drums(executed):
    cells, folder = executed["drums"]
    text = printed(cells)
    assert "loop.wav: 3.0 s at 11025 Hz" in text
    assert "onset F1" in text
    assert shown(cells, "image/png") == 4
    assert (folder / "out/drums.mid").is_file()


def test_compose(executed):
    cells, folder = executed["compose"]
    assert printed(cells).count("\n") == 5
    assert shown(cells, "image/png") == 2
    assert load_midi(folder / "out/continued.mid")["pitch"][0] == 60


def test_infill(executed):
    cells, folder = executed["infill"]
    text = printed(cells)
    assert "4 notes, 4 of them the melody's" in text
    assert text.count("bits a sixteenth (any_order)") == 4
    assert "bits a letter  to " in text
    assert shown(cells, "image/png") == 6
    filled = load_midi(folder / "out/filled-1.mid")
    assert filled["pitch"][:2].tolist() == [60, 64]
    assert filled["pitch"][-1] == 72


@pytest.mark.parametrize(
    ("name", "files", "models"),
    [
        ("transcribe", ["AUDIO", "TRUE_NOTES"], ["MODEL"]),
        ("drums", ["AUDIO", "TRUE_NOTES"], ["MODEL"]),
        ("compose", ["PROMPT"], ["MODEL"]),
        ("infill", ["MELODY"], ["MELODY_MODEL", "TEXT_MODEL"]),
    ],
)
def test_parameters_name_what_the_repository_has(name, files, models):
    values = {}
    exec(parameters_of(read(name)).source, values)
    for file in files:
        assert (FOLDER / values[file]).is_file()
    defaults = DEFAULT_MODELS[name][: len(models)]
    assert tuple(values[model] for model in models) == defaults
