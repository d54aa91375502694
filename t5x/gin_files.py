"""Find and read gin files: search paths, includes, encodings.

A name is searched in the folders given by `--gin_search_paths`, beside the file that includes it,
in the working directory, and where the packages' own files lie.
"""

import codecs
import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import gin
from gin import resource_reader

from t5x import gin_limits
from t5x.files import check_local

_PACKAGE_ROOT = Path(__file__).resolve().parent.parent
#: Built-in search paths; the wheel has a checkout's `configs/` in the second (see hatch_build.py).
OWN_FOLDERS = (_PACKAGE_ROOT, _PACKAGE_ROOT / "t5x/_shipped", _PACKAGE_ROOT / "t5x/configs")
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_MAX_BYTES = 2**24


@contextlib.contextmanager
def searching(first: Sequence[str | os.PathLike[str]]) -> Iterator[dict[Path, str]]:
    """Let gin find files as the module says in this block; yield {file read: its name there}.

    The search paths stay afterwards.

    Args:
      first: folders to search before all others.
    """
    for folder in first:
        check_local(folder, "--gin_search_paths")
    given = list(map(str, first))
    folders = [*given, *gin.config._LOCATION_PREFIXES, *map(str, OWN_FOLDERS)]
    gin.config._LOCATION_PREFIXES[:] = dict.fromkeys(folders)
    read: dict[Path, str] = {}

    @contextlib.contextmanager
    def reader(name: str) -> Iterator[io.StringIO]:
        path = Path(name)
        gin_limits.check_include(path, OWN_FOLDERS)
        read.setdefault(path, _shortened(path))
        # What it includes may lie beside it.
        gin.config._LOCATION_PREFIXES.insert(len(given), str(path.parent))
        try:
            text = io.StringIO(read_text(path))
            text.name = name  # for messages of the parser
            yield text
        finally:
            gin.config._LOCATION_PREFIXES.pop(len(given))

    readers = list(gin.config._FILE_READERS)
    gin.config._FILE_READERS[:] = _safe_readers(readers, reader)
    with _quiet_search():
        try:
            yield read
        finally:
            gin.config._FILE_READERS[:] = readers


def _shortened(path: Path) -> str:
    """Return the path from the search folder in which a file was found."""
    folders = filter(None, gin.config._LOCATION_PREFIXES)
    found = next((folder for folder in folders if path.is_relative_to(folder)), None)
    return str(path if found is None else path.relative_to(found))


def _safe_readers(readers: Sequence, reader: object) -> list:
    """Return gin's readers, with `reader` for files of the file system."""
    rest = [
        # gin takes a folder without `__init__.py` for a package, and fails before it looks further.
        (read, _is_in_a_package if exists is resource_reader.system_path_file_exists else exists)
        for read, exists in readers
        if exists is not os.path.isfile
    ]
    # Looking for a package imports the packages around it.
    return [(reader, os.path.isfile), *([] if gin_limits.hold() else rest)]


def _is_in_a_package(file: str) -> bool:
    try:
        return resource_reader.system_path_file_exists(file)
    except TypeError:
        return False


@contextlib.contextmanager
def _quiet_search() -> Iterator[None]:
    """gin logs an error for every folder where it does not find a file, found elsewhere or not."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)


def read_text(path: Path) -> str:
    """Return the text of a gin file, in UTF-8, UTF-16 or, with a warning, Latin-1.

    Raises:
      ValueError: no text of a gin file; names it.
    """
    size = path.stat().st_size
    if size > _MAX_BYTES:
        raise ValueError(f"{path}: has {size} bytes, too many for a gin file")
    data = path.read_bytes()
    encoding = next((name for mark, name in _MARKS.items() if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        text = data.decode("latin-1")
        line = data[: error.start].count(b"\n")
        shown = text.splitlines()[line].strip()
        warnings.warn(
            f"{path}:{line + 1}: is not UTF-8; read as Latin-1: {shown!r}. Save the file as UTF-8.",
            stacklevel=2,
        )
    if "\0" in text:
        raise ValueError(f"{path}: has zero bytes, so it is no gin file")
    return text


def quietly_read(path: Path) -> str:
    """As `read_text`, without the warning that it gave when gin read the file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return read_text(path)
