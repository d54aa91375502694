"""Results of models: their data, and the files that are made of them."""

import csv
import json
import math

import numpy as np
import pytest

from musax.audio import audio_info, save_audio
from musax.midi import load_midi, midi_tempo
from musax.notes import make_notes
from musax.notes_io import load_notes_csv, load_notes_json
from musax.rendering.drum_kits import virtual_drum_kit
from musax.results import Piece, Score, Text, Transcription, save_notes

NOTES = make_notes(onset=[0.0, 0.5], offset=[0.4, 1.0], pitch=[60, 64])
HITS = make_notes(onset=[0.0, 0.5], offset=[0.1, 0.6], pitch=[36, 38], is_drum=[True, True])


@pytest.fixture
def recording(tmp_path):
    save_audio(tmp_path / "song.wav", np.zeros(16_000, np.float32), 16_000)
    return tmp_path / "song.wav"


def test_transcriptions_are_saved_by_suffix(tmp_path, recording):
    result = Transcription(NOTES, 1.0, silent=False)
    for suffix in ("mid", "csv", "json", "png", "wav", "MIDI"):
        result.save(tmp_path / f"a.{suffix}", **({"source": recording} if suffix == "png" else {}))
    for load, name in ((load_notes_csv, "a.csv"), (load_notes_json, "a.json")):
        np.testing.assert_array_equal(load(tmp_path / name), NOTES)
    assert len(load_midi(tmp_path / "a.mid")) == len(load_midi(tmp_path / "a.MIDI")) == 2
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert audio_info(tmp_path / "a.wav").channels == 2
    assert {p.name for p in tmp_path.iterdir()} == {
        "song.wav", *(f"a.{s}" for s in ("mid", "csv", "json", "png", "wav", "MIDI")),
    }  # fmt: skip


def test_drums_are_drawn_and_played_as_drums(tmp_path, recording, monkeypatch):
    drawn = []
    monkeypatch.setattr("musax.drum_plots.plot_drums", lambda notes, **rest: drawn.append(rest))
    monkeypatch.setattr("musax.plots.save_figure", lambda figure, path: None)
    result = Transcription(HITS, 1.0, silent=False, drum_names={36: "kick", 38: "snare"})
    result.save(tmp_path / "a.png", source=recording)
    assert drawn[0]["names"] == {36: "kick", 38: "snare"}
    assert drawn[0]["title"] == "song.wav"
    monkeypatch.setattr("musax.results.check_extra", pytest.fail)  # a kit needs no soundfont
    result.save(tmp_path / "a.wav", kit=virtual_drum_kit(np.random.default_rng(0)))
    assert audio_info(tmp_path / "a.wav").channels == 1


def test_pieces_keep_their_tempo_and_mark_where_they_begin(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr("musax.plots.plot_piano_roll", lambda notes, **rest: drawn.append(rest))
    monkeypatch.setattr("musax.plots.save_figure", lambda figure, path: None)
    piece = Piece(NOTES, 300.0, 100.0, False, np.zeros(3, np.int32), tempo=90.0)
    piece.save(tmp_path / "a.mid")
    assert midi_tempo(tmp_path / "a.mid") == pytest.approx(90)
    piece.save(tmp_path / "a.png")
    assert drawn == [{"start": 40.0, "seconds": 120.0, "line": 100.0, "title": "a.png"}]


def test_texts_and_scores(tmp_path):
    text = Text("abc", np.array([3, 4, 5], np.int32), np.array([False, True, True]))
    text.save(tmp_path / "a.txt")
    text.save(tmp_path / "a.json")
    assert (tmp_path / "a.txt").read_text() == "abc\n"
    assert json.loads((tmp_path / "a.json").read_text())["tokens"] == [3, 4, 5]
    score = Score(nats=8 * math.log(2), tokens=4, estimate="exact")
    assert score.bits_per_token == pytest.approx(2)
    score.save(tmp_path / "s.json")
    score.save(tmp_path / "s.csv")
    (row,) = csv.DictReader((tmp_path / "s.csv").open())
    assert float(row["bits_per_token"]) == pytest.approx(2)
    assert json.loads((tmp_path / "s.json").read_text()) == score.to_json()


@pytest.mark.parametrize(
    ("save", "message"),
    [
        (lambda d: save_notes(d / "a.xyz", NOTES), r"a\.xyz: suffix '.xyz', expected one of .mid"),
        (lambda d: save_notes(d / "a", NOTES), "suffix ''"),
        (lambda d: Score(1.0, 1, "exact").save(d / "a.mid"), "expected one of .json, .csv"),
        (lambda d: Text("", np.zeros(0), np.zeros(0)).save(d / "a.mid"), "expected one of .txt"),
    ],
)
def test_unknown_suffixes_name_the_known_ones(tmp_path, save, message):
    with pytest.raises(ValueError, match=message):
        save(tmp_path)
    assert not list(tmp_path.iterdir())


def test_missing_extras_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"format .png needs matplotlib.*extra `plots`"):
        save_notes(tmp_path / "a.png", NOTES)
