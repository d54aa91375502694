"""Options of `musax transcribe` for MIDI files that musicians open."""

import numpy as np
import pretty_midi
import pytest

from musax import cli, pretrained
from musax.audio import save_audio
from musax.general_midi import PROGRAM_NAMES
from musax.midi import load_midi, midi_tempo, save_midi, to_pretty_midi
from musax.notes import make_notes
from musax.results import Transcription


class Recorder:
    """A model that returns some notes and keeps the options that it got."""

    def __init__(self, notes):
        self.notes, self.options = notes, {}

    def transcribe_file(self, path, *, progress=None, **options):
        self.options = options
        return Transcription(self.notes, 30.0, False)


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Transcribe with a model of one velocity; return it, the MIDI file and what was printed."""
    save_audio(tmp_path / "take.wav", np.zeros(100, np.float32), 16000)

    def transcribe(notes, *options):
        model = Recorder(notes)
        monkeypatch.setattr(pretrained, "load", lambda name: model)
        arguments = ["transcribe", str(tmp_path / "take.wav"), "-o", str(tmp_path / "take.mid")]
        assert cli.main([*arguments, *options]) == 0
        return model, tmp_path / "take.mid", capsys.readouterr().out

    return transcribe


def steady(bpm, start=0.25, beats=64):
    onset = start + np.arange(2 * beats) * 30 / bpm
    loud = np.where(np.arange(2 * beats) % 2, 60, 100)
    return make_notes(onset, onset + 0.2, 60 + np.arange(2 * beats) % 7, loud)


def test_a_steady_tempo_is_written_and_times_are_kept(run):
    notes = steady(103.0)
    _, path, printed = run(notes)
    assert ", 103.0 bpm" in printed
    assert midi_tempo(path) == pytest.approx(103.0, rel=1e-3)
    np.testing.assert_allclose(load_midi(path)["onset"], notes["onset"], atol=1e-3)
    beats = pretty_midi.PrettyMIDI(str(path)).get_beats()[1:9]
    np.testing.assert_allclose(beats, 0.25 + np.arange(8) * 60 / 103, atol=0.02)


@pytest.mark.parametrize(("option", "bpm"), [("none", 120.0), ("96.5", 96.5)])
def test_a_tempo_that_is_given(run, option, bpm):
    _, path, printed = run(steady(103.0), "--tempo", option)
    assert "bpm" not in printed
    assert midi_tempo(path) == pytest.approx(bpm, rel=1e-5)


def test_free_playing_gets_no_tempo(run):
    onset = np.cumsum(np.random.default_rng(0).uniform(0.1, 0.9, 400))
    _, path, printed = run(make_notes(onset, onset + 0.1, 60))
    assert "bpm" not in printed
    assert midi_tempo(path) == pytest.approx(120.0)


def test_options_reach_the_model(run):
    model, *_ = run(steady(100.0))
    assert model.options == {"min_note_seconds": None}  # the rest is the model's
    options = ["--velocity", "64", "--min-note", "0", "--max-dangling-seconds", "4"]
    model, *_ = run(steady(100.0), *options)
    assert model.options == {
        "velocity": 64,
        "min_note_seconds": 0.0,
        "max_dangling_seconds": 4.0,
    }
    model, *_ = run(steady(100.0), "--max-dangling-seconds", "none")
    assert model.options["max_dangling_seconds"] == np.inf


@pytest.mark.parametrize(
    "option", [["--velocity", "0"], ["--velocity", "128"], ["--min-note", "-1"], ["--tempo", "2"]]
)
def test_wrong_values(option):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["transcribe", "x.wav", *option])
    assert stopped.value.code == 2


def test_tracks_are_named_after_their_instruments(tmp_path):
    notes = make_notes(
        [0, 0.1, 0.2, 0.3], [1, 1.1, 1.2, 0.4], 60, 90, [0, 40, 127, 0], [0, 0, 0, 1]
    )
    save_midi(tmp_path / "x.mid", notes)
    named = {i.name for i in pretty_midi.PrettyMIDI(str(tmp_path / "x.mid")).instruments}
    assert named == {"Acoustic Grand Piano", "Violin", "Gunshot", "Drums"}
    assert {i.name for i in to_pretty_midi(notes).instruments} == named


def test_names_are_those_of_general_midi():
    assert list(PROGRAM_NAMES) == [pretty_midi.program_to_instrument_name(p) for p in range(128)]
