"""Tasks in one call each: the default model of the task, or another, loaded once and cached."""

import functools
import os
from collections.abc import Callable
from typing import Any

from musax import pretrained

_KEPT_MODELS = 4
_Name = str | os.PathLike


@functools.lru_cache(maxsize=_KEPT_MODELS)
def _loaded(name_or_dir: str, task: str) -> Any:
    return pretrained.load(name_or_dir, task=task)


def _method(task: str, method: str, model: _Name | None) -> Callable[..., Any]:
    name = pretrained.DEFAULT_MODELS[task][0] if model is None else os.fspath(model)
    return getattr(_loaded(name, task), method)


def transcribe(path: _Name, *, model: _Name | None = None, **options: Any) -> Any:
    """Transcribe an audio file; options are those of `mt3.inference.Transcriber.transcribe`.

    Args:
      path: an audio file.
      model: name or folder; None for the default of the task.

    Returns:
      A `musax.results.Transcription`.

    Raises:
      PretrainedError: the model is unknown or does another task.
      AudioError: the file is missing, unreadable or not audio.
    """
    return _method("transcribe", "transcribe_file", model)(path, **options)


def drums(path: _Name, *, model: _Name | None = None, **options: Any) -> Any:
    """Transcribe a recording of drums; options are those of `drums.inference.Transcriber`.

    Arguments, result and errors as in `transcribe`.
    """
    return _method("drums", "transcribe_file", model)(path, **options)


def compose(*, model: _Name | None = None, **options: Any) -> list[Any]:
    """Compose pieces or texts; options are those of the model's `compose`.

    Args:
      model: name or folder; None for the default of the task, a model of music.

    Returns:
      `musax.results.Piece`s or `Text`s.

    Raises:
      PretrainedError: the model is unknown or does another task.
      ValueError: an option is out of range.
    """
    return _method("compose", "compose", model)(**options)


def infill(given: Any, *, model: _Name | None = None, **options: Any) -> list[Any]:
    """Fill in gaps of a note array or text; otherwise as `compose`.

    Without `model`, text gets the default model of text.
    """
    return _method("infill", "infill", _default("infill", given, model))(given, **options)


def score(content: Any, *, model: _Name | None = None, **options: Any) -> Any:
    """Return the `musax.results.Score` of a note array or text; otherwise as `infill`."""
    return _method("score", "score", _default("score", content, model))(content, **options)


def _default(task: str, content: Any, model: _Name | None) -> _Name:
    music, text = pretrained.DEFAULT_MODELS[task]
    return (text if isinstance(content, str) else music) if model is None else model
