"""Where results go: `-o FILE|DIR`, formats, and the files of each result.

One rule serves every verb. A path that ends in a suffix of the verb's formats is a FILE: the folder
around it must exist. Any other path is a DIR, which is created if its parent exists; one that looks
like a file of another format must exist. Results in further formats lie beside FILE under the same
name.
"""

import argparse
import dataclasses
import os
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from musax.commands.files import InputError

NOTE_FORMATS = ("mid", "csv", "json", "png", "wav")
TEXT_FORMATS = ("txt", "json")
AUDIO_FORMATS = ("wav", "flac", "ogg")
_ALIASES = {"midi": "mid", "table": "txt"}
_LONGEST_NAME = 255  # bytes, of common file systems
#: Suffixes that look like those of files, not of folders such as `takes.v2`.
_FILE_SUFFIX = re.compile(r"\.([a-z]{2,4}|mp3|w64)")


@dataclasses.dataclass(frozen=True)
class Job:
    """An input, and the files to write for each of its results.

    Attributes:
      given: the input; None without one.
      results: one mapping from format to path a result; empty if results are printed.
    """

    given: Path | None
    results: tuple[Mapping[str, Path], ...]

    @property
    def source(self) -> Path:
        """The input of a job that has one."""
        assert self.given is not None
        return self.given

    @property
    def outputs(self) -> Mapping[str, Path]:
        """The files of the only result."""
        (only,) = self.results
        return only

    @property
    def subject(self) -> str:
        """Name of the job in messages."""
        return str(self.given or next(iter(self.paths), "text"))

    @property
    def paths(self) -> list[Path]:
        """The files of all results."""
        return [path for result in self.results for path in result.values()]


@dataclasses.dataclass(frozen=True)
class Plan:
    """The work of a verb.

    Attributes:
      jobs: inputs and their results.
      folder: of the results, to be created if it does not exist; None if nothing is to be created.
      overwrite: whether results may replace files that exist.
    """

    jobs: Sequence[Job]
    folder: Path | None = None
    overwrite: bool = False


def plan_outputs(
    args: argparse.Namespace,
    sources: Sequence[Path | None],
    known: Sequence[str] = NOTE_FORMATS,
    *,
    default: str = "mid",
    count: int = 1,
    name: str = "piece",
    infix: str = "result",
    what: str = "results",
) -> Plan:
    """Decide which files are written for each source.

    Args:
      args: parsed options, of which `output`, `format`, `plot`, `render` and `overwrite` are read;
        those that a verb does not have may be absent.
      sources: distinct inputs; None for results without an input.
      known: formats that the verb writes.
      default: format written if none is chosen.
      count: results of each source, numbered from 1 if there are several.
      name: of files in a folder, for results without an input.
      infix: put before the suffix where a result in a folder would replace its source.
      what: the results, for messages.

    Raises:
      InputError: `-o` names no possible place, or several results would share one file.
    """
    file, folder = _read_output(args.output, known, what)
    formats = _formats(args, file, default)
    unknown = [fmt for fmt in formats if fmt not in known]
    if unknown:
        raise InputError(
            f"format {unknown[0]}: {what} are not written in it; choose from {', '.join(known)}"
        )
    if file is not None and len(sources) > 1:
        raise InputError(
            f"{file}: one file for {len(sources)} inputs; give a folder with -o DIR instead"
        )
    if file is not None:
        stems = [file.with_suffix("")]
    else:
        places = [folder or (source.parent if source else Path()) for source in sources]
        named = [source or Path(f"{name}.{default}") for source in sources]
        stems = [p / stem for p, stem in zip(places, _distinct_names(named, places))]
    taken = {source.resolve() for source in sources if source is not None}
    jobs = []
    for source, stem in zip(sources, stems):
        results = []
        for number in range(1, count + 1):
            tail = f"-{number}" if count > 1 else ""
            result = {fmt: Path(f"{stem}{tail}.{fmt}") for fmt in formats}
            if file is not None:
                result[formats[0]] = Path(f"{stem}{tail}{file.suffix}")
            results.append(_spare_sources(result, taken, infix, file))
        jobs.append(Job(source, tuple(results)))
    return Plan(jobs, folder, args.output is not None or getattr(args, "overwrite", False))


def format_of(path: Path, known: Sequence[str]) -> str | None:
    """Return the format in `known` that the suffix of a path names, or None."""
    suffix = path.suffix.lower().removeprefix(".")
    name = _ALIASES.get(suffix, suffix)
    return name if name in known else None


def read_formats(known: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    """Return an argparse type that reads a comma-separated list of formats."""

    def read(text: str) -> tuple[str, ...]:
        names = [part.strip().lower().removeprefix(".") for part in text.split(",")]
        names = [_ALIASES.get(name, name) for name in names]
        unknown = [name for name in names if name not in known]
        if unknown:
            raise argparse.ArgumentTypeError(
                f"unknown format {unknown[0]!r}; choose from {', '.join(known)}"
            )
        return tuple(dict.fromkeys(names))

    return read


def _read_output(
    output: Path | None, known: Sequence[str], what: str
) -> tuple[Path | None, Path | None]:
    """Return (FILE, None), (None, DIR), or (None, None) without `-o`."""
    if output is None:
        return None, None
    is_file = format_of(output, known) is not None
    names = ", ".join(f".{name}" for name in known)
    if is_file and output.is_dir():
        raise InputError(
            f"{output}: this is a folder, and a name ending in {output.suffix} means a file; "
            "choose another name with -o"
        )
    if not is_file and not output.is_dir():
        if _FILE_SUFFIX.fullmatch(output.suffix.lower()):
            raise InputError(
                f"{output}: {what} are not written in this format; expected a file ending in "
                f"{names}, or a folder (create it first if it has this name)"
            )
        if output.exists():
            raise InputError(
                f"{output}: this file is not a folder; give -o a folder, or a file ending in "
                f"{names}"
            )
    if not output.is_dir() and not output.absolute().parent.is_dir():
        raise InputError(
            f"{output.parent}: no such folder; create it, or choose another place with -o"
        )
    return (output, None) if is_file else (None, output)


def _formats(args: argparse.Namespace, file: Path | None, default: str) -> list[str]:
    """Return the formats to write, that of FILE first."""
    own = [] if file is None else [_ALIASES.get(file.suffix.lower()[1:], file.suffix.lower()[1:])]
    chosen = [*own, *(getattr(args, "format", None) or ())] or [default]
    shorthands = (("plot", "png"), ("render", "wav"))
    chosen += [fmt for option, fmt in shorthands if getattr(args, option, False)]
    return list(dict.fromkeys(chosen))


def _spare_sources(
    result: dict[str, Path], taken: set[Path], infix: str, file: Path | None
) -> dict[str, Path]:
    """Rename results in a folder that would replace an input; refuse those that FILE names."""
    for fmt, path in result.items():
        if path.resolve() in taken:
            if file is not None:
                raise InputError(
                    f"{path}: a result would replace this input; choose another name with -o"
                )
            result[fmt] = path.with_name(f"{path.stem}.{infix}.{fmt}")
    return result


def _distinct_names(sources: Sequence[Path], places: Sequence[Path]) -> list[str]:
    """Return names without suffix, longer ones where sources would share one.

    These are the whole file name (`a.wav.mid`, `a.mp3.mid`), then the name of the folder before it,
    then a number.
    """
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


# ------------------------------------------------------------------------------------------ checks


def check_places(plan: Plan) -> None:
    """Raise InputError if results could not be written; creates nothing."""
    for path in (path for job in plan.jobs for path in job.paths):
        size = len(os.fsencode(path.name))
        if size > _LONGEST_NAME:
            raise InputError(
                f"{path.name}: a name of {size} bytes, expected {_LONGEST_NAME} at most; choose a "
                "shorter one with -o FILE"
            )
        if path.is_dir():
            raise InputError(f"{path}: this is a folder; choose another place with -o")
    for folder in {path.parent for job in plan.jobs for path in job.paths}:
        if folder.is_dir():
            ensure_writable(folder)
        elif folder == plan.folder:
            ensure_writable(folder.absolute().parent)


def check_formats(args: argparse.Namespace, plan: Plan) -> None:
    """Check that every format of the plan can be written.

    Raises:
      ImportError: a format needs an extra that is not installed.
      ValueError: a soundfont does not exist, or `--soundfont` or `--kit` is given without audio.
    """
    soundfont, kit = (getattr(args, name, None) for name in ("soundfont", "kit"))
    suffixes = {f".{fmt}" for job in plan.jobs for result in job.results for fmt in result}
    audio = suffixes.intersection(f".{fmt}" for fmt in AUDIO_FORMATS)
    if (soundfont or kit) and not audio:
        option = "--soundfont" if soundfont else "--kit"
        raise InputError(f"{option}: only audio needs it; add --render, or omit it")
    if not suffixes:
        return
    from musax.results import check_extra

    for suffix in sorted(suffixes - audio if kit else suffixes):
        check_extra(suffix)
    if audio and not kit:
        from musax.rendering.soundfonts import find_soundfont

        find_soundfont(soundfont)


def check_overwriting(job: Job) -> None:
    """Raise InputError if results exist."""
    found = [path for path in job.paths if os.path.lexists(path)]
    if found:
        raise InputError(f"{found[0]}: exists already; give -o, or --overwrite to replace it")


def ensure_writable(folder: Path) -> None:
    """Raise InputError, with the reason, if no file can be created in a folder."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(
            f"{folder}: cannot write into this folder ({reason}); choose another with -o"
        ) from error
