"""The input files that a command line names."""

import glob
from collections.abc import Collection, Sequence
from pathlib import Path

#: Suffixes of the files that a folder stands for; others are read only if they are named.
MIDI_SUFFIXES = frozenset([".mid", ".midi"])
AUDIO_SUFFIXES = frozenset(
    [".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".aif", ".aiff", ".caf", ".au", ".w64"]
)


class InputError(ValueError):
    """An unusable argument of the command line; the message names it and the reason."""


def expand_inputs(
    arguments: Sequence[str], suffixes: Collection[str] = AUDIO_SUFFIXES
) -> list[Path]:
    """Return the files that arguments name, in their order, each once.

    A folder stands for the files in it and below it that have one of the suffixes, a pattern (`*`,
    `?`, `[…]`, `**`) that the shell did not expand for the files it matches. Anything else is taken
    as a file, existing or not.

    Raises:
      InputError: a folder holds no such files, or a pattern matches nothing.
    """
    found: dict[Path, Path] = {}
    for argument in arguments:
        for path in _expand(argument, suffixes):
            found.setdefault(path.resolve(), path)
    return list(found.values())


def is_midi(path: Path) -> bool:
    """Return whether the suffix is that of MIDI files."""
    return path.suffix.lower() in MIDI_SUFFIXES


def _expand(argument: str, suffixes: Collection[str]) -> list[Path]:
    from t5x.user_paths import user_path

    path = user_path(argument)
    if path.is_dir():
        found = (p for p in path.rglob("*") if p.suffix.lower() in suffixes)
        files = sorted(p for p in found if p.is_file() and not p.name.startswith("."))
        if not files:
            names = ", ".join(sorted(suffixes))
            raise InputError(f"{argument}: this folder holds no files ending in {names}")
        return files
    if not path.exists() and glob.has_magic(argument):
        matches = [Path(name) for name in sorted(glob.glob(str(path), recursive=True))]
        if not matches:
            raise InputError(f"{argument}: this pattern matches no files")
        folders = (_expand(str(m), suffixes) if m.is_dir() else [m] for m in matches)
        return [file for files in folders for file in files]
    return [path]
