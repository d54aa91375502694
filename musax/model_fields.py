"""Parts of a model's `config.json` to dataclasses, with errors that name the field."""

import dataclasses
import difflib
from collections.abc import Collection, Mapping
from typing import Any


class ModelConfigError(ValueError):
    """A configuration has a wrong, missing or unknown field; the message names file and field."""


def changed_fields(value: Any) -> dict[str, Any]:
    """Fields of a dataclass that differ from their defaults, or have none."""
    fields = dataclasses.fields(value)
    return {f.name: x for f in fields if (x := getattr(value, f.name)) != f.default}


def check_fields(
    found: Collection[str],
    known: Collection[str],
    source: Any,
    prefix: str = "",
    what: str = "field",
) -> None:
    """Raises ModelConfigError, with what may have been meant, for a name that is not known."""
    for name in found:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else "."
            raise ModelConfigError(
                f"{source}: unknown {what} {prefix}{name}{hint} Known: {', '.join(sorted(known))}"
            )


def read_part(values: Mapping[str, Any], name: str, source: Any) -> Mapping[str, Any]:
    """The JSON object `values[name]`.

    Raises:
      ModelConfigError: it is missing or something else.
    """
    part = values.get(name)
    if not isinstance(part, Mapping):
        raise ModelConfigError(f"{source}: {name!r} is missing or not an object")
    return part


def build_part[T](cls: type[T], values: Any, name: str, source: Any) -> T:
    """An instance of a dataclass from a JSON object; lists become tuples.

    Args:
      cls: the dataclass.
      values: its fields.
      name: what the part is called in the configuration.
      source: the file, for messages.

    Raises:
      ModelConfigError: an unknown field, or values that the dataclass refuses.
    """
    if not isinstance(values, Mapping):
        raise ModelConfigError(f"{source}: {name} must be a JSON object")
    fields = {f.name for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    check_fields(values, fields, source, f"{name}.")
    fixed = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    try:
        return cls(**fixed)
    except (TypeError, ValueError) as error:
        raise ModelConfigError(f"{source}: {name}: {error}") from error
