import pytest

from musax.metrics.generated import FEATURES
from perceiver_ar.likelihood import Bucket
from perceiver_ar.plots import plot_buckets, plot_statistics
from tests.musax.metrics.test_generated import piece


def test_pictures_show_every_set():
    pytest.importorskip("matplotlib")
    figure = plot_statistics({"data": [piece(0)], "samples": [piece(1)]}, title="x")
    drawn = [axes for axes in figure.axes if axes.patches]
    assert len(drawn) == len(FEATURES)
    assert {text.get_text() for text in figure.legends[0].texts} == {"data", "samples"}
    curves = {"a": [Bucket(0, 512, 9, 2.5)], "b": [Bucket(0, 512, 9, 3.5), Bucket(512, None, 9, 2)]}
    axes = plot_buckets(curves, by="position").axes[0]
    assert [line.get_ydata().tolist() for line in axes.lines] == [[2.5], [3.5, 2]]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["0-511", "512+"]
