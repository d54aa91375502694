"""Pictures of drum transcriptions: hits under the spectrum, and velocities beside the true ones.

As in `musax.plots`, matplotlib (the `plots` extra) is imported inside the functions and figures are
made without pyplot; `musax.plots.save_figure` writes them.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from musax._drawing import hit_sizes, plain_text, velocity_legend
from musax.drum_pitches import NAMES, kit_order
from musax.metrics.transcription import match_notes
from musax.notes import validate_notes
from musax.spectrograms import SpectrogramConfig, compute_spectrogram

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_HIT, _FALSE, _MISSED = "#00875a", "#d4351c", "#0b63ce"
_LARGEST = 110.0  # points², of a hit of velocity 127
_MARGINS, _COLOURS_WIDTH, _LETTER = 1.9, 3.2, 0.1  # inches
_WIDTH_PER_SECOND, _WIDTHS = 1.1, (7.0, 30.0)


def plot_drums(
    notes: np.ndarray,
    *,
    audio: np.ndarray | None = None,
    sample_rate: int | None = None,
    reference: np.ndarray | None = None,
    names: Mapping[int, str] | None = None,
    start: float = 0.0,
    seconds: float | None = None,
    title: str | None = None,
) -> "Figure":
    """Plot hits as dots, a row for each drum, larger when louder; the spectrum above them.

    Args:
      notes: NOTE_DTYPE [N], the transcription.
      audio, sample_rate: the recording, from time 0; without it no spectrum is drawn.
      reference: true hits; then colours mark correct, false and missed hits.
      names: of the drums by pitch; Roland's by default.
      start, seconds: the part to draw, s; `seconds=None` goes to the end.

    Raises:
      ValueError: bad notes, or `audio` without `sample_rate`.
    """
    from matplotlib.figure import Figure

    validate_notes(notes, "notes to plot")
    if (audio is None) != (sample_rate is None):
        raise ValueError("audio and sample_rate belong together")
    last = max(
        notes["onset"].max(initial=0.0),
        0.0 if reference is None else reference["onset"].max(initial=0.0),
    )
    if audio is not None:
        last = len(audio) / sample_rate  # type: ignore[operator]
    end = max(last, start + 0.1) if seconds is None else start + seconds
    groups = _groups(notes, reference)
    pitches = kit_order(int(p) for hits, *_ in groups for p in hits["pitch"])
    rows = {pitch: row for row, pitch in enumerate(pitches)}
    width = float(np.clip(_WIDTH_PER_SECOND * (end - start), *_WIDTHS))
    heights = [2.2] * (audio is not None) + [0.5 + 0.28 * max(1, len(rows))]
    figure = Figure(figsize=(width, 0.9 + sum(heights)), layout="constrained")
    axes = np.atleast_1d(figure.subplots(len(heights), 1, sharex=True, height_ratios=heights))
    if audio is not None:
        _draw_spectrum(axes[0], audio, int(sample_rate), start, end)  # type: ignore[arg-type]
    grid = axes[-1]
    for hits, colour, label in groups:
        shown = hits[(hits["onset"] >= start) & (hits["onset"] < end)]
        y = [rows[int(p)] for p in shown["pitch"]]
        filled = label != "missed"
        grid.scatter(
            shown["onset"], y, s=hit_sizes(shown["velocity"], _LARGEST), marker="o", linewidths=0.8,
            facecolors=colour if filled else "none", edgecolors=colour, clip_on=False, zorder=3,
        )  # fmt: skip
    called = {**NAMES, **(names or {})}
    grid.set_yticks(range(len(pitches)), [called.get(p, str(p)) for p in pitches])
    grid.set_ylim(len(pitches) - 0.4, -0.6)
    grid.set_xlim(start, end)
    grid.set_xlabel("seconds")
    grid.grid(axis="y", linewidth=0.4, color="#d0d0d0")
    grid.set_axisbelow(True)
    if reference is not None:
        _name_colours(grid, groups)
    velocity_legend(figure, _LARGEST)
    if title:
        room = width - _MARGINS - (_COLOURS_WIDTH if reference is not None else 0.0)
        axes[0].set_title(plain_text(title, int(room / _LETTER)), loc="left")
    return figure


def _groups(notes: np.ndarray, reference: np.ndarray | None):
    """Return (hits, colour, label) of each group that is drawn separately."""
    if reference is None:
        return [(notes, "#333333", "hits")]
    validate_notes(reference, "reference notes to plot")
    pairs = match_notes(reference, notes, offset_ratio=None)
    hit, missed = np.zeros(len(notes), bool), np.ones(len(reference), bool)
    hit[pairs[:, 1]], missed[pairs[:, 0]] = True, False
    return [
        (notes[hit], _HIT, "hit"),
        (notes[~hit], _FALSE, "false"),
        (reference[missed], _MISSED, "missed"),
    ]


def _name_colours(axes, groups) -> None:
    """Draw a legend above the axes, where no hit is."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D(
            [], [], linewidth=0, marker="o", color=colour, label=f"{label} ({len(hits)})",
            markerfacecolor="none" if label == "missed" else colour,
        )
        for hits, colour, label in groups
    ]  # fmt: skip
    axes.legend(
        handles=handles, loc="lower right", bbox_to_anchor=(1, 1), ncols=3, frameon=False,
        fontsize="small", borderaxespad=0.1, handletextpad=0.1,
    )  # fmt: skip


def _draw_spectrum(axes, audio: np.ndarray, sample_rate: int, start: float, end: float) -> None:
    config = SpectrogramConfig(
        sample_rate, hop_width=max(1, sample_rate // 200), num_mel_bins=96, lo_hz=30.0,
        hi_hz=min(16000.0, sample_rate / 2), log_floor=1e-4, clamp=True,
    )  # fmt: skip
    first, last = round(start * sample_rate), min(len(audio), round(end * sample_rate))
    piece = np.asarray(audio[first:last], np.float32)
    db = compute_spectrogram(piece, config) * np.float32(20 / np.log(10))
    top = float(db.max(initial=-60.0))
    extent = (start, start + len(piece) / sample_rate, 0, config.num_mel_bins)
    axes.imshow(
        db.T, origin="lower", aspect="auto", cmap="magma", vmin=top - 70, vmax=top, extent=extent
    )
    hz = [hz for hz in (200, 500, 1000, 2000, 5000, 10000) if hz < config.hi_hz]
    centre = _band_of(hz, config)
    axes.set_yticks(centre, [f"{x} Hz" if x < 1000 else f"{x // 1000} kHz" for x in hz])


def _band_of(hz: list[int], config: SpectrogramConfig) -> np.ndarray:
    from musax.spectrograms import mel_frequencies

    bands = mel_frequencies(config.num_mel_bins, config.lo_hz, config.hi_hz)
    return np.interp(hz, bands, np.arange(len(bands)) + 0.5)


def plot_velocities(
    reference: np.ndarray,
    notes: np.ndarray,
    *,
    names: Mapping[int, str] | None = None,
    title: str | None = None,
) -> "Figure":
    """Plot estimated velocities of the hits over the true ones, a panel for each drum.

    Args:
      reference, notes: NOTE_DTYPE arrays, mapped to the same classes.
      names: of the drums by pitch; Roland's by default.
    """
    from matplotlib.figure import Figure

    pairs = match_notes(reference, notes, offset_ratio=None)
    true, found = reference[pairs[:, 0]], notes[pairs[:, 1]]
    pitches = sorted({int(p) for p in true["pitch"]})
    columns = min(4, max(1, len(pitches)))
    lines = -(-max(1, len(pitches)) // columns)
    figure = Figure(figsize=(2.6 * columns, 2.7 * lines + 0.3), layout="constrained")
    panels = np.atleast_1d(figure.subplots(lines, columns, sharex=True, sharey=True)).ravel()
    called = {**NAMES, **(names or {})}
    for axes, pitch in zip(panels, pitches):
        mine = true["pitch"] == pitch
        axes.plot([0, 127], [0, 127], color="#999999", linewidth=0.8)
        axes.scatter(
            true["velocity"][mine], found["velocity"][mine], s=6, alpha=0.35, color="#0072b2"
        )
        error = np.abs(true["velocity"][mine] - found["velocity"][mine]).mean()
        axes.set_title(f"{called.get(pitch, pitch)}, MAE {error:.1f}", fontsize="small")
        axes.set_xlim(0, 128)
        axes.set_ylim(0, 128)
    for axes in panels[len(pitches) :]:
        axes.set_axis_off()
    figure.supxlabel("true velocity", fontsize="small")
    figure.supylabel("estimated velocity", fontsize="small")
    if title:
        figure.suptitle(plain_text(title))
    return figure
