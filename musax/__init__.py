"""Learned models of music: load them by name or task, and do a task in one line.

    musax.transcribe("song.wav").save("song.mid")
    musax.load("cdcd-melody").compose(count=3, seed=1)

`import musax` imports nothing else: the names below are found when they are first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from musax.pretrained import list_models, load
    from musax.shortcuts import compose, drums, infill, score, transcribe

    __version__: str

__all__ = [
    "__version__",
    "compose",
    "drums",
    "infill",
    "list_models",
    "load",
    "score",
    "transcribe",
]

_MODULES = {"list_models": "musax.pretrained", "load": "musax.pretrained"} | dict.fromkeys(
    ("compose", "drums", "infill", "score", "transcribe"), "musax.shortcuts"
)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("musax")
    if name not in _MODULES:
        raise AttributeError(f"module 'musax' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
