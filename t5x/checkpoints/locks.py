"""Locks on folders: one process writes in a run's folder, and nothing is deleted that is read.

They are those of `flock`, which end with the process however it ends. Where a file system has none,
everything works as without them.
"""

import contextlib
import datetime
import json
import os
import shlex
import socket
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path

from t5x.checkpoints.errors import CheckpointError

LOCK_NAME = ".lock"
_held: dict[Path, "weakref.ref[FolderLock]"] = {}


class FolderInUseError(CheckpointError):
    """Another process writes in the folder; the message says which."""


class FolderLock:
    """The right to write in a folder, until `close` or the end of the process.

    Within a process the lock of a folder is shared (see `lock_folder`).

    Args:
      folder: an existing folder; a hidden file `.lock` in it says who has it.
      remedy: what to do if another process has it, for the message.

    Raises:
      FolderInUseError: another process has it.
      OSError: the file cannot be written.
    """

    def __init__(self, folder: Path, remedy: str):
        path = folder / LOCK_NAME
        file = _open_locked(path)
        while file is not None and not _is_at(file, path):  # its holder has just removed it
            os.close(file)
            file = _open_locked(path)
        if file is None:
            raise FolderInUseError(f"{folder}: in use by {_holder(path)}. {remedy}")
        os.truncate(file, 0)
        os.pwrite(file, _myself(), 0)
        self._close = weakref.finalize(self, _remove, file, path)

    @property
    def held(self) -> bool:
        """Whether it was not closed."""
        return self._close.alive

    def close(self) -> None:
        """Let others have the folder."""
        self._close()


def _open_locked(path: Path) -> int | None:
    """The open file, locked; None if another process has it."""
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    if _lock(file, shared=False):
        return file
    os.close(file)
    return None


def _is_at(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


def _remove(file: int, path: Path) -> None:
    with contextlib.suppress(OSError):
        if _is_at(file, path):
            path.unlink()
    os.close(file)


def lock_folder(folder: str | Path, remedy: str) -> FolderLock:
    """Return the lock of a folder, which all that this process opens there have in common.

    Arguments and errors as of `FolderLock`.
    """
    folder = Path(folder).resolve()
    held = _held.get(folder, lambda: None)()
    if held is None or not held.held:
        held = FolderLock(folder, remedy)
        _held[folder] = weakref.ref(held)
    return held


@contextlib.contextmanager
def kept(folder: str | Path) -> Iterator[None]:
    """Keep other processes from deleting a folder through `may_delete`; wait for none."""
    with _opened(folder) as file:
        if file is not None:
            _lock(file, shared=True)
        yield


@contextlib.contextmanager
def may_delete(folder: str | Path) -> Iterator[bool]:
    """Whether no process has the folder `kept`; none can begin to inside."""
    with _opened(folder) as file:
        yield file is None or _lock(file, shared=False)


@contextlib.contextmanager
def _opened(folder: str | Path) -> Iterator[int | None]:
    try:
        file = os.open(folder, os.O_RDONLY)
    except OSError:
        yield None
        return
    try:
        yield file
    finally:
        os.close(file)


def _lock(file: int, shared: bool) -> bool:
    """Lock an open file or folder until it is closed; False if another process has it."""
    try:
        import fcntl
    except ImportError:  # Windows
        return True
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


def _myself() -> bytes:
    since = datetime.datetime.now().astimezone().isoformat(" ", "seconds")
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])[:1000]
    who = {"pid": os.getpid(), "host": socket.gethostname(), "since": since, "command": command}
    return (json.dumps(who) + "\n").encode()


def _holder(path: Path) -> str:
    try:
        who = json.loads(path.read_bytes()[:4096])
        return (
            f"process {who['pid']} on {who['host']} since {who['since']} ({who['command'][:200]})"
        )
    except (OSError, ValueError, TypeError, KeyError):  # it has just begun
        return "another process"
