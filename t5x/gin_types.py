"""Are the values that a gin configuration binds of the types that the parameters say?

Only what is certain is a mistake: a parameter without annotation, or with one that is not made of
numbers, strings, booleans, None and containers, takes any value, and so does one that is bound to
the result of a call. An int passes for a float, a whole float (1e4) for an int, 0 and 1 for a bool.
"""

import collections.abc
import inspect
import types
import typing
from collections.abc import Callable, Iterator
from typing import Any

import gin

_ABSENT = object()


def type_problems(macros: dict[str, Any], places: dict[str, str]) -> Iterator[str]:
    """One sentence for each binding of a wrong type.

    Args:
      macros: name -> value.
      places: macro name -> the place where it is given, as `file:line`; the others are flags.
    """
    for (scope, selector), arguments in gin.config._CONFIG.items():
        if selector.startswith("gin."):
            continue
        configurable = gin.config._REGISTRY.get_match(selector).wrapped
        annotations = _annotations(configurable)
        for argument, bound in arguments.items():
            macro, value = _value(bound, macros)
            annotation = annotations.get(argument, Any)
            if value is _ABSENT or fits(value, annotation):
                continue
            if value is None and _is_none_by_default(configurable, argument):
                continue
            name = "/".join(filter(None, [scope, f"{selector}.{argument}"]))
            origin = ""
            if macro is not None:
                origin = f", from macro {macro} ({places.get(macro, 'on the command line')})"
            yield f"{name} is {value!r}{origin}, expected {_name(annotation)}."


def fits(value: Any, annotation: Any) -> bool:
    """Could `value` be meant for a parameter that is annotated so? See the module's docstring."""
    if isinstance(value, gin.config.ConfigurableReference):
        return True
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, part) for part in typing.get_args(annotation))
    if annotation is None or annotation is type(None):
        return value is None
    if annotation is bool:
        return isinstance(value, bool) or value in (0, 1)
    if annotation is int:
        return isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if annotation is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if annotation is str:
        return isinstance(value, str)
    if origin is collections.abc.Mapping or origin is dict:
        return isinstance(value, dict)
    if origin in (collections.abc.Sequence, list, tuple):
        return _sequence_fits(value, origin, typing.get_args(annotation))
    return True


def _sequence_fits(value: Any, origin: Any, parts: tuple[Any, ...]) -> bool:
    if not isinstance(value, list | tuple):
        return False
    if origin is tuple and (len(parts) != 2 or parts[1] is not Ellipsis):
        return True
    return all(fits(item, parts[0]) for item in value) if parts else True


def _annotations(configurable: Callable[..., Any]) -> dict[str, Any]:
    """Parameter -> its annotation, of a function or of what makes an instance of a class."""
    try:
        makes = configurable
        if inspect.isclass(configurable) and "__init__" in configurable.__dict__:
            makes = configurable.__init__
        return typing.get_type_hints(makes)
    except (NameError, TypeError, AttributeError):  # names that exist for a type checker only
        return {}


def _is_none_by_default(configurable: Callable[..., Any], argument: str) -> bool:
    parameter = inspect.signature(configurable).parameters.get(argument)
    return parameter is not None and parameter.default is None


def _value(bound: Any, macros: dict[str, Any]) -> tuple[str | None, Any]:
    """(the macro that gives the value, the value); _ABSENT for one that nothing gives."""
    name = None
    while isinstance(bound, gin.config.ConfigurableReference):
        if bound.configurable.selector != "gin.macro":
            break
        name = "/".join(bound.scopes)
        bound = macros.get(name, _ABSENT)
    return name, bound


def _name(annotation: Any) -> str:
    if annotation is type(None):
        return "None"
    if isinstance(annotation, type) and typing.get_origin(annotation) is None:
        return annotation.__name__
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return " or ".join(_name(part) for part in typing.get_args(annotation))
    return str(annotation).replace("collections.abc.", "").replace("typing.", "")
