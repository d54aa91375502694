"""Pictures: what is drawn, where, and that files are complete."""

import subprocess
import sys

import numpy as np
import pytest

from musax import plots, spectrograms
from musax.notes import empty_notes, make_notes

pytest.importorskip("matplotlib")

RATE = 16000


def tone(pitch, seconds=1.0, silence=0.5):
    time = np.arange(round(seconds * RATE)) / RATE
    wave = 0.3 * np.sin(2 * np.pi * plots.pitch_to_hz(pitch) * time)
    return np.concatenate([np.zeros(round(silence * RATE)), wave]).astype(np.float32)


def loudest(image, seconds):
    """Pitch of the loudest row at a time."""
    frames, rows = image.level_db.shape[1], image.level_db.shape[0]
    at = (seconds - image.seconds[0]) / (image.seconds[1] - image.seconds[0])
    row = np.argmax(image.level_db[:, int(at * frames)])
    return image.pitches[0] + (row + 0.5) / rows * (image.pitches[1] - image.pitches[0])


def segments(axes):
    """Vertices of all line collections of an axes."""
    from matplotlib.collections import LineCollection

    return [
        np.asarray(path.vertices)
        for collection in axes.collections
        if isinstance(collection, LineCollection)
        for path in collection.get_paths()
    ]


def legend_texts(figure):
    return [text.get_text() for text in figure.axes[0].get_legend().get_texts()]


def test_names_and_pitches():
    assert [plots.note_name(p) for p in (0, 60, 69, 70, 127)] == ["C-1", "C4", "A4", "B♭4", "G9"]
    assert plots.hz_to_pitch(440.0) == 69
    np.testing.assert_allclose(plots.hz_to_pitch(plots.pitch_to_hz([21, 60.5])), [21, 60.5])


@pytest.mark.parametrize("pitch", [36, 60, 84, 100])
def test_both_images_show_a_tone_at_its_pitch_and_time(pitch):
    audio = tone(pitch)
    images = [plots.log_frequency_image(audio, RATE)]
    if pitch >= 60:  # mel bands are wide below
        images.append(plots.log_mel_image(spectrograms.compute_spectrogram(audio)))
    for image in images:
        assert loudest(image, 1.0) == pytest.approx(pitch, abs=0.6)
        early, late = (
            image.level_db[:, int((t - image.seconds[0]) / (image.seconds[1] - image.seconds[0])
                                  * image.level_db.shape[1])].max()
            for t in (0.35, 0.65)
        )  # fmt: skip
        assert late > early + 20


def test_outlines_stand_on_fundamentals_and_partials():
    notes = make_notes([0.5, 1.0], [1.5, 1.4], [60, 67], program=[0, 40])
    figure = plots.plot_transcription(notes, audio=tone(60), sample_rate=RATE, partials=3)
    lines = segments(figure.axes[0])
    boxes = [line for line in lines if len(line) == 5]
    corners = [(b[:, 0].min(), b[:, 0].max(), b[:, 1].mean()) for b in (box[:4] for box in boxes)]
    assert corners == [
        pytest.approx((0.5, 1.5, 60)),
        pytest.approx((1.0, 1.4, 67)),
    ]
    flat = {
        (line[0, 0], line[1, 0], round(line[0, 1], 2))
        for line in lines
        if len(line) == 2 and line[0, 1] == line[1, 1]
    }
    assert flat == {(0.5, 1.5, 72), (0.5, 1.5, 79.02), (1.0, 1.4, 79), (1.0, 1.4, 86.02)}
    assert legend_texts(figure) == ["Acoustic Grand Piano", "Violin"]
    assert len(figure.axes[0].images) == 1


def test_match_colours_count_hits_false_and_missed():
    reference = make_notes(
        [0, 1, 2, 3], [0.5, 1.5, 2.5, 3.1], [60, 62, 64, 36], is_drum=[0, 0, 0, 1]
    )
    notes = make_notes([0.01, 1.2, 3], [0.5, 1.5, 3.1], [60, 62, 36], is_drum=[0, 0, 1])
    figure = plots.plot_transcription(notes, reference=reference)
    assert legend_texts(figure) == [
        "hit (1)", "false (1)", "missed (2)",
        "hit drums (1)", "false drums (0)", "missed drums (0)",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="reference"):
        plots.plot_transcription(notes, color_by="match")


def test_window_of_time_is_cut():
    notes = make_notes([0.0, 2.0, 5.0], [1.0, 3.0, 6.0], [50, 60, 70])
    figure = plots.plot_transcription(notes, start=1.5, seconds=2.0, partials=1)
    assert figure.axes[0].get_xlim() == (1.5, 3.5)
    assert [line[:4, 1].mean() for line in segments(figure.axes[0]) if len(line) == 5] == [60]


@pytest.mark.parametrize("plot", [plots.plot_transcription, plots.plot_piano_roll])
@pytest.mark.parametrize("color_by", ["program", "velocity", "match"])
def test_any_notes_can_be_drawn(tmp_path, plot, color_by):
    rng = np.random.default_rng(0)
    onset = rng.uniform(0, 3, 30)
    mixed = make_notes(
        onset, onset + 0.3, rng.integers(0, 128, 30), rng.integers(1, 128, 30),
        rng.integers(0, 128, 30), rng.random(30) < 0.4,
    )  # fmt: skip
    drums = make_notes([0.1, 0.2], 0.3, [36, 120], is_drum=True)
    for number, notes in enumerate((mixed, drums, empty_notes(), mixed[:1])):
        path = tmp_path / f"{number}.png"
        plots.save_figure(plot(notes, reference=mixed, color_by=color_by, title="x"), path, dpi=40)
        assert path.read_bytes().startswith(b"\x89PNG")
    assert len(list(tmp_path.iterdir())) == 4


def test_very_short_audio_and_stereo():
    for audio in (np.zeros(10, np.float32), np.zeros((RATE, 2), np.float32)):
        figure = plots.plot_transcription(empty_notes(), audio=audio, sample_rate=RATE)
        assert np.isfinite(figure.axes[0].images[0].get_array()).all()


def test_bad_arguments():
    with pytest.raises(ValueError, match="sample_rate"):
        plots.plot_transcription(empty_notes(), audio=np.zeros(100))
    with pytest.raises(ValueError, match=r"notes to plot.*pitch"):
        plots.plot_piano_roll(make_notes(0, 1, 300))
    with pytest.raises(ValueError, match="'program', 'velocity' or 'match'"):
        plots.plot_piano_roll(empty_notes(), color_by="loudness")


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
def test_saving(tmp_path, suffix):
    figure = plots.plot_piano_roll(make_notes(0, 1, 60))
    path = tmp_path / f"roll.{suffix}"
    plots.save_figure(figure, path)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    with pytest.raises(ValueError, match=r"\.xyz: unknown picture suffix"):
        plots.save_figure(figure, tmp_path / "roll.xyz")
    with pytest.raises(ValueError, match="does not exist"):
        plots.save_figure(figure, tmp_path / "none" / "roll.png")


def test_import_is_light_and_pyplot_stays_out():
    code = (
        "import sys; from musax import plots; assert 'matplotlib' not in sys.modules; "
        "from musax.notes import make_notes; plots.plot_piano_roll(make_notes(0, 1, 60)); "
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
