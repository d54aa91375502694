"""Files that appear complete or not at all; JSON of arrays and text."""

import contextlib
import errno
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

_REMOTE = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/{1,2}(?=[^/])")
_HOW_TO_COPY = {
    "gs": "gcloud storage cp -r {} FOLDER",
    "s3": "aws s3 cp --recursive {} FOLDER",
    "hf": "hf download NAME --local-dir FOLDER",
    "file": "give the path without file://",
}
#: What a disk refuses, whatever is to be written.
_REFUSALS = frozenset(
    getattr(errno, name)
    for name in ("ENOSPC", "EDQUOT", "EROFS", "EIO", "EFBIG", "ESTALE")
    if hasattr(errno, name)
)
_FULL = re.compile("No space left|[Qq]uota exceeded")
_OS_ERROR = re.compile(r"\[Errno (\d+)\] ([^\n]*)")

_TOKEN_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"


def check_local(path: Any, what: str = "path") -> None:
    """Raise ValueError for an address such as gs://bucket/run; says how to copy it.

    Args:
      path: any value; only strings and paths are looked at.
      what: the field or flag, for messages.
    """
    match = _REMOTE.match(os.fspath(path)) if isinstance(path, str | os.PathLike) else None
    if match is None:
        return
    scheme = match.group(1).lower()
    address = f"{match.group(1)}://{os.fspath(path)[match.end() :]}"
    how = _HOW_TO_COPY.get(scheme, "curl -O {}" if scheme.startswith("http") else "copy it here")
    raise ValueError(
        f"{what}: {address} is no folder or file of this machine, where all is read and written; "
        f"copy it ({how.format(address)}) or mount it, and give the local path"
    )


def refusal(error: BaseException) -> str | None:
    """Return what the disk refused, in one line; None for an error of another kind.

    The text is read rather than `errno`, which errors lose that have passed through gin, and which
    those of tensorstore never have.
    """
    text = str(error)
    if match := _OS_ERROR.search(text):
        return match[2] if int(match[1]) in _REFUSALS else None
    line = next((line for line in text.splitlines() if _FULL.search(line)), None)
    return None if line is None else "No space left on device"


@contextlib.contextmanager
def named(path: str | os.PathLike[str]) -> Iterator[None]:
    """Give an `OSError` of the block the name of the file, if it has none."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str], *, folder: bool = False) -> Iterator[Path]:
    """A temporary path to write to, which takes the place of `path` when the block ends well.

    The temporary file (or folder) exists from the beginning, is hidden, and lies beside `path`. It
    is flushed to the disk and renamed at the end, and removed if the block raises. Its name has no
    suffix and is never longer than that of `path`, so that every name a file system takes works.

    Args:
      path: the file to write. One that exists is replaced.
      folder: `path` is a folder, which must not exist or be empty.

    Raises:
      OSError: the folder around `path` is absent or refuses files, or `path` is a folder.

    >>> with atomic_path("notes.csv") as temporary:
    ...     temporary.write_text("onset,offset")
    """
    final = Path(path)
    if not final.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "no such folder", str(final.parent))
    if not folder and final.is_dir():
        raise IsADirectoryError(errno.EISDIR, "is a folder, not a file", str(final))
    temporary = _reserve(final, folder)
    try:
        with named(final):
            yield temporary
            _flush(temporary)
            temporary.replace(final)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        temporary.unlink(missing_ok=True)


def _reserve(final: Path, folder: bool) -> Path:
    """Create an empty hidden file or folder beside `final`, with a name of its own."""
    while True:
        prefix = ".tmp-" if len(final.name) >= 13 else "."
        length = min(max(len(final.name) - len(prefix), 1), 12)
        token = "".join(secrets.choice(_TOKEN_LETTERS) for _ in range(length))
        temporary = final.with_name(prefix + token)
        try:
            if folder:
                temporary.mkdir()
            else:
                os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        except FileExistsError:
            continue
        except OSError as error:
            raise type(error)(error.errno, error.strerror, str(final)) from error
        return temporary


def _flush(path: Path) -> None:
    for file in path.rglob("*") if path.is_dir() else (path,):
        if file.is_file():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a file of UTF-8, complete or not at all.

    Bytes of file names that are not UTF-8 are written as escapes, those of JSON.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file, complete or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


class ArrayEncoder(json.JSONEncoder):
    """Arrays and NumPy numbers as lists and numbers, bytes as text."""

    def default(self, o: Any) -> Any:
        if isinstance(o, bytes):
            return o.decode("utf-8", errors="replace")
        if isinstance(o, np.generic | np.ndarray) or hasattr(o, "__array__"):
            array = np.asarray(o)
            if array.dtype.kind not in "biufSUO":  # bfloat16 and its like
                array = array.astype(np.float32)
            return array.tolist()
        if isinstance(o, set | frozenset):
            return sorted(o)
        return super().default(o)


class BriefArrayEncoder(ArrayEncoder):
    """As `ArrayEncoder`, but an array of more than 1024 numbers gives its type and shape only."""

    def default(self, o: Any) -> Any:
        if hasattr(o, "shape") and hasattr(o, "dtype") and np.prod(o.shape) > 1024:
            return f"{o.dtype}{list(o.shape)}"
        return super().default(o)


def write_json_lines(
    path: str | os.PathLike[str],
    lines: Iterable[Mapping[str, Any]],
    encoder: type[json.JSONEncoder] = ArrayEncoder,
) -> int:
    """Write one JSON object a line, complete or not at all; return how many."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with (
        atomic_path(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="backslashreplace") as file,
    ):
        for line in lines:
            file.write(json.dumps(line, cls=encoder, ensure_ascii=False) + "\n")
            count += 1
    return count


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write one JSON value, indented, complete or not at all; make the folder if need be."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(value, cls=ArrayEncoder, indent=2, ensure_ascii=False) + "\n")


def read_json_lines(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """All lines of a file.

    Raises:
      ValueError: naming the file and line that is not JSON.
    """
    values = []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            values.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}:{number}: not a line of JSON ({error})") from error
    return values
