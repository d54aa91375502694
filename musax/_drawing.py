"""Drawing of notes and spectra for `musax.plots`."""

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from musax._spectrum_image import SpectrumImage, hz_to_pitch
from musax.drum_pitches import NAMES, kit_order

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NOTE_NAMES = ("C", "C♯", "D", "E♭", "E", "F", "F♯", "G", "A♭", "A", "B♭", "B")

_INK = "#22272e"
_ROW_HEIGHT = 0.17  # inches, of a drum
_MARGINS = 1.7  # inches beside the axes
_LEGEND_LETTER, _TITLE_LETTER = 0.075, 0.1  # inches, mean width
_DYNAMIC_RANGE_DB = 45.0


def plain_text(text: str, longest: int = 80) -> str:
    """Return a text that Matplotlib draws literally, on one line, cut in its middle if too long."""
    text = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    if len(text) > longest:
        half = (longest - 1) // 2
        text = f"{text[:half]}…{text[-half:]}"
    return text.replace("$", r"\$")


def note_name(pitch: float) -> str:
    """Return the name of a MIDI pitch, "C4" for 60 (middle C)."""
    number = round(pitch)
    return f"{NOTE_NAMES[number % 12]}{number // 12 - 1}"


@dataclasses.dataclass(frozen=True)
class NoteGroup:
    """Notes that share a legend entry. `colours`: one for all, or one per note [N, 4]."""

    label: str
    notes: np.ndarray
    colours: Any
    is_drum: bool = False
    dashed: bool = False

    def cut(self, start: float, end: float) -> "NoteGroup":
        """Return the notes that are visible between `start` and `end` (s); of drums, the hits."""
        first = self.notes["onset" if self.is_drum else "offset"]
        keep = (self.notes["onset"] < end) & (first >= start)
        colours = self.colours if isinstance(self.colours, str) else self.colours[keep]
        return dataclasses.replace(self, notes=self.notes[keep], colours=colours)


def paper(groups, seconds: float):
    """Return an empty figure, its main axes and, if there are drums, a strip below them."""
    from matplotlib.figure import Figure

    drums = any(group.is_drum for group in groups)
    width = float(np.clip(4.0 + 0.9 * seconds, 8.0, 22.0))
    strip_height = 0.4 + _ROW_HEIGHT * len(drum_rows(groups)) if drums else 0.0
    figure = Figure(figsize=(width, 5.6 + strip_height), layout="constrained")
    if not drums:
        return figure, figure.add_subplot(), None
    axes, strip = figure.subplots(2, 1, sharex=True, height_ratios=[5, strip_height])
    return figure, axes, strip


def drum_rows(groups) -> dict[int, int]:
    """Return the row of each drum by pitch, in the order of a kit; 0 is the lowest."""
    found = [group.notes["pitch"].tolist() for group in groups if group.is_drum]
    ordered = kit_order(pitch for pitches in found for pitch in pitches)
    return {pitch: row for row, pitch in enumerate(reversed(ordered))}


def hit_sizes(velocity, largest: float = 40.0) -> np.ndarray:
    """Return areas, points², of the dots of hits."""
    return 0.1 * largest + 0.9 * largest * (np.asarray(velocity) / 127.0) ** 2


def velocity_legend(figure, largest: float = 40.0) -> None:
    """Say below a figure which velocities dots of some sizes stand for."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D(
            [], [], linewidth=0, marker="o", color="#6b7682",
            markersize=float(hit_sizes(velocity, largest) ** 0.5), label=f"velocity {velocity}",
        )
        for velocity in (32, 64, 96, 127)
    ]  # fmt: skip
    figure.legend(
        handles=handles, loc="outside lower right", ncols=len(handles), frameon=False, fontsize=8,
        handletextpad=0.1, columnspacing=1.2, labelcolor=_INK, borderaxespad=0.1,
    )  # fmt: skip


def draw_spectrum(axes: "Axes", image: SpectrumImage, pitches, seconds) -> None:
    """Draw the spectrum in grey on white, so that colours belong to the notes alone."""
    frames = np.linspace(*image.seconds, image.level_db.shape[1])
    rows = np.linspace(*image.pitches, image.level_db.shape[0])
    visible = image.level_db[(rows >= pitches[0]) & (rows <= pitches[1])]
    visible = visible[:, (frames >= seconds[0]) & (frames <= seconds[1])]
    loudest = np.percentile(visible, 99.8) if visible.size else 0.0
    axes.imshow(
        image.level_db,
        cmap="Greys",
        vmin=loudest - _DYNAMIC_RANGE_DB,
        vmax=loudest + 10.0,  # the loudest partial is dark grey, so lines still show on it
        extent=(*image.seconds, *image.pitches),
        origin="lower",
        aspect="auto",
        interpolation="bilinear",
        zorder=0,
    )


def _boxes(notes: np.ndarray, height: float = 0.9) -> np.ndarray:
    """Return the corners of each note's box: [N, 5, 2], closed."""
    left, right = notes["onset"], np.maximum(notes["offset"], notes["onset"] + 0.015)
    low, high = notes["pitch"] - height / 2, notes["pitch"] + height / 2
    x = np.stack([left, right, right, left, left], axis=1)
    y = np.stack([low, low, high, high, low], axis=1)
    return np.stack([x, y], axis=-1)


def draw_outlines(axes: "Axes", group: NoteGroup) -> None:
    from matplotlib import collections, patheffects

    halo = [patheffects.withStroke(linewidth=3.2, foreground="white", alpha=0.85)]
    lines = collections.LineCollection(
        list(_boxes(group.notes)),
        colors=group.colours,
        linewidths=1.5,
        linestyles=(0, (3, 1.5)) if group.dashed else "solid",
        path_effects=halo,
        zorder=3,
    )
    axes.add_collection(lines, autolim=False)
    onsets = np.stack([_boxes(group.notes, 1.25)[:, i] for i in (0, 3)], axis=1)
    axes.add_collection(
        collections.LineCollection(list(onsets), colors=group.colours, linewidths=3.0, zorder=4),
        autolim=False,
    )


def draw_partials(axes: "Axes", group: NoteGroup, partials: int, highest: float) -> None:
    """Draw thin lines where the partials of a note would sound, fainter with their number."""
    from matplotlib import collections

    if group.dashed:
        return
    notes = group.notes
    if partials > 1:
        axes.text(
            1.0, 1.005, "thin lines: overtones", transform=axes.transAxes, ha="right", va="bottom",
            fontsize=8, color="#6b7682",
        )  # fmt: skip
    for number in range(2, partials + 1):
        height = notes["pitch"] + 12 * np.log2(number)
        keep = height < highest
        ends = [np.stack([notes[k], height], axis=1) for k in ("onset", "offset")]
        colours = group.colours if isinstance(group.colours, str) else group.colours[keep]
        axes.add_collection(
            collections.LineCollection(
                list(np.stack(ends, axis=1)[keep]),
                colors=colours,
                linewidths=1.0,
                alpha=0.75 / number**0.5,
                zorder=2,
            ),
            autolim=False,
        )


def draw_bars(axes: "Axes", group: NoteGroup) -> None:
    from matplotlib import collections, colors

    face = np.broadcast_to(colors.to_rgba_array(group.colours), (len(group.notes), 4)).copy()
    if isinstance(group.colours, str):
        face[:, 3] = 0.3 + 0.6 * group.notes["velocity"] / 127
    axes.add_collection(
        collections.PolyCollection(
            list(_boxes(group.notes)),
            facecolors="none" if group.dashed else face,
            edgecolors=group.colours,
            linewidths=1.2 if group.dashed else 0.6,
            linestyles=(0, (3, 1.5)) if group.dashed else "solid",
            zorder=3,
        ),
        autolim=False,
    )


def draw_keyboard(axes: "Axes", limits) -> None:
    """Draw a light band behind every black key."""
    for pitch in range(int(np.floor(limits[0])), int(np.ceil(limits[1])) + 1):
        if "♯" in NOTE_NAMES[pitch % 12] or "♭" in NOTE_NAMES[pitch % 12]:
            axes.axhspan(pitch - 0.5, pitch + 0.5, color="#f0f2f5", linewidth=0, zorder=0)


def draw_drums(axes: "Axes", group: NoteGroup, rows) -> None:
    axes.scatter(
        group.notes["onset"],
        [rows[pitch] for pitch in group.notes["pitch"].tolist()],
        s=hit_sizes(group.notes["velocity"]),
        marker="o",
        facecolors="none" if group.dashed else group.colours,
        edgecolors=group.colours,
        linewidths=1.2,
        clip_on=False,
        zorder=3,
    )


def finish(figure, axes, drum_axes, groups, scale, seconds, pitches, title) -> None:
    """Set scales, axis labels and legend."""
    axes.set_xlim(*seconds)
    axes.set_ylim(*pitches)
    _name_pitches(axes, pitches)
    bottom = axes if drum_axes is None else drum_axes
    bottom.set_xlabel("time (s)", color=_INK)
    if drum_axes is not None:
        axes.tick_params(labelbottom=False)
        _name_drums(drum_axes, drum_rows(groups))
        velocity_legend(figure)
    for each in filter(None, (axes, drum_axes)):
        each.tick_params(colors=_INK, labelsize=9 if each is axes else 8)
        each.spines[["top", "right"]].set_visible(False)
        each.spines[["left", "bottom"]].set_color("#9aa4af")
    pad = 6
    if scale is not None:
        figure.colorbar(scale, ax=axes, label="velocity", pad=0.01, aspect=30)
    else:
        lines = _legend(axes, groups, figure.get_figwidth() - _MARGINS)
        pad += 6 + 14 * lines if lines else 0
    if title:
        text = plain_text(title, int((figure.get_figwidth() - _MARGINS) / _TITLE_LETTER))
        axes.set_title(text, loc="left", fontsize=12, color=_INK, pad=pad)


def _legend(axes: "Axes", groups, width: float) -> int:
    """Draw the legend above the axes, in lines of `width` inches; return how many there are."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D(
            [0], [0],
            color=group.colours,
            linewidth=0 if group.is_drum else 2.4,
            linestyle=(0, (2, 1)) if group.dashed else "-",
            marker="o" if group.is_drum else None,
            markersize=6,
            markerfacecolor="none" if group.dashed else group.colours,
            label=group.label,
        )
        for group in groups
    ]  # fmt: skip
    if not handles:
        return 0
    longest = max(len(group.label) for group in groups)
    columns = int(max(1, min(6, width / (0.5 + _LEGEND_LETTER * longest))))
    axes.legend(
        handles=handles, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=columns, frameon=False,
        fontsize=9, borderaxespad=0.2, handlelength=1.6, columnspacing=1.4, labelcolor=_INK,
    )  # fmt: skip
    return -(-len(handles) // columns)


def _name_pitches(axes: "Axes", limits) -> None:
    """Label notes on the left (every C; more where they fit) and Hz on the right."""
    low, high = int(np.ceil(limits[0])), int(np.floor(limits[1]))
    steps = {0} if high - low > 40 else {0, 4, 7, 9} if high - low > 26 else {0, 2, 4, 5, 7, 9, 11}
    named = [pitch for pitch in range(low, high + 1) if pitch % 12 in steps]
    axes.set_yticks(named, [note_name(pitch) for pitch in named])
    octaves = [pitch for pitch in range(low, high + 1) if pitch % 12 == 0]
    for pitch in octaves:
        axes.axhline(pitch - 0.5, color="#7b8794", linewidth=0.5, alpha=0.45, zorder=1)
    axes.set_ylabel("pitch", color=_INK)
    right = axes.secondary_yaxis("right")
    hz = np.array([50, 100, 200, 500, 1000, 2000, 5000])
    heights = hz_to_pitch(hz)
    inside = (heights > limits[0]) & (heights < limits[1])
    labels = [f"{v // 1000} kHz" if v >= 1000 else f"{v} Hz" for v in hz[inside]]
    right.set_yticks(heights[inside], labels)
    right.tick_params(colors="#6b7682", labelsize=8, length=3)
    right.spines["right"].set_visible(False)


def _name_drums(axes: "Axes", rows) -> None:
    import pretty_midi

    names = [
        pretty_midi.note_number_to_drum_name(pitch) or NAMES.get(pitch, str(pitch))
        for pitch in rows
    ]
    axes.set_yticks(list(rows.values()), names)
    axes.set_ylim(-0.8, len(rows) - 0.2)
    axes.grid(axis="y", color="#e3e7eb", linewidth=0.6, zorder=0)
    axes.set_axisbelow(True)
