"""Pictures of evaluations.

As in `musax.plots`, matplotlib (the `plots` extra) is imported inside the functions and figures are
made without pyplot; `musax.plots.save_figure` writes them.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from musax.plots import plain_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_frontier(
    curves: Mapping[str, Sequence[Mapping[str, Any]]],
    data: Mapping[str, float] | None = None,
    *,
    title: str | None = None,
) -> "Figure":
    """Draw samples by their likelihood under a judge and their variety, a line for each model.

    Points to the right are more varied, points further down likelier. A model is better the nearer
    its line comes to the data.

    Args:
      curves: name -> points in the order of a setting, each with `judge_nats`, `entropy` and the
        `label` of its setting.
      data: the same two numbers of held-out data.
      title: above it.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    for name, points in curves.items():
        x = [point["entropy"] for point in points]
        y = [point["judge_nats"] for point in points]
        axes.plot(x, y, marker="o", markersize=4, label=plain_text(name))
        for point in points:
            place = (point["entropy"], point["judge_nats"])
            axes.annotate(point["label"], place, (4, 3), fontsize=7, textcoords="offset points")
    if data is not None:
        place = (data["entropy"], data["judge_nats"])
        axes.plot(*place, marker="*", markersize=14, color="black", linestyle="", label="data")
    axes.set_xlabel("entropy of bigrams (nats per token)")
    axes.set_ylabel("under the judge (nats per token)")
    axes.grid(color="#dddddd")
    axes.legend(frameon=False)
    if title:
        axes.set_title(plain_text(title))
    return figure


def plot_infilling(
    scores: Mapping[str, Mapping[float, Mapping[str, float]]], *, title: str | None = None
) -> "Figure":
    """Draw tokens found again by the size of gaps, a line with 95 % intervals for each model.

    Args:
      scores: name -> share of the row -> `evaluation.infilling_scores`.
      title: above it.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for i, (name, by_share) in enumerate(scores.items()):
        shares = np.array(list(by_share)) * 100
        mean, low, high = (
            np.array([by_share[s][key] for s in by_share]) for key in ("accuracy", "low", "high")
        )
        bars = np.stack([mean - low, high - mean])
        axes.errorbar(shares + 0.5 * i, mean, bars, marker="o", capsize=3, label=plain_text(name))
    axes.set_xlabel("gap (% of the row)")
    axes.set_ylabel("tokens found again")
    axes.set_ylim(0)
    axes.grid(axis="y", color="#dddddd")
    axes.legend(frameon=False)
    if title:
        axes.set_title(plain_text(title))
    return figure


def plot_warp(
    time: np.ndarray, noise: np.ndarray, loss: np.ndarray, *, title: str | None = None
) -> "Figure":
    """Draw the fitted loss by noise level, and by the warped time, in which it is to be a line.

    Args:
      time: [N + 1], warped, 0 to 1.
      noise: [N + 1], its noise levels.
      loss: [N + 1], fitted, nats.
      title: above it.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.5), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    left.plot(noise, loss)
    left.set_xscale("log")
    left.set_xlabel("standard deviation of the noise")
    left.set_ylabel("cross-entropy (nats)")
    right.plot(time, loss)
    right.set_xlabel("warped time")
    for axes in (left, right):
        axes.grid(color="#dddddd")
    if title:
        figure.suptitle(plain_text(title))
    return figure
