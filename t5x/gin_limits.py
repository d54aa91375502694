"""What the configuration of a run folder may import and call.

A gin file is code: it imports modules, and calls what it finds in them. `config.gin` of a run that
somebody else trained is therefore read within limits: it imports known packages alone, and the
values that are asked of it are made by networks, models, vocabularies and tasks, not by what writes
files or starts processes. `trusting` lifts the limits, as `--trust` does on the command line.
"""

import collections
import contextlib
import contextvars
import dataclasses
import inspect
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gin

_REMEDY = "if you trust the run as you trust a program, read it with --trust"


@dataclasses.dataclass(frozen=True)
class Allowed:
    """What a configuration may do within limits.

    Attributes:
      packages: top-level packages that it may import.
      called: what it may call, by the module that defines it (and the modules below), or by its
        own name.
    """

    packages: tuple[str, ...]
    called: tuple[str, ...]

    def __or__(self, other: "Allowed") -> "Allowed":
        return Allowed(self.packages + other.packages, self.called + other.called)


_CALLED = """
    optax gin.config
    t5x.adafactor t5x.decoding t5x.layers t5x.losses t5x.metrics t5x.models t5x.optimizers
    t5x.partitioning t5x.schedules t5x.state_utils t5x.train_state t5x.trainer t5x.utils
    t5x.gin_utils.sum_fn t5x.gin_utils.bool_fn t5x.gin_utils.string_split_fn
    t5x.data.converters t5x.data.denoising t5x.data.features t5x.data.prepacked
    t5x.data.preprocessors t5x.data.sources t5x.data.tasks t5x.data.text_lines
    t5x.data.vocabularies t5x.examples.decoder_only.network t5x.examples.scalable_t5.network
    t5x.examples.t5.network t5x.examples.shakespeare.punctuation t5x.examples.shakespeare.tasks
"""
#: What this package and optax, which has pure functions only, have for models and data.
T5X = Allowed(("t5x", "optax"), tuple(_CALLED.split()))

_trusted = contextvars.ContextVar("trusted", default=False)
_limited: contextvars.ContextVar[tuple[Path, Allowed] | None] = contextvars.ContextVar(
    "limited", default=None
)


class ForbiddenError(ValueError):
    """A configuration imports or calls what it may not; the message names it and the remedy."""


@contextlib.contextmanager
def trusting(trust: bool = True) -> Iterator[None]:
    """Read the configurations of runs without limits in this block, if `trust`."""
    token = _trusted.set(trust)
    try:
        yield
    finally:
        _trusted.reset(token)


@contextlib.contextmanager
def limits(source: Path, allowed: Allowed) -> Iterator[None]:
    """Read and use a configuration within limits in this block, unless it is trusted.

    Args:
      source: the file, for messages.
      allowed: what it may import and call.
    """
    if _trusted.get():
        yield
        return
    whole, gin.config.ParseContext = gin.config.ParseContext, _LimitedContext
    token = _limited.set((source, allowed))
    try:
        yield
    finally:
        _limited.reset(token)
        gin.config.ParseContext = whole


def hold() -> bool:
    """Return whether limits hold."""
    return _limited.get() is not None


def check_include(path: Path, own: Sequence[Path]) -> None:
    """Raise ForbiddenError if limits hold and a file is neither in the run's folder nor our own."""
    limited = _limited.get()
    if limited is None:
        return
    source, _ = limited
    folders = [folder.resolve() for folder in (source.parent, *own)]
    if not any(path.resolve().is_relative_to(folder) for folder in folders):
        raise ForbiddenError(f"{source}: includes {path}, outside its folder: {_REMEDY}.")


def check_import(module: str) -> None:
    """Raise ForbiddenError if limits hold and `module` is not of an allowed package."""
    limited = _limited.get()
    if limited is None:
        return
    source, allowed = limited
    parts = module.split(".")
    if parts[0] not in allowed.packages or "__main__" in parts:
        raise ForbiddenError(
            f"{source}: imports {module}, which may run any code; the configuration of a run "
            f"folder imports {', '.join(allowed.packages)} only: {_REMEDY}."
        )


def check_reachable(macro: str) -> None:
    """Raise ForbiddenError if limits hold and making a macro's value calls what it may not."""
    limited = _limited.get()
    if limited is None:
        return
    source, allowed = limited
    for configurable in _reachable(macro):
        name = _defined_as(configurable.wrapped)
        if not any(f"{name}.".startswith(f"{known}.") for known in allowed.called):
            raise ForbiddenError(
                f"{source}: {macro} is made by {name}, which is no part of a model or its data: "
                f"{_REMEDY}."
            )


class _LimitedContext(gin.config.ParseContext):
    """Imports allowed packages alone, and takes functions and classes from them alone."""

    def process_import(self, statement: Any) -> None:
        # `__main__` is the entry point, see `gin_utils.parse`; `__gin__` is no module.
        if statement.module not in ("__main__", "__gin__.dynamic_registration"):
            check_import(statement.module)
        super().process_import(statement)

    def _register(self, attr_names: Sequence[str], attr_values: Sequence[Any]) -> Any:
        check_import(_defined_as(attr_values[-1]).rpartition(".")[0])
        return super()._register(attr_names, attr_values)


def _defined_as(value: Any) -> str:
    """Return the full name of a function or class where it is defined, not where it is found."""
    if not (inspect.isclass(value) or inspect.isroutine(value)):
        value = type(value)
    return f"{value.__module__}.{value.__qualname__}"


def _reachable(macro: str) -> Iterator[Any]:
    """Yield every configurable that the value of a macro leads to, whatever the scope."""
    bound = collections.defaultdict(list)
    for (scope, selector), values in gin.config._CONFIG.items():
        bound[(scope, selector) if selector == "gin.macro" else selector].append(values)
    todo, seen = bound[macro, "gin.macro"], set()
    while todo:
        for reference in gin.config.iterate_references(todo.pop()):
            selector = reference.configurable.selector
            key = ("/".join(reference.scopes), selector) if selector == "gin.macro" else selector
            if key not in seen:
                seen.add(key)
                todo += bound[key]
                yield reference.configurable
