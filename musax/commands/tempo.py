"""`--tempo` of verbs that write a recording as MIDI: given, estimated, or none."""

import argparse
import warnings
from typing import Any

from musax.commands import numbers

_DEFAULT_TEMPO = 120.0


def add_tempo(parser: argparse.ArgumentParser) -> None:
    """Add `--tempo`."""
    parser.add_argument(
        "--tempo",
        default="auto",
        type=_tempo,
        metavar="BPM",
        help="quarter notes per minute in the MIDI file: a number, auto (estimate it) or none "
        f"({_DEFAULT_TEMPO:g}); notes keep their times; default: %(default)s",
    )


def _tempo(text: str) -> str | float:
    if text in ("auto", "none"):
        return text
    return numbers.real("auto, none or a tempo from 4 to 1000", 4.0, 1000.0)(text)


def find_tempo(
    notes: Any, asked: str | float, steady_seconds: float = 0.0
) -> tuple[dict[str, float], str]:
    """Return the options `tempo` and `first_beat` of `musax.results.save_notes`, and words on them.

    An estimate that fails is a warning, since the notes are worth more than their bar lines.

    Args:
      notes: NOTE_DTYPE [N].
      asked: parsed `--tempo`.
      steady_seconds: see `musax.tempo.estimate_tempo`.
    """
    default = {"tempo": _DEFAULT_TEMPO, "first_beat": 0.0}
    if not isinstance(asked, str):
        return {"tempo": asked, "first_beat": 0.0}, ""
    if asked == "none":
        return default, ""
    from musax.tempo import estimate_tempo

    try:
        found = estimate_tempo(notes, steady_seconds=steady_seconds)
    except Exception as error:
        warnings.warn(
            f"the tempo could not be estimated ({type(error).__name__}: {error}); the MIDI file "
            f"has {_DEFAULT_TEMPO:g} bpm; give it with --tempo",
            UserWarning,
            stacklevel=2,
        )
        return default, ""
    if found is None:
        return default, ""
    return {"tempo": found.bpm, "first_beat": found.first_beat}, f", {found.bpm:.1f} bpm"
