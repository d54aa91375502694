"""Errors of reading and writing audio files."""

import soundfile

#: What libsndfile's wrapper raises.
LIBRARY_ERRORS = (soundfile.SoundFileError, RuntimeError, OSError, AssertionError)


class AudioError(ValueError):
    """An audio file cannot be read or written; the message names it and the remedy."""


class AudioWarning(UserWarning):
    """Audio was read or written, but not all of it as it should be."""


def reason(error: BaseException) -> str:
    return getattr(error, "error_string", None) or str(error) or type(error).__name__
