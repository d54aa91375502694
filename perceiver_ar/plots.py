"""Pictures of evaluations: likelihood by position, and what pieces are like.

As in `musax.plots`, matplotlib (the `plots` extra) is imported inside the functions and figures are
made without pyplot; `musax.plots.save_figure` writes them.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from musax.metrics.generated import FEATURES, Pieces
from musax.plots import plain_text
from perceiver_ar.likelihood import Bucket

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_buckets(
    curves: Mapping[str, Sequence[Bucket]],
    *,
    by: str = "position of the token",
    title: str | None = None,
) -> "Figure":
    """Draw nats per token in each bucket, a line for each model.

    Args:
      curves: name -> `likelihood.buckets`, all with the same edges.
      by: the property that defines the buckets.
      title: above it.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    for name, found in curves.items():
        axes.plot(
            [bucket.nats for bucket in found], marker="o", markersize=4, label=plain_text(name)
        )
    longest = max(curves.values(), key=len)
    axes.set_xticks(range(len(longest)), [bucket.name for bucket in longest])
    axes.set_xlabel(by)
    axes.set_ylabel("nats per token")
    axes.grid(axis="y", color="#dddddd")
    figure.legend(loc="outside lower left", frameon=False, fontsize="small")
    if title:
        figure.suptitle(plain_text(title))
    return figure


def plot_statistics(sets: Mapping[str, Pieces], *, title: str | None = None) -> "Figure":
    """Draw histograms of `musax.metrics.generated.FEATURES`, a panel each; the first is filled.

    Args:
      sets: name -> pieces, such as the data and the samples of a model.
      title: above it.

    Raises:
      ValueError: a set has no notes.
    """
    from matplotlib.figure import Figure

    columns = 4
    lines = -(-len(FEATURES) // columns)
    figure = Figure(figsize=(3 * columns, 2.5 * lines), layout="constrained")
    panels = np.ravel(figure.subplots(lines, columns))
    for axes, (name, feature) in zip(panels, FEATURES.items()):
        for i, pieces in enumerate(sets.values()):
            share = feature.histogram(pieces) / len(feature.pooled(pieces))
            axes.stairs(
                share, feature.edges, fill=i == 0, color=f"C{i}", alpha=0.5 if i == 0 else 1
            )
        if feature.unit == "s":
            axes.set_xscale("log")
        axes.set_title(f"{name} ({feature.unit})" if feature.unit else name, fontsize="small")
        axes.tick_params(labelsize="x-small")
    for axes in panels[len(FEATURES) :]:
        axes.set_axis_off()
    figure.legend(
        panels[0].patches, [plain_text(name) for name in sets], loc="lower right", frameon=False
    )
    if title:
        figure.suptitle(plain_text(title))
    return figure
