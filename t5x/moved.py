"""Old module names: `register_moved` keeps imports and gin files that use them working.

An old name is imported as the module it stands for now, the same object, and only when it is asked
for. Names that moved alone, out of a module that still exists, are that module's `__getattr__`.
"""

import importlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

#: Old module name -> new module name.
MOVED: dict[str, str] = {}


def register_moved(modules: Mapping[str, str]) -> None:
    """Make modules importable under their old names.

    Args:
      modules: old name -> new name, both with their packages.

    Raises:
      ValueError: an old name that is registered for another module already.
    """
    for old, new in modules.items():
        if MOVED.setdefault(old, new) != new:
            raise ValueError(f"module {old!r} moved to {MOVED[old]!r} already, not to {new!r}")
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())


def moved_names(module: str, names: Mapping[str, str]) -> Callable[[str], Any]:
    """Return the `__getattr__` of a module some of whose names are now elsewhere.

    Args:
      module: `__name__` of the module.
      names: name -> module which defines it now.
    """

    def get(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        return getattr(importlib.import_module(names[name]), name)

    return get


class _Finder(importlib.abc.MetaPathFinder):
    """Last of all finders, so a module that exists always comes first."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in MOVED:
            return None
        return importlib.machinery.ModuleSpec(fullname, _Loader(MOVED[fullname]))


class _Loader(importlib.abc.Loader):
    """Gives the module under its new name; importing leaves that module's own spec in place."""

    def __init__(self, name: str):
        self._name = name

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        module = importlib.import_module(self._name)
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec
