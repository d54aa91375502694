import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from drums.tempo import estimate_tempo
from musax.midi import load_midi, save_midi
from musax.midi_file import parse
from musax.notes import make_notes

EXAMPLES = Path(__file__).parents[2] / "examples"


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


@pytest.mark.parametrize("bpm", [76.0, 90.0, 117.3, 140.0, 156.0])
def test_steady_beats_are_found_exactly(bpm):
    tempo = estimate_tempo(rock(bpm, start=0.37, jitter=0.003))
    assert tempo.bpm == pytest.approx(bpm, rel=0.003)
    beat = 60 / bpm
    away = (tempo.first_beat - 0.37) % beat
    assert min(away, beat - away) < 0.02


def test_too_few_hits_have_no_tempo():
    assert estimate_tempo(rock(100)[:5]) is None
    assert estimate_tempo(rock(100)[:0]) is None


def test_the_shipped_loop_is_at_95():
    tempo = estimate_tempo(load_midi(EXAMPLES / "drums/rock.mid"))
    assert tempo.bpm == pytest.approx(95.0, rel=1e-3)
    beat = 60 / 95
    assert tempo.first_beat % beat == pytest.approx(0.27789, abs=0.03)


def test_pitched_notes_have_a_tempo_too():
    steps = np.arange(64)
    onset = 0.2 + steps * 30 / 108
    chord = steps % 2 == 0
    notes = np.concatenate(
        [
            make_notes(onset, onset + 0.2, 72 + steps % 5, 80),
            make_notes(onset[chord], onset[chord] + 0.5, 48, 90),
        ]
    )
    tempo = estimate_tempo(notes, steady_seconds=16.0)
    assert tempo.bpm == pytest.approx(108.0, rel=1e-3)
    assert tempo.first_beat == pytest.approx(0.2, abs=0.01)


def test_notes_without_a_beat_have_no_tempo():
    onset = np.random.default_rng(3).uniform(0, 600, 5000)
    assert estimate_tempo(make_notes(onset, onset + 0.1, 60), steady_seconds=16.0) is None


def test_an_hour_takes_a_moment_and_little_memory():
    hour = rock(95.0, start=0.3, bars=1425, jitter=0.003)
    apart = np.concatenate([hour[:200], make_notes(1e9, 1e9 + 1, 36, 100, 0, True)])
    for notes in (hour, apart):
        tracemalloc.start()
        started = time.process_time()
        tempo = estimate_tempo(notes)
        assert time.process_time() - started < 10.0
        assert tracemalloc.get_traced_memory()[1] < 50e6
        tracemalloc.stop()
        assert tempo.bpm == pytest.approx(95.0, rel=1e-3)
    assert estimate_tempo(hour).bpm == pytest.approx(95.0, rel=1e-6)  # a tenth of a beat's drift


def test_a_first_beat_near_the_beginning_makes_no_tempo_beyond_sequencers(tmp_path):
    notes = rock(96.0, start=0.004)
    save_midi(tmp_path / "x.mid", notes, tempo=96.0, first_beat=0.004)
    back = load_midi(tmp_path / "x.mid")
    np.testing.assert_allclose(np.sort(back["onset"]), np.sort(notes["onset"]), atol=1e-3)
    tempi = 6e7 / parse((tmp_path / "x.mid").read_bytes(), "x").tempo_maps[0].us
    assert tempi.max() < 960
    assert tempi[0] == pytest.approx(60 / (0.004 + 60 / 96), rel=1e-3)


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
