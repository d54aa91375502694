"""Drum kits of soundfonts: every key rendered at several velocities, once, and kept as a pad."""

import re
from pathlib import Path

import numpy as np

from musax.drum_pitches import NAMES
from musax.notes import make_notes
from musax.rendering.drum_pads import DrumKit, DrumKitError, Pad, make_pad
from musax.rendering.soundfont_file import DRUM_BANK, SoundfontFile
from musax.rendering.soundfonts import SoundfontError, list_soundfonts
from musax.rendering.synthesizer import Synthesizer

VELOCITIES = (12, 28, 44, 60, 76, 92, 108, 124)
#: Programs of General MIDI 2 and GS whose keys follow `musax.drum_pitches`: standard, room,
#: power, electronic, TR-808, jazz, brush. Orchestral and effect kits are something else.
PROGRAMS = (0, 8, 16, 24, 25, 32, 40)
# Our player has linear velocity and no modulators; soundfonts are made for the square.
_EXTRA_EXPONENT = 0.8
_HELD_SECONDS = 6.0

#: File name of a bank with a layout of its own -> pitch -> key. The AVL drum kits have no second
#: rack tom; their half-open hi-hat is the open one, the swish its edge.
_LAYOUTS = {
    re.compile(r"(black_pearl|red_zeppelin)_[45]"): {
        **{pitch: pitch for pitch in (36, 37, 38, 39, 40, 42, 44, 46, 49, 51, 53, 54, 55, 56, 57)},
        **dict(zip((26, 43, 58, 48, 50, 59, 70), (48, 41, 43, 45, 47, 51, 61))),
    }
}
#: Keys of General MIDI; Roland's other zones (22, 26, 58) mean something else there.
_GENERAL_MIDI = {pitch: pitch for pitch in NAMES if pitch not in (22, 26, 58)}


def list_soundfont_kits() -> dict[str, tuple[Path, int]]:
    """Return name ("bank" or "bank:program") -> (path, program) of every kit found.

    A bank's first kit has the bare name.
    """
    found: dict[str, tuple[Path, int]] = {}
    for path in list_soundfonts():
        for program in _programs(path):
            found.setdefault(
                path.stem if not program else f"{path.stem}:{program}", (path, program)
            )
    return found


def _programs(path: Path) -> list[int]:
    if _layout(path):
        return [0]
    try:
        presets = SoundfontFile(path).presets
    except SoundfontError:  # not for a list to report; playing it does
        return []
    kits = {program for bank, program in presets if bank == DRUM_BANK}
    return [program for program in PROGRAMS if program in kits]


def load_soundfont_kit(path: Path, program: int, name: str, sample_rate: int) -> DrumKit:
    """Render every key of a kit.

    Raises:
      DrumKitError: the bank has no such kit, or it is silent.
      SoundfontError: the file is not a soundfont.
    """
    player = Synthesizer(path, sample_rate)
    layout = _layout(path)
    if layout is None and program not in player.drum_kits:
        raise DrumKitError(
            f"{path}: no drum kit {program}; it holds {player.drum_kits or 'none'}: name one as "
            f"{path.stem}:<program>, or choose another bank"
        )
    pads: dict[int, Pad] = {}
    for pitch, key in (layout or _GENERAL_MIDI).items():
        pad = _strike(player, key, program, layout is None, NAMES[pitch])
        if pad is not None:
            pads[pitch] = pad
    if not pads:
        raise DrumKitError(f"{path}: drum kit {program} is silent; choose another")
    return DrumKit(name, sample_rate, pads)


def _strike(player: Synthesizer, key: int, program: int, is_drum: bool, name: str) -> Pad | None:
    layers: list[tuple[float, list[np.ndarray]]] = []
    for velocity in VELOCITIES:
        note = make_notes([0.0], [_HELD_SECONDS], [key], velocity, program, is_drum)
        hit = player.render(note)
        if layers and _same_timbre(layers[-1][1][0], hit):
            layers[-1] = (velocity + 8, [hit])
        else:
            layers.append((velocity + 8, [hit]))
    return make_pad(layers, player.sample_rate, extra_exponent=_EXTRA_EXPONENT, name=name)


def _same_timbre(a: np.ndarray, b: np.ndarray) -> bool:
    """Return whether two hits are one recording at two levels."""
    length = min(len(a), len(b))
    a, b = a[:length].astype(np.float64), b[:length].astype(np.float64)
    energy = np.sqrt(np.dot(a, a) * np.dot(b, b))
    return bool(energy > 0 and np.dot(a, b) > 0.9999 * energy)


def _layout(path: Path) -> dict[int, int] | None:
    lower = path.stem.lower()
    return next((keys for pattern, keys in _LAYOUTS.items() if pattern.match(lower)), None)
