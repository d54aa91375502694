"""The baselines hear plain notes, and basic-pitch's notes follow from its activations."""

import importlib.util

import numpy as np
import pytest

from benchmarks.baselines import basic_pitch, cqt
from musax.metrics.transcription import onset_scores
from musax.notes import make_notes

NOTES = make_notes(
    onset=[0.5, 1.0, 1.5, 1.5, 2.2, 2.2, 2.2, 3.0],
    offset=[0.9, 1.4, 2.1, 2.1, 2.9, 2.9, 2.9, 3.6],
    pitch=[60, 64, 55, 67, 48, 64, 71, 79],
)


def play(notes, seconds=4.0, rate=16000):
    """Decaying tones of eight partials."""
    audio = np.zeros(int(seconds * rate), np.float32)
    number = np.arange(1, 9)[:, None]
    for note in notes:
        first, last = int(note["onset"] * rate), int(note["offset"] * rate)
        time = np.arange(last - first) / rate
        hz = 440 * 2 ** ((note["pitch"] - 69) / 12)
        partials = (np.sin(2 * np.pi * hz * number * time) * 0.6**number).sum(axis=0)
        audio[first:last] += 0.2 * np.exp(-2 * time) * partials
    return audio


def test_cqt_hears_plain_notes():
    pytest.importorskip("librosa")
    estimated = cqt.transcribe(play(NOTES), 16000)
    assert onset_scores(NOTES, estimated).f1 > 0.85


def test_cqt_hears_nothing_in_silence_and_takes_short_audio():
    pytest.importorskip("librosa")
    assert len(cqt.transcribe(np.zeros(16000, np.float32), 16000)) == 0
    assert len(cqt.transcribe(np.zeros(10, np.float32), 16000)) == 0


def activations(frames=200):
    """One key that begins at frame 50 and sounds until 90, over a little noise."""
    sounding = np.full((frames, 88), 0.05, np.float32)
    onset = np.full((frames, 88), 0.01, np.float32)
    sounding[50:90, 39] = 0.8
    onset[50, 39] = 0.9
    return sounding, onset


def test_basic_pitch_makes_a_note_of_an_onset_and_its_frames():
    times = np.arange(200) / 100
    notes = basic_pitch.activations_to_notes(*activations(), times)
    assert notes["pitch"].tolist() == [60]
    np.testing.assert_allclose([notes["onset"][0], notes["offset"][0]], [0.5, 0.9])
    assert notes["velocity"].tolist() == [round(127 * 0.8)]


def test_basic_pitch_drops_short_notes_and_fills_gaps_only_if_asked():
    times = np.arange(200) / 100
    sounding, onset = activations()
    sounding[50 + basic_pitch.MIN_NOTE_FRAMES :, 39] = 0.05
    assert len(basic_pitch.activations_to_notes(sounding, onset, times)) == 0
    sounding, onset = activations()
    sounding[40:120, 60] = np.linspace(0.31, 0.6, 80)  # rises too slowly for an onset
    filled = basic_pitch.activations_to_notes(sounding, onset, times)
    strict = basic_pitch.activations_to_notes(sounding, onset, times, fill_gaps=False)
    assert sorted(filled["pitch"].tolist()) == [60, 81]
    assert strict["pitch"].tolist() == [60]


def test_frames_of_basic_pitch_have_one_time_each():
    times = basic_pitch.frame_times(basic_pitch.SAMPLE_RATE * 10)
    steps = np.diff(times)
    assert times[0] == 0
    assert times[-1] < 10
    # Windows overlap by less than a frame, so grids meet with a shorter step.
    assert (steps > 0).all()
    assert steps.max() <= basic_pitch.HOP / basic_pitch.SAMPLE_RATE + 1e-9


def test_missing_basic_pitch_says_how_to_get_it(tmp_path, monkeypatch):
    with pytest.raises(basic_pitch.BasicPitchMissingError, match="pip install"):
        basic_pitch.BasicPitch(tmp_path / "nmp.onnx")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(basic_pitch.BasicPitchMissingError, match="--basic-pitch-onnx"):
        basic_pitch.find_onnx()
