"""Which errors are mistakes that their message explains, and need no traceback."""

import linecache
import re
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent
_PACKAGES = ("t5x", "musax", "mt3", "drums", "perceiver_ar", "cdcd")
_FOLDERS = tuple(f"{_ROOT / package}/" for package in _PACKAGES)
_EXPLAINED = (ValueError, ImportError, OSError, NotImplementedError)


def explanation_of(error: BaseException) -> str | None:
    """Return what to tell the user in place of a traceback; None where one is needed.

    Our packages explain what they refuse, so an error that one of their `raise` statements made is
    told alone. So is an error of the file system that names the file. Others, and those of the
    user's own modules, may be anything and come with their traceback.
    """
    message = without_gin_calls(error)
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    missing = re.match(r"\S+ missing \d+ required .*", message)
    if isinstance(error, TypeError) and missing and "In call to configurable" in str(error):
        return f"{missing[0]}; set in a gin file what is missing, or give a --gin_file that does."
    if not (isinstance(error, _EXPLAINED) and _was_raised_by_us(error)):
        return None
    notes = [note for note in getattr(error, "__notes__", ()) if note.startswith("while ")]
    return "; ".join([message, *notes])


def without_gin_calls(error: BaseException) -> str:
    """Return the message of an error without the calls that gin adds to it."""
    return re.sub(r"\n +In call to configurable .*", "", str(error)).strip()


def _was_raised_by_us(error: BaseException) -> bool:
    """Whether the error comes from a `raise` in our packages, and not from a call that failed."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return False
    file = trace.tb_frame.f_code.co_filename
    line = linecache.getline(file, trace.tb_lineno).strip()
    return file.startswith(_FOLDERS) and line.startswith("raise")
