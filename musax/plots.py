"""Plots of transcriptions: notes drawn over the spectrum of the recording.

matplotlib (the `plots` extra) is imported inside the functions, and figures are made without
pyplot, so nothing here needs a display or leaves global state.
"""

import os
import re
import warnings
from typing import TYPE_CHECKING, Literal

import numpy as np

from musax import _drawing as drawing
from musax import spectrograms
from musax._drawing import NoteGroup, note_name, plain_text
from musax._spectrum_image import (
    SpectrumImage,
    hz_to_pitch,
    log_frequency_image,
    log_mel_image,
    pitch_to_hz,
)
from musax.general_midi import PROGRAM_NAMES
from musax.metrics.transcription import match_notes
from musax.notes import validate_notes
from t5x.files import atomic_path
from t5x.user_paths import user_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "SpectrumImage",
    "hz_to_pitch",
    "log_frequency_image",
    "log_mel_image",
    "note_name",
    "pitch_to_hz",
    "plain_text",
    "plot_piano_roll",
    "plot_transcription",
    "save_figure",
]

_MISSING_GLYPH = re.compile(r"Glyph (\d+) .* missing from")
_PALETTE = (  # distinguishable over grey, also with the common colour-vision deficiencies
    "#0072b2", "#d55e00", "#009e73", "#b0228c", "#b8860b", "#1fb5e0", "#8b3a1a", "#5b4fc4",
)  # fmt: skip
_DRUM_COLOUR = "#444c56"
_HIT, _FALSE, _MISSED = "#00875a", "#d4351c", "#0b63ce"

ColourBy = Literal["program", "velocity", "match"]


def plot_transcription(
    notes: np.ndarray,
    *,
    audio: np.ndarray | None = None,
    sample_rate: int | None = None,
    log_mel: np.ndarray | None = None,
    config: spectrograms.SpectrogramConfig | None = None,
    reference: np.ndarray | None = None,
    color_by: ColourBy | None = None,
    partials: int = 1,
    start: float = 0.0,
    seconds: float | None = None,
    title: str | None = None,
) -> "Figure":
    """Plot notes as outlines over the spectrum, at their fundamental.

    Args:
      notes: NOTE_DTYPE [N], the transcription.
      audio, sample_rate: the recording; or
      log_mel, config: its log-mel spectrogram [frames, bins] (`compute_spectrogram`). Both begin
        at time 0. Without either, the notes stand on plain paper.
      reference: true notes; then by default colours mark correct, false and missed notes.
      color_by: "program", "velocity" or "match" (needs `reference`).
      partials: highest partial that is marked by a thin line, 1 for none.
      start, seconds: the part to draw, s; `seconds=None` goes to the end.

    Raises:
      ValueError: for bad notes, or `audio` without `sample_rate`.
    """
    validate_notes(notes, "notes to plot")
    color_by = color_by or ("program" if reference is None else "match")
    image = _spectrum_image(audio, sample_rate, log_mel, config)
    end = _end_time(start, seconds, image, notes, reference)
    groups, scale = _groups(notes, reference, color_by)
    groups = [g.cut(start, end) for g in groups]
    figure, axes, drum_axes = drawing.paper(groups, end - start)
    rows = drawing.drum_rows(groups)
    shown = [g.notes for g in groups if not g.is_drum and len(g.notes)]
    low, high = _pitch_range(shown, partials, image)
    if image is not None:
        drawing.draw_spectrum(axes, image, (low, high), (start, end))
    for group in groups:
        if group.is_drum and drum_axes is not None:
            drawing.draw_drums(drum_axes, group, rows)
        else:
            drawing.draw_outlines(axes, group)
            drawing.draw_partials(axes, group, partials, high)
    drawing.finish(figure, axes, drum_axes, groups, scale, (start, end), (low, high), title)
    return figure


def plot_piano_roll(
    notes: np.ndarray,
    *,
    reference: np.ndarray | None = None,
    color_by: ColourBy | None = None,
    start: float = 0.0,
    seconds: float | None = None,
    line: float | None = None,
    title: str | None = None,
) -> "Figure":
    """Plot notes as bars, loud ones darker, in seconds and note names; drums in their own strip.

    The arguments are those of `plot_transcription`; at the time `line` (s) there is a line, such
    as where a prompt ends.
    """
    validate_notes(notes, "notes to plot")
    color_by = color_by or ("program" if reference is None else "match")
    end = _end_time(start, seconds, None, notes, reference)
    groups, scale = _groups(notes, reference, color_by)
    groups = [g.cut(start, end) for g in groups]
    figure, axes, drum_axes = drawing.paper(groups, end - start)
    rows = drawing.drum_rows(groups)
    limits = _pitch_range([g.notes for g in groups if not g.is_drum and len(g.notes)], 1, None)
    drawing.draw_keyboard(axes, limits)
    if line is not None:
        axes.axvline(line, color=_FALSE, linewidth=1.5, zorder=5)
    for group in groups:
        if group.is_drum and drum_axes is not None:
            drawing.draw_drums(drum_axes, group, rows)
        else:
            drawing.draw_bars(axes, group)
    drawing.finish(figure, axes, drum_axes, groups, scale, (start, end), limits, title)
    return figure


def save_figure(figure: "Figure", path: str | os.PathLike, dpi: int = 150) -> None:
    """Write a figure, complete or not at all; the suffix (.png, .pdf, .svg) chooses the format.

    Characters that the font lacks are drawn as boxes, with one warning.

    Raises:
      ValueError: if matplotlib does not know the suffix or the folder does not exist.
    """
    target = user_path(path)
    known = figure.canvas.get_supported_filetypes()
    if target.suffix.lstrip(".").lower() not in known:
        raise ValueError(f"{path}: unknown picture suffix; use one of {', '.join(sorted(known))}")
    if not target.parent.is_dir():
        raise ValueError(f"{path}: the folder {target.parent} does not exist; create it first")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with atomic_path(target) as temporary:
            figure.savefig(temporary, dpi=dpi, facecolor="white", format=target.suffix[1:].lower())
    messages = dict.fromkeys((str(each.message), each.category) for each in caught)
    missing = [_MISSING_GLYPH.match(text) for text, _ in messages]
    for (text, category), glyph in zip(messages, missing):
        if not glyph:
            warnings.warn(text, category, stacklevel=2)
    lacking = [chr(int(glyph[1])) for glyph in missing if glyph]
    if lacking:
        shown = "".join(lacking[:5]) + ("…" if len(lacking) > 5 else "")
        warnings.warn(
            f"{path}: the font of pictures lacks {len(lacking)} of the characters of names "
            f"({shown}), which are drawn as boxes",
            stacklevel=2,
        )


def _groups(notes, reference, color_by: str):
    """Return the legend's groups, and a colour scale where colours are continuous."""
    if color_by == "match":
        if reference is None:
            raise ValueError("color_by='match' compares with `reference`; give the true notes")
        return _match_groups(notes, validate_notes(reference, "reference notes")), None
    if color_by == "velocity":
        return _velocity_groups(notes)
    if color_by != "program":
        raise ValueError(f"color_by={color_by!r}: expected 'program', 'velocity' or 'match'")
    return _program_groups(notes), None


def _program_groups(notes: np.ndarray) -> list[NoteGroup]:
    pitched = notes[~notes["is_drum"]]
    programs = np.unique(pitched["program"]).tolist()
    groups = [
        NoteGroup(PROGRAM_NAMES[p], pitched[pitched["program"] == p], _PALETTE[i % len(_PALETTE)])
        for i, p in enumerate(programs)
    ]
    drums = notes[notes["is_drum"]]
    return (
        [*groups, NoteGroup("Drums", drums, _DRUM_COLOUR, is_drum=True)] if len(drums) else groups
    )


def _velocity_groups(notes: np.ndarray):
    from matplotlib import cm, colormaps, colors

    scale = cm.ScalarMappable(colors.Normalize(0, 127), colormaps["plasma_r"])
    groups = []
    for is_drum in (False, True):
        part = notes[notes["is_drum"] == is_drum]
        if len(part):
            groups.append(NoteGroup("", part, scale.to_rgba(part["velocity"]), is_drum=is_drum))
    return groups, scale


def _match_groups(notes: np.ndarray, reference: np.ndarray) -> list[NoteGroup]:
    """Return correct notes (matched by onset and pitch), false ones and missed ones."""
    groups = []
    for is_drum in (False, True):
        ref, est = (n[n["is_drum"] == is_drum] for n in (reference, notes))
        pairs = match_notes(ref, est, offset_ratio=None)
        missed = np.delete(ref, pairs[:, 0])
        hit, false = est[pairs[:, 1]], np.delete(est, pairs[:, 1])
        what = " drums" if is_drum else ""
        if len(ref) or len(est):
            groups += [
                NoteGroup(f"hit{what} ({len(hit)})", hit, _HIT, is_drum),
                NoteGroup(f"false{what} ({len(false)})", false, _FALSE, is_drum),
                NoteGroup(f"missed{what} ({len(missed)})", missed, _MISSED, is_drum, dashed=True),
            ]
    return groups


def _spectrum_image(audio, sample_rate, log_mel, config) -> SpectrumImage | None:
    if audio is not None:
        if not sample_rate:
            raise ValueError("plot_transcription: `audio` needs its `sample_rate` (Hz)")
        return log_frequency_image(np.asarray(audio), sample_rate)
    return None if log_mel is None else log_mel_image(log_mel, config)


def _end_time(start, seconds, image, notes, reference) -> float:
    if seconds is not None:
        return start + seconds
    ends = [n["offset"].max(initial=0.0) for n in (notes, reference) if n is not None]
    return max(start + 0.1, *ends, image.seconds[1] if image is not None else 0.0)


def _pitch_range(shown, partials: int, image: SpectrumImage | None) -> tuple[float, float]:
    """Return the range from a little below the lowest note to most notes' marked partials."""
    pitches = np.concatenate([n["pitch"] for n in shown]) if shown else np.array([48, 84])
    low, high = pitches.min() - 4.5, pitches.max() + 4.5
    high = max(high, min(np.median(pitches) + 12 * np.log2(max(partials, 1)) + 4, 120))
    if image is not None:
        low, high = max(low, image.pitches[0]), min(high, image.pitches[1])
    middle, span = (low + high) / 2, max(high - low, 25.0)
    return middle - span / 2, middle + span / 2
