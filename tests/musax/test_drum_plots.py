import numpy as np
import pytest

from musax.drum_plots import plot_drums, plot_velocities
from musax.notes import make_notes
from musax.plots import save_figure
from tests.musax.test_plots import overlapping

pytest.importorskip("matplotlib")

NOTES = make_notes([0.1, 0.5, 0.9], 1.0, [36, 38, 42], [120, 60, 20], 0, True)
AUDIO = np.random.default_rng(0).normal(0, 0.1, 44100).astype(np.float32)


def sizes(axes):
    return np.concatenate([c.get_sizes() for c in axes.collections])


def test_hits_are_rows_and_loud_ones_large():
    figure = plot_drums(NOTES, audio=AUDIO, sample_rate=44100, title="Take 5")
    spectrum, grid = figure.axes
    assert [t.get_text() for t in grid.get_yticklabels()] == ["closed hi-hat", "snare", "kick"]
    (dots,) = grid.collections
    offsets = np.asarray(dots.get_offsets())
    np.testing.assert_allclose(offsets[:, 0], NOTES["onset"])
    assert offsets[:, 1].tolist() == [2, 1, 0]
    assert (np.diff(sizes(grid)) < 0).all()
    assert spectrum.get_title(loc="left") == "Take 5"
    assert spectrum.images[0].get_array().shape[0] == 96


def test_a_reference_tells_hits_from_misses(tmp_path):
    reference = make_notes([0.11, 0.7], 1.0, [36, 38], 100, 0, True)
    figure = plot_drums(NOTES, reference=reference, seconds=1.0)
    (grid,) = figure.axes
    labels = [t.get_text() for t in grid.get_legend().get_texts()]
    assert labels == ["hit (1)", "false (2)", "missed (1)"]
    save_figure(figure, tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 1000


def test_nothing_to_draw():
    assert plot_drums(NOTES[:0], audio=AUDIO, sample_rate=44100).axes
    with pytest.raises(ValueError, match="belong together"):
        plot_drums(NOTES, audio=AUDIO)


def test_velocities_have_a_panel_for_each_drum():
    heard = NOTES.copy()
    heard["velocity"] = [110, 70, 25]
    figure = plot_velocities(NOTES, heard, names={36: "boom"})
    titles = [a.get_title() for a in figure.axes if a.axison]
    assert titles == ["boom, MAE 10.0", "snare, MAE 10.0", "closed hi-hat, MAE 5.0"]
    assert plot_velocities(NOTES, NOTES[:0]).axes


def test_a_kit_from_cymbals_to_kick_and_a_legend_of_sizes():
    pitches = [36, 38, 40, 41, 43, 45, 48, 44, 42, 22, 46, 51, 53, 49, 56]
    notes = make_notes(np.arange(15) / 10, 2.0, pitches, 64, 0, True)
    figure = plot_drums(notes, reference=notes[:5], title="x" * 200)
    (grid,) = figure.axes
    assert [label.get_text() for label in grid.get_yticklabels()] == [
        *("cowbell", "crash 1", "ride", "ride bell", "open hi-hat", "closed hi-hat"),
        *("closed hi-hat edge", "hi-hat pedal", "tom 1", "tom 2", "tom 3", "low floor tom"),
        *("snare", "snare rim", "kick"),
    ]
    (legend,) = figure.legends
    handles = dict(zip((text.get_text() for text in legend.texts), legend.legend_handles))
    assert handles["velocity 64"].get_markersize() ** 2 == pytest.approx(float(sizes(grid)[0]))
    assert overlapping(figure) == []
    assert overlapping(plot_drums(notes, audio=AUDIO, sample_rate=44100, title="x" * 200)) == []
