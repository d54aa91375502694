"""Pictures: what is drawn, where, and that files are complete."""

import itertools
import subprocess
import sys

import numpy as np
import pytest

from musax import plots, spectrograms
from musax.notes import empty_notes, make_notes

pytest.importorskip("matplotlib")
from matplotlib.text import Text

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


def overlapping(figure):
    """Return pairs of visible texts that touch: labels of axes, legends and titles."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    texts = [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip()]
    boxes = [(t.get_text(), t.get_window_extent(canvas.get_renderer())) for t in texts]
    width, height = canvas.get_width_height()
    inside = [(n, b) for n, b in boxes if b.x0 >= 0 and b.x1 <= width and b.y0 < height]
    pairs = itertools.combinations(inside, 2)
    return [(a, b) for (a, first), (b, second) in pairs if first.overlaps(second)]


def busy():
    """Notes of 16 instruments and 40 drums."""
    onset = np.arange(4) * 0.9
    parts = [make_notes(onset, onset + 0.5, 40 + i, 90, 7 * i) for i in range(16)]
    hits = np.arange(40)
    return np.concatenate([*parts, make_notes(hits * 0.1, 4.0, 30 + hits, 20 + hits * 2, 0, True)])


@pytest.mark.parametrize("color_by", ["program", "velocity", "match"])
def test_labels_do_not_touch(color_by):
    notes = busy()
    given = {"color_by": color_by, "title": "a long name of a recording, " * 5}
    for plot in (plots.plot_piano_roll, plots.plot_transcription):
        assert overlapping(plot(notes, reference=notes[::2], **given)) == []
        assert overlapping(plot(notes, reference=notes[::2], seconds=30.0, **given)) == []


def test_drums_lie_in_the_order_of_a_kit_with_a_legend_of_sizes():
    pitches, velocities = [42, 36, 50, 38, 49, 45], [32, 64, 96, 127, 64, 64]
    figure = plots.plot_piano_roll(make_notes(np.arange(6), 7.0, pitches, velocities, 0, True))
    strip = figure.axes[1]
    assert [label.get_text() for label in strip.get_yticklabels()] == [
        *("Bass Drum 1", "Acoustic Snare", "Low Tom", "High Tom", "Closed Hi Hat", "Crash Cymbal 1")
    ]
    (dots,) = strip.collections
    assert np.asarray(dots.get_offsets())[:, 1].tolist() == [4, 0, 3, 1, 5, 2]
    (legend,) = figure.legends
    handles = zip(legend.texts, legend.legend_handles)
    shown = {text.get_text(): handle.get_markersize() ** 2 for text, handle in handles}
    for velocity, size in zip(velocities[:4], dots.get_sizes()):
        assert shown[f"velocity {velocity}"] == pytest.approx(size)


@pytest.mark.parametrize("given", [{}, {"partials": 4}])
def test_overtones_are_drawn_only_if_asked_and_then_named(given):
    notes = make_notes([0.5], [1.5], 60)
    axes = plots.plot_transcription(notes, audio=tone(60), sample_rate=RATE, **given).axes[0]
    thin = [line for line in segments(axes) if len(line) == 2 and line[0, 1] == line[1, 1]]
    assert len(thin) == (3 if given else 0)
    assert ("thin lines: overtones" in [text.get_text() for text in axes.texts]) == bool(given)
