"""Which files a command line names, and where its results go."""

import dataclasses
import glob
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

#: What a folder is searched for; other files are read only when named themselves.
AUDIO_SUFFIXES = frozenset(
    [".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".aif", ".aiff", ".caf", ".au", ".w64"]
)


class InputError(ValueError):
    """An argument names no files, or results have no place; the message says which and why."""


@dataclasses.dataclass(frozen=True)
class Job:
    """An input, and the files to write for it by format ("mid" -> path)."""

    source: Path
    outputs: dict[str, Path]

    @property
    def names(self) -> str:
        """The outputs, to be read."""
        return ", ".join(str(path) for path in self.outputs.values())


def expand_inputs(arguments: Sequence[str]) -> list[Path]:
    """Files named by arguments, in their order, each once.

    A folder stands for the audio files in it and below it; a pattern (`*`, `?`, `[…]`, `**`) that
    the shell has left for what it matches. Anything else is taken as a file, existing or not.

    Raises:
      InputError: a folder holds no audio, or a pattern matches nothing.
    """
    found: dict[Path, Path] = {}
    for argument in arguments:
        for path in _expand(argument):
            found.setdefault(path.resolve(), path)
    return list(found.values())


def _expand(argument: str) -> list[Path]:
    path = Path(argument).expanduser()
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if _is_audio(p))
        if not files:
            raise InputError(f"{argument}: no audio files in this folder ({_suffixes()})")
        return files
    if not path.exists() and glob.has_magic(argument):
        matches = [Path(name) for name in sorted(glob.glob(str(path), recursive=True))]
        if not matches:
            raise InputError(f"{argument}: this pattern matches no files")
        return [
            p for match in matches for p in (_expand(str(match)) if match.is_dir() else [match])
        ]
    return [path]


def _is_audio(path: Path) -> bool:
    return path.suffix.lower() in AUDIO_SUFFIXES and path.is_file() and path.name[0] != "."


def _suffixes() -> str:
    return ", ".join(sorted(AUDIO_SUFFIXES))


def plan_outputs(
    sources: Sequence[Path], formats: Sequence[str], folder: Path | None = None
) -> list[Job]:
    """Where the results of each source go: `<stem>.<format>`, never onto a source.

    Args:
      sources: distinct files.
      formats: suffixes without a dot.
      folder: of all results; None for the folder of each source.

    Sources whose results would share a name get longer ones: their whole file name (`a.wav.mid`,
    `a.mp3.mid`), then the name of their folder before it, then a number.
    """
    places = [folder or source.parent for source in sources]
    names = _distinct_names(sources, places)
    taken = {source.resolve() for source in sources}
    jobs = []
    for source, place, name in zip(sources, places, names):
        outputs = {}
        for suffix in formats:
            path = place / f"{name}.{suffix}"
            if path.resolve() in taken:
                path = place / f"{name}.transcribed.{suffix}"
            outputs[suffix] = path
        jobs.append(Job(source, outputs))
    return jobs


def _distinct_names(sources: Sequence[Path], places: Sequence[Path]) -> list[str]:
    ways: list[Callable[[Path], str]] = [
        lambda source: source.stem,
        lambda source: source.name,
        lambda source: f"{source.resolve().parent.name}-{source.name}",
    ]
    names = [""] * len(sources)
    clashing: Iterable[int] = range(len(sources))
    for way in ways:
        for i in clashing:
            names[i] = way(sources[i])
        # File systems may not tell upper from lower case.
        keys = [(place, name.casefold()) for place, name in zip(places, names)]
        counts = Counter(keys)
        clashing = [i for i, key in enumerate(keys) if counts[key] > 1]
    for number, i in enumerate(clashing, start=1):
        names[i] = f"{names[i]}-{number}"
    return names


def ensure_writable(folder: Path) -> None:
    """Makes `folder` if need be, and a file in it to see that this works.

    Raises:
      InputError: it does not; the message says why.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(
            f"{folder}: cannot write into this folder ({reason}); choose another with -o"
        ) from error


def existing(paths: Iterable[Path]) -> list[Path]:
    """Those of `paths` that exist."""
    return [path for path in paths if os.path.lexists(path)]
