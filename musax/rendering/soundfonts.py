"""Search for installed soundfonts (SF2, SF3).

The `pretty_midi` wheel, which musax depends on, carries TimGM6mb (a complete General MIDI bank), so
rendering needs no system package. Other banks come from Debian (`fluid-soundfont-gm`,
`musescore-general-soundfont`, `opl3-soundfont`, …) or from the folders in `$MUSAX_SOUNDFONTS`.
"""

import importlib.util
import os
from pathlib import Path

from t5x.user_paths import user_path

SUFFIXES = (".sf2", ".sf3")
SYSTEM_FOLDERS = (
    "/usr/share/sounds/sf2",
    "/usr/share/sounds/sf3",
    "/usr/share/soundfonts",
    "/usr/local/share/soundfonts",
    "~/.local/share/soundfonts",
    "/opt/homebrew/share/soundfonts",
)


class SoundfontError(ValueError):
    """A soundfont is missing, unreadable, or lacks an instrument."""


def soundfont_folders() -> list[Path]:
    """Return the folders that are searched: those of `$MUSAX_SOUNDFONTS`, then the system's."""
    extra = [name for name in os.environ.get("MUSAX_SOUNDFONTS", "").split(os.pathsep) if name]
    return [user_path(name) for name in (*extra, *SYSTEM_FOLDERS)]


def default_soundfont() -> Path:
    """Return the General MIDI bank inside the `pretty_midi` wheel (found without importing it).

    Raises:
      SoundfontError: if that package is not installed with its bank and no other bank is found.
    """
    spec = importlib.util.find_spec("pretty_midi")
    if spec and spec.origin:
        path = Path(spec.origin).parent / "TimGM6mb.sf2"
        if path.is_file():
            return path
    others = _listed_in_folders()
    if others:
        return others[0]
    raise SoundfontError(
        "no soundfont found: expected TimGM6mb.sf2 inside the pretty_midi package; reinstall "
        "pretty_midi, install a soundfont package (Debian: timgm6mb-soundfont), or put an .sf2 "
        "file in a folder named by MUSAX_SOUNDFONTS"
    )


def _listed_in_folders() -> list[Path]:
    found: dict[Path, Path] = {}
    for folder in soundfont_folders():
        if folder.is_dir():
            for path in sorted(folder.iterdir()):
                if path.suffix.lower() in SUFFIXES and path.is_file():
                    found.setdefault(path.resolve(), path)
    return list(found.values())


def list_soundfonts() -> list[Path]:
    """Return every bank found, the default first; links to the same file count once."""
    banks = {path.resolve(): path for path in _listed_in_folders()}
    try:
        default = default_soundfont()
    except SoundfontError:
        return list(banks.values())
    others = [path for path in banks.values() if path.name != default.name]
    return [default, *others]


def find_soundfont(name: str | os.PathLike | None = None) -> Path:
    """Return the path of a bank.

    Args:
      name: a path, or the file name of a listed bank with or without suffix, in any case
        ("FluidR3_GM"); None for `default_soundfont()`.

    Raises:
      SoundfontError: no such soundfont; names those found.
    """
    if name is None:
        return default_soundfont()
    path = user_path(name)
    if path.is_file():
        return path
    wanted = path.name.lower()
    known = list_soundfonts()
    if path.name == os.fspath(name):
        for bank in known:
            if wanted in (bank.name.lower(), bank.stem.lower()):
                return bank
    raise SoundfontError(
        f"{name}: no such soundfont; give the path of an .sf2 or .sf3 file, or one of "
        + ", ".join(bank.stem for bank in known)
    )
