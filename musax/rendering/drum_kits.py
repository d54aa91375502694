"""Drum kits: installed ones by name, synthetic ones, and mixtures of kits.

`load_drum_kit("GMRockKit")` reads a kit of the Hydrogen drum machine, `load_drum_kit("FluidR3_GM")`
or `("FluidR3_GM:25")` strikes every drum of a soundfont. `render_drums` (in
`musax.rendering.drum_sampler`) plays them.
"""

import functools
import os
from pathlib import Path

from musax.rendering.drum_pads import DrumKit, DrumKitError, Layer, Pad
from musax.rendering.hydrogen import KIT_FILE, list_hydrogen_kits, load_hydrogen_kit
from musax.rendering.mixed_kits import mix_drum_kits
from musax.rendering.soundfont_kits import list_soundfont_kits, load_soundfont_kit
from musax.rendering.soundfonts import SUFFIXES, SoundfontError, find_soundfont
from musax.rendering.virtual_drums import virtual_drum_kit
from t5x.user_paths import user_path

__all__ = [
    "DrumKit",
    "DrumKitError",
    "Layer",
    "Pad",
    "list_drum_kits",
    "load_drum_kit",
    "mix_drum_kits",
    "virtual_drum_kit",
]


def list_drum_kits() -> list[str]:
    """Return the names of the installed kits: Hydrogen's, then those of soundfonts."""
    return [*list_hydrogen_kits(), *list_soundfont_kits()]


@functools.lru_cache(maxsize=48)
def load_drum_kit(name_or_path: str | os.PathLike, sample_rate: int = 44100) -> DrumKit:
    """Return a kit with all its recordings in memory; cached for the next call.

    Args:
      name_or_path: a folder with drumkit.xml; the path of an .sf2 or .sf3 file, also with
        ":program"; or a name as `list_drum_kits` has it, in any case, or the beginning of just one
        such name ("Red_Zeppelin").
      sample_rate: Hz, to which recordings are resampled.

    Raises:
      DrumKitError: no such kit, or one that cannot be used; names what there is.
    """
    name = os.fspath(name_or_path)
    if sample_rate <= 0:
        raise ValueError(f"sample_rate={sample_rate}: must be positive (Hz)")
    path = user_path(name)
    if path.is_dir():
        if not (path / KIT_FILE).is_file():
            raise DrumKitError(f"{path}: no {KIT_FILE} in it; give the folder of a Hydrogen kit")
        return load_hydrogen_kit(path, sample_rate)
    file, _, program = (
        name.rpartition(":") if name.rpartition(":")[2].isdecimal() else (name, "", "0")
    )
    if Path(file).suffix.lower() in SUFFIXES:
        try:
            found = find_soundfont(file)
        except SoundfontError as error:
            raise DrumKitError(str(error)) from error
        return load_soundfont_kit(found, int(program), name, sample_rate)
    folders, banks = list_hydrogen_kits(), list_soundfont_kits()
    full_name = _complete(name, [*folders, *banks])
    if full_name in folders:
        return load_hydrogen_kit(folders[full_name], sample_rate)
    return load_soundfont_kit(*banks[full_name], full_name, sample_rate)


def _complete(name: str, known: list[str]) -> str:
    wanted = name.lower().removesuffix(":0")
    equal = [kit for kit in known if kit.lower() == wanted]
    longer = [kit for kit in known if kit.lower().startswith(wanted) and ":" not in kit]
    if equal or len(longer) == 1:
        return (equal or longer)[0]
    raise DrumKitError(
        f"{name}: {'not one kit but several' if longer else 'no such drum kit'}; give the folder "
        "of a Hydrogen kit (Debian: hydrogen-drumkits, hydrogen-data), a soundfont, or one of "
        + ", ".join(longer or known)
    )
