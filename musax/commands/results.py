"""Files of pieces, and models that make them."""

import dataclasses
import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from musax.commands.console import describe_exception, report_error
from musax.commands.files import InputError


@dataclasses.dataclass(frozen=True)
class Job:
    """An input, and the files to write for it by format ("mid" -> path)."""

    source: Path
    outputs: dict[str, Path]

    @property
    def names(self) -> str:
        """The outputs, to be read."""
        return ", ".join(str(path) for path in self.outputs.values())


_EXTRAS = (("png", "matplotlib", "plots"), ("wav", "tinysoundfont", "render"))


def check_outputs(jobs: Sequence[Job], formats: Sequence[str]) -> None:
    """Raises InputError before any work, rather than after it, if results could not be written.

    That is if a folder is not writable, or a format needs an extra which is not installed.
    """
    import importlib.util

    for folder in {path.parent for job in jobs for path in job.outputs.values()}:
        ensure_writable(folder)
    for suffix, module, extra in _EXTRAS:
        if suffix in formats and importlib.util.find_spec(module) is None:
            raise InputError(
                f"format {suffix} needs {module}, which is not installed: "
                f"pip install 'musax[{extra}]'"
            )


def load_model(name: str) -> Any:
    """A model by name or folder; None, with a line on stderr, if that fails."""
    from musax import pretrained

    try:
        return pretrained.load(name)
    except Exception as error:
        report_error(describe_exception(error, name))
        return None


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
