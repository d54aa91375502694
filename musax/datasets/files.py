"""Files as raw examples, each in one split."""

import functools
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from musax.datasets.splits import hash_split
from t5x.data.sources import FunctionSource, expand_patterns
from t5x.user_paths import user_path

#: Accepted names of a split's folder.
_FOLDERS = {"train": ("train",), "validation": ("validation", "valid", "val"), "test": ("test",)}


def file_source(
    files: str | os.PathLike | Sequence[str],
    suffixes: Sequence[str],
    validation_files: Sequence[str] = (),
    test_files: Sequence[str] = (),
) -> FunctionSource:
    """Return a source of raw examples {"path": str}, one for each file.

    Folders train, validation and test directly below a folder are its splits, as in PG-19. Else
    `validation_files` and `test_files` are, and all others are for training; without these, the
    files' paths decide (`musax.datasets.splits.hash_split`).

    Args:
      files: a folder, for all files below it that end in one of `suffixes`; or glob patterns.
      suffixes: such as ".txt".
      validation_files, test_files: names of files.

    Raises (when read):
      FileNotFoundError: there are no files.
      ValueError: a named file is missing, or a split has no files.
    """
    suffixes = tuple(suffixes)
    if isinstance(files, str | os.PathLike):
        root = user_path(files)
        folders = {
            split: root / name
            for split, names in _FOLDERS.items()
            for name in names
            if (root / name).is_dir()
        }
        if "train" in folders and not validation_files and not test_files:
            read = functools.partial(_examples_below, suffixes=suffixes)
            return FunctionSource({s: functools.partial(read, path) for s, path in folders.items()})
    named = {"validation": frozenset(validation_files), "test": frozenset(test_files)}
    named = {split: names for split, names in named.items() if names}
    splits = ("train", *(named or ("validation", "test")))
    read = functools.partial(_examples_in, files, suffixes, named)
    return FunctionSource({split: functools.partial(read, split) for split in splits})


def _below(folder: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    """Return {path below the folder: path}, sorted; hidden files are left out."""
    found = sorted(
        path
        for path in folder.rglob("*")
        if path.name.lower().endswith(suffixes) and path.is_file() and not path.name.startswith(".")
    )
    if not found:
        raise FileNotFoundError(f"{folder}: no file below it ends in {' or '.join(suffixes)}")
    return {path.relative_to(folder).as_posix(): path for path in found}


def _examples_below(folder: Path, suffixes: tuple[str, ...]) -> list[dict]:
    return [{"path": str(path)} for path in _below(folder, suffixes).values()]


def _examples_in(
    files: str | os.PathLike | Sequence[str],
    suffixes: tuple[str, ...],
    named: Mapping[str, Collection[str]],
    split: str,
) -> list[dict]:
    one = isinstance(files, str | os.PathLike)
    if one and (folder := user_path(files)).is_dir():
        paths = _below(folder, suffixes)
    else:
        paths = {path: Path(path) for path in expand_patterns(files, "files")}
    present = {path.name for path in paths.values()}
    for place, names in named.items():
        if absent := sorted(set(names) - present):
            raise ValueError(f"{place}_files: {absent[0]!r} is none of the files in {files}")

    def split_of(name: str) -> str:
        if named:
            places = (place for place, names in named.items() if Path(name).name in names)
            return next(places, "train")
        place = hash_split(name)
        return "validation" if place == "valid" else place

    found = [{"path": str(path)} for name, path in paths.items() if split_of(name) == split]
    if not found:
        raise ValueError(
            f"none of {len(paths)} files in {files} falls into the split {split!r}; name some with "
            "validation_files and test_files"
        )
    return found
