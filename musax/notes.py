"""Notes: one structured NumPy array per piece, times in seconds.

Every function here is pure: it returns a new array and leaves its arguments alone.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

NOTE_DTYPE = np.dtype(
    [
        ("onset", "f8"),
        ("offset", "f8"),
        ("pitch", "i4"),
        ("velocity", "i4"),
        ("program", "i4"),
        ("is_drum", "?"),
    ]
)
CONTROL_DTYPE = np.dtype([("time", "f8"), ("number", "i4"), ("value", "i4"), ("instrument", "i4")])

#: Names of the fields of a note.
NOTE_FIELDS: tuple[str, ...] = NOTE_DTYPE.names or ()

NUM_PITCHES = 128
DRUM_INSTRUMENT = 9
SUSTAIN_CONTROL = 64
SUSTAIN_THRESHOLD = 64

LONGEST_PIECE_HOURS = 6.0

_RANGES = {"pitch": (0, 127), "velocity": (1, 127), "program": (0, 127)}


def make_notes(
    onset: ArrayLike,
    offset: ArrayLike,
    pitch: ArrayLike,
    velocity: ArrayLike = 100,
    program: ArrayLike = 0,
    is_drum: ArrayLike = False,
) -> np.ndarray:
    """Return a note array [N] of scalars or sequences that broadcast together.

    Args:
      onset, offset: times in seconds.
      pitch, velocity, program: MIDI numbers, whole.
      is_drum: True for percussion, whose pitch is the General MIDI drum key.

    Raises:
      ValueError: columns of another shape, or numbers that are not whole where they must be.
    """
    columns = np.broadcast_arrays(onset, offset, pitch, velocity, program, is_drum)
    notes = np.empty(np.atleast_1d(columns[0]).shape, NOTE_DTYPE)
    if notes.ndim != 1:
        raise ValueError(f"notes are one-dimensional; the columns have shape {notes.shape}")
    for name, column in zip(NOTE_FIELDS, columns):
        notes[name] = column if name in ("onset", "offset") else _whole(column, name)
    return notes


def _whole(column: np.ndarray, name: str) -> np.ndarray:
    """Return a column of whole numbers, or raise ValueError: a cast would cut fractions off."""
    if column.dtype.kind in "biu":
        return column
    numbers = np.asarray(column, np.float64)
    bad = ~((numbers == np.trunc(numbers)) & (np.abs(numbers) < 2**31))
    if name == "is_drum":
        bad |= ~np.isin(numbers, (0, 1))
    if bad.any():
        wanted = "true or false, 1 or 0" if name == "is_drum" else "a whole number"
        raise ValueError(f"note {int(np.argmax(bad))}: {name} is {numbers[bad][0]:g}, not {wanted}")
    return column


def empty_notes() -> np.ndarray:
    """Return a note array of length 0."""
    return np.empty(0, NOTE_DTYPE)


def make_controls(
    time: ArrayLike, number: ArrayLike, value: ArrayLike, instrument: ArrayLike = 0
) -> np.ndarray:
    """Return a control-change array [N] (`CONTROL_DTYPE`), times in seconds."""
    columns = np.broadcast_arrays(time, number, value, instrument)
    controls = np.empty(np.atleast_1d(columns[0]).shape, CONTROL_DTYPE)
    for name, column in zip(CONTROL_DTYPE.names or (), columns):
        controls[name] = column
    return controls


def validate_notes(notes: np.ndarray, source: str = "notes") -> np.ndarray:
    """Return `notes`, or raise ValueError naming `source`, the first bad note and its field.

    Times must be finite with 0 <= onset <= offset; pitch and program lie in 0..127, velocity in
    1..127.
    """
    if not isinstance(notes, np.ndarray) or notes.dtype != NOTE_DTYPE or notes.ndim != 1:
        raise ValueError(
            f"{source}: expected a one-dimensional array of NOTE_DTYPE, got "
            f"{getattr(notes, 'dtype', type(notes).__name__)}; build it with make_notes"
        )
    finite = np.isfinite(notes["onset"]) & np.isfinite(notes["offset"])
    _require(finite, notes, source, "onset and offset must be finite seconds")
    _require(notes["onset"] >= 0, notes, source, "onset must not be negative")
    _require(notes["offset"] >= notes["onset"], notes, source, "offset must not precede onset")
    for name, (low, high) in _RANGES.items():
        inside = (notes[name] >= low) & (notes[name] <= high)
        _require(inside, notes, source, f"{name} must be in {low}..{high}")
    return notes


def check_length(notes: np.ndarray, source: str, hours: float = LONGEST_PIECE_HOURS) -> None:
    """Raise ValueError, naming `source`, for notes so late that what is made of them has no end.

    Damaged files have such notes; a grid, a sequence of events or audio up to them would take all
    memory.
    """
    last = float(notes["offset"].max(initial=0.0)) / 3600
    if last > hours:
        index = int(np.argmax(notes["offset"]))
        raise ValueError(
            f"{source}: note {index} {_describe(notes[index])} ends after {last:.1f} hours; at "
            f"most {hours:g} are possible: cut the piece, or check its tempo"
        )


def _require(good: np.ndarray, notes: np.ndarray, source: str, rule: str) -> None:
    if not good.all():
        index = int(np.argmin(good))
        raise ValueError(f"{source}: note {index} {_describe(notes[index])}: {rule}")


def _describe(note: np.void) -> str:
    return "(" + ", ".join(f"{name}={note[name]}" for name in NOTE_FIELDS) + ")"


def sort_notes(notes: np.ndarray) -> np.ndarray:
    """Sort notes by (onset, is_drum, program, pitch, offset), stable."""
    order = np.lexsort(
        (notes["offset"], notes["pitch"], notes["program"], notes["is_drum"], notes["onset"])
    )
    return notes[order]


def shift_notes(notes: np.ndarray, seconds: float) -> np.ndarray:
    """Shift notes by `seconds` (which may be negative)."""
    moved = notes.copy()
    moved["onset"] += seconds
    moved["offset"] += seconds
    return moved


def voice_keys(notes: np.ndarray) -> np.ndarray:
    """Return int64 [N]: one number per (is_drum, program, pitch), ascending in that order."""
    drum = notes["is_drum"].astype(np.int64)
    return (drum * NUM_PITCHES + notes["program"]) * NUM_PITCHES + notes["pitch"]


def trim_overlapping_notes(notes: np.ndarray) -> np.ndarray:
    """End each note no later than the next onset of its (pitch, program, is_drum).

    Notes left without duration are dropped; of notes that start together, the last one stays.
    The order of the remaining notes is kept.
    """
    keys = voice_keys(notes)
    order = np.lexsort((notes["onset"], keys))
    trimmed = notes.copy()
    same_voice = keys[order[:-1]] == keys[order[1:]]
    earlier, later = order[:-1][same_voice], order[1:][same_voice]
    trimmed["offset"][earlier] = np.minimum(notes["offset"][earlier], notes["onset"][later])
    return trimmed[trimmed["onset"] < trimmed["offset"]]


def assign_instruments(notes: np.ndarray) -> np.ndarray:
    """Return int32 [N]: an instrument number per program in order of appearance; drums get 9.

    Programs count 0, 1, 2, … and skip 9, MIDI's percussion channel.
    """
    instruments = np.full(len(notes), DRUM_INSTRUMENT, np.int32)
    pitched = ~notes["is_drum"]
    programs, first, inverse = np.unique(
        notes["program"][pitched], return_index=True, return_inverse=True
    )
    rank = np.empty(len(programs), np.int32)
    rank[np.argsort(first)] = np.arange(len(programs))
    instruments[pitched] = (rank + (rank >= DRUM_INSTRUMENT))[inverse]
    return instruments


def apply_sustain(
    notes: np.ndarray,
    controls: np.ndarray,
    instruments: np.ndarray | None = None,
    end_time: float | None = None,
) -> np.ndarray:
    """Lengthen notes while the sustain pedal (CC64 >= 64) of their instrument is down.

    A note released under the pedal sounds until the pedal rises, until its pitch is struck again
    on the same instrument with the pedal down, or until the last event. A strike under the pedal
    also ends a held note of that pitch; of two notes struck together there, the last one stays.
    Drums are left alone.

    Args:
      notes: note array [N].
      controls: `CONTROL_DTYPE` array [C]; controls other than 64 are ignored.
      instruments: int [N], the instrument of each note as in `controls["instrument"]`; all 0 if
        None.
      end_time: when a pedal that never rises lets go, in seconds; the last event if None.

    Returns:
      A note array of at most N notes, in the order given.
    """
    pedal = controls[controls["number"] == SUSTAIN_CONTROL]
    pitched = ~notes["is_drum"]
    if not pitched.any() or not len(pedal):
        return notes.copy()
    if instruments is None:
        instruments = np.zeros(len(notes), np.int64)
    if end_time is None:
        end_time = float(max(notes["offset"][pitched].max(), pedal["time"].max()))
    sustained = notes.copy()
    for instrument in np.unique(pedal["instrument"]):
        mine = np.flatnonzero((instruments == instrument) & pitched)
        own = pedal[pedal["instrument"] == instrument]
        sustained["offset"][mine] = _sustained_offsets(notes[mine], own, end_time)
    # A note that lost its whole duration to a simultaneous strike is that strike's twin.
    vanished = (sustained["onset"] == sustained["offset"]) & (notes["onset"] < notes["offset"])
    return sustained[~vanished]


def _sustained_offsets(notes: np.ndarray, pedal: np.ndarray, end_time: float) -> np.ndarray:
    """Return float64 [N]: where the notes of one instrument end under its pedal."""
    is_down = pedal["value"] >= SUSTAIN_THRESHOLD
    # Of events at one time, the rise counts last.
    order = np.lexsort((~is_down, pedal["time"]))
    times, is_down = pedal["time"][order], is_down[order]

    def pedal_down_at(when: np.ndarray) -> np.ndarray:
        latest = np.searchsorted(times, when, side="right") - 1
        return (latest >= 0) & is_down[np.maximum(latest, 0)]

    rises = np.append(times[~is_down], end_time)
    next_rise = rises[np.searchsorted(rises[:-1], notes["offset"], side="right")]
    offsets = np.where(pedal_down_at(notes["offset"]), next_rise, notes["offset"])

    order = np.lexsort((notes["onset"], notes["pitch"]))
    pitch, onset = notes["pitch"][order], notes["onset"][order]
    strike = np.where(pedal_down_at(onset), onset, np.inf)
    # The next strike under the pedal within each pitch: a reversed running minimum, in which the
    # pitch separates the groups.
    next_strike = np.full(len(order), np.inf)
    next_strike[:-1] = np.where(pitch[:-1] == pitch[1:], strike[1:], np.inf)
    starts = np.flatnonzero(np.append(True, pitch[1:] != pitch[:-1]))
    for begin, end in zip(starts, np.append(starts[1:], len(order))):
        group = next_strike[begin:end][::-1]
        next_strike[begin:end] = np.minimum.accumulate(group)[::-1]
    bounded = np.empty_like(offsets)
    bounded[order] = np.minimum(offsets[order], next_strike)
    return bounded


def notes_equal(a: np.ndarray, b: np.ndarray, tolerance: float = 0.0) -> bool:
    """Return whether notes agree in order: integers exactly, times within `tolerance` s."""
    if len(a) != len(b):
        return False
    same = all(np.array_equal(a[name], b[name]) for name in NOTE_FIELDS[2:])
    return same and all(
        np.allclose(a[name], b[name], rtol=0, atol=tolerance) for name in ("onset", "offset")
    )


def notes_from_mapping(columns: Mapping[str, Any], source: str = "notes") -> np.ndarray:
    """Return notes of a mapping of columns; `velocity`, `program`, `is_drum` may be missing.

    Raises ValueError naming `source` when a required column is missing or not of whole numbers.
    """
    missing = {"onset", "offset", "pitch"} - set(columns)
    if missing:
        raise ValueError(f"{source}: missing column(s) {sorted(missing)}")
    known = {name: columns[name] for name in NOTE_FIELDS if name in columns}
    try:
        return make_notes(**known)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
