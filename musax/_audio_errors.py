"""Errors of reading and writing audio files."""

import os
import shlex
from pathlib import Path

import soundfile

#: What libsndfile's wrapper raises.
LIBRARY_ERRORS = (soundfile.SoundFileError, RuntimeError, OSError, AssertionError)


class AudioError(ValueError):
    """An audio file cannot be read or written; the message names it and the remedy."""


class AudioWarning(UserWarning):
    """Audio was read or written, but not all of it as it should be."""


def reason(error: BaseException) -> str:
    return getattr(error, "error_string", None) or str(error) or type(error).__name__


def not_audio(path: str | os.PathLike, location: Path, why: BaseException) -> str:
    """Return the message on a file that libsndfile refuses, with what to do about it."""
    if _is_midi(location):
        return (
            f"{path}: a MIDI file, not audio: it holds notes and no sound. To hear it: "
            f"musax render {shell_word(location)}"
        )
    return (
        f"{path}: not audio that libsndfile can read ({reason(why)}); expected WAV, FLAC, MP3, "
        f"Ogg, AIFF or CAF. Convert other formats first: {conversion_command(location)}"
    )


def conversion_command(location: Path) -> str:
    """Return a command line, quoted for a shell, that makes a new WAV file of an audio file."""
    target = location.with_suffix(".wav")
    if os.path.lexists(target):
        target = location.with_name(f"{location.stem}.converted.wav")
    return f"ffmpeg -i {shell_word(location)} {shell_word(target)}"


def shell_word(path: Path) -> str:
    """Return a path as one word of a shell that no command takes for an option."""
    text = os.fspath(path)
    return shlex.quote(f"./{text}" if text.startswith("-") else text)


def _is_midi(location: Path) -> bool:
    try:
        with location.open("rb") as file:
            start = file.read(12)
    except OSError:
        return False
    return start[:4] == b"MThd" or (start[:4] == b"RIFF" and start[8:] == b"RMID")
