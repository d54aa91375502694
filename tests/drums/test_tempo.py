import numpy as np
import pytest

from drums.tempo import estimate_tempo
from musax.midi import load_midi, save_midi
from musax.notes import make_notes

librosa = pytest.importorskip("librosa")


def rock(bpm, start=0.0, bars=8, jitter=0.0):
    """Kick on 1 and 3, snare on 2 and 4, hi-hat in eighths."""
    beat = 60 / bpm
    rng = np.random.default_rng(0)
    parts = [
        (36, np.arange(bars * 2) * 2 * beat),
        (38, np.arange(bars * 2) * 2 * beat + beat),
        (42, np.arange(bars * 8) * beat / 2),
    ]
    onset = np.concatenate([t for _, t in parts]) + start
    onset = np.maximum(0, onset + rng.normal(0, jitter, len(onset)))
    pitch = np.concatenate([[p] * len(t) for p, t in parts])
    velocity = np.where(pitch == 42, 60, 110)
    return make_notes(onset, onset + 0.05, pitch, velocity, 0, True)


@pytest.mark.parametrize("bpm", [90.0, 117.3, 140.0])
def test_steady_beats_are_found_exactly(bpm):
    tempo = estimate_tempo(rock(bpm, start=0.37, jitter=0.003))
    assert tempo.bpm == pytest.approx(bpm, rel=0.003)
    beat = 60 / bpm
    away = (tempo.first_beat - 0.37) % beat
    assert min(away, beat - away) < 0.02


def test_too_few_hits_have_no_tempo():
    assert estimate_tempo(rock(100)[:5]) is None
    assert estimate_tempo(rock(100)[:0]) is None


def test_midi_opens_on_the_grid_and_keeps_its_times(tmp_path):
    pretty_midi = pytest.importorskip("pretty_midi")
    notes = rock(96.0, start=0.41)
    save_midi(tmp_path / "x.mid", notes, tempo=96.0, first_beat=0.41)
    back = load_midi(tmp_path / "x.mid")
    np.testing.assert_allclose(np.sort(back["onset"]), np.sort(notes["onset"]), atol=2e-3)
    midi = pretty_midi.PrettyMIDI(str(tmp_path / "x.mid"))
    beats = midi.get_beats()[1:9]
    np.testing.assert_allclose(beats, 0.41 + np.arange(8) * 60 / 96, atol=1e-3)
    for value in (-1.0, 20.0):
        with pytest.raises(ValueError, match="first_beat"):
            save_midi(tmp_path / "y.mid", notes, first_beat=value)
