"""The input files that a command line names."""

import glob
import re
import warnings
from collections.abc import Collection, Sequence
from pathlib import Path

#: Suffixes of the files that a folder stands for; others are read only if they are named.
MIDI_SUFFIXES = frozenset([".mid", ".midi"])
AUDIO_SUFFIXES = frozenset(
    [".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".aif", ".aiff", ".caf", ".au", ".w64"]
)
#: Suffixes that a folder does not stand for, but whose files its owner may expect to be read.
_OTHER_AUDIO = frozenset(
    [".m4a", ".m4b", ".mp4", ".aac", ".wma", ".webm", ".mka", ".mov", ".3gp", ".amr", ".aifc"]
)
_OTHER_MIDI = frozenset([".kar", ".rmi", ".smf"])


class InputError(ValueError):
    """An unusable argument of the command line; the message names it and the reason."""


def expand_inputs(
    arguments: Sequence[str], suffixes: Collection[str] = AUDIO_SUFFIXES
) -> list[Path]:
    """Return the files that arguments name, in their order, each once.

    A folder stands for the files in it and below it that have one of the suffixes and are not
    hidden, a pattern (`*`,
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


def _files_below(folder: Path, argument: str, suffixes: Collection[str]) -> list[Path]:
    """Return the files of a folder; those of the same kind in other formats are named."""
    hidden = re.compile(r"(^|/)\.")
    below = ((p.relative_to(folder).as_posix(), p) for p in folder.rglob("*"))
    found = sorted(path for name, path in below if not hidden.search(name))
    files = [p for p in found if p.suffix.lower() in suffixes and p.is_file()]
    kind = _OTHER_AUDIO if ".wav" in suffixes else _OTHER_MIDI
    others = [p for p in found if p.suffix.lower() in kind and p.is_file()]
    passed_over = ""
    if others:
        shown = ", ".join(map(str, others[:5])) + (", …" if len(others) > 5 else "")
        remedy = "convert them" if ".wav" in suffixes else "name them"
        passed_over = f"{len(others)} in other formats ({shown}); {remedy} to have them read"
    if not files:
        names = ", ".join(sorted(suffixes))
        tail = f"; it holds {passed_over}" if passed_over else ""
        raise InputError(f"{argument}: this folder holds no files ending in {names}{tail}")
    if passed_over:
        warnings.warn(f"{argument}: passed over {passed_over}", stacklevel=4)
    return files


def is_midi(path: Path) -> bool:
    """Return whether the suffix is that of MIDI files."""
    return path.suffix.lower() in MIDI_SUFFIXES | _OTHER_MIDI


def _expand(argument: str, suffixes: Collection[str]) -> list[Path]:
    from t5x.user_paths import user_path

    if not argument:
        raise InputError("an empty name among the inputs; expected a file, folder or pattern")
    path = user_path(argument)
    if path.is_dir():
        return _files_below(path, argument, suffixes)
    if not path.exists() and glob.has_magic(argument):
        matches = [Path(name) for name in sorted(glob.glob(str(path), recursive=True))]
        if not matches:
            raise InputError(f"{argument}: this pattern matches no files")
        folders = (_expand(str(m), suffixes) if m.is_dir() else [m] for m in matches)
        return [file for files in folders for file in files]
    return [path]
