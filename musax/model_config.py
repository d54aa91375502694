"""Shared base of the packages' models: the configuration in `config.json`, and loading.

A package declares its configuration as a dataclass; reading, writing and error messages follow from
the fields and their types. Its model class is loaded by name:

    @dataclasses.dataclass(frozen=True)
    class ModelConfig(BaseModelConfig):
        system = "mypackage"
        network: Annotated[NetworkConfig, Part(brief=True)]
        tokens: Annotated[Words | Letters, Part(kinds={"words": Words, "letters": Letters})]
        length: int = 512

        def param_shapes(self): ...

    class Model(PretrainedModel[ModelConfig]):
        config_class = ModelConfig
"""

import collections.abc
import dataclasses
import inspect
import os
import re
import reprlib
import sys
import types
import typing
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self, Union

import numpy as np

from musax.pretrained import (
    CONFIG_NAME,
    PretrainedError,
    config_path,
    did_you_mean,
    read_json_object,
    resolve,
)


class ModelConfigError(PretrainedError):
    """A configuration has a wrong, missing or unknown field; the message names file and field."""


# ------------------------------------------------------------------------------------ configuration


class Part(NamedTuple):
    """Form of a field that is a dataclass, a JSON object: `Annotated[Type, Part(...)]`.

    Attributes:
      name: its name in `config.json`, where that is not the field's.
      kinds: the dataclasses that it may be, by the value of its entry `"kind"`.
      brief: only those of its fields are written that differ from their defaults.
    """

    name: str | None = None
    kinds: Mapping[str, type] | None = None
    brief: bool = False


class _Field(NamedTuple):
    """A field of a configuration: its names here and in `config.json`, its type, and its part."""

    attribute: str
    name: str
    hint: Any
    part: Part
    required: bool


@dataclasses.dataclass(frozen=True)
class BaseModelConfig:
    """Base of the packages' configurations: everything needed to run a model but its parameters.

    Subclasses are frozen dataclasses. A field is a number, string, list or the like, whose type is
    checked, or a dataclass, see `Part`.

    Attributes:
      system: key of `musax.pretrained.SYSTEMS`.
    """

    system: ClassVar[str]

    @property
    def content(self) -> str:
        """What models of this configuration compose, fill in or score: "music" or "text"."""
        return "music"

    def param_shapes(self) -> Any:
        """Return the model's parameters as nested dicts of `jax.ShapeDtypeStruct`."""
        raise NotImplementedError(f"{type(self).__name__}.param_shapes")

    def to_json(self) -> dict[str, Any]:
        """Return JSON values, `"system"` included."""
        values: dict[str, Any] = {"system": self.system}
        for field in _fields(type(self)):
            value = getattr(self, field.attribute)
            is_part = dataclasses.is_dataclass(value)
            values[field.name] = _write_part(value, field.part) if is_part else value
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any], source: Any = "config") -> Self:
        """Return the configuration that JSON values hold, the inverse of `to_json`.

        Args:
          values: see `to_json`; fields with defaults may be absent.
          source: the file, for messages.

        Raises:
          ModelConfigError: naming `source` and the field that is missing, unknown or wrong.
        """
        cls.check_system(values, source)
        fields = _fields(cls)
        check_fields(values, ("system", *(field.name for field in fields)), source)
        found = {}
        for field in fields:
            if field.name in values:
                found[field.attribute] = _read_field(values[field.name], field, source)
            elif field.required:
                raise ModelConfigError(f"{source}: {field.name} is missing")
        return cls.build(found, source)

    @classmethod
    def build(cls, fields: Mapping[str, Any], source: Any) -> Self:
        """Return a configuration of fields that were read; errors name `source`.

        Raises:
          ModelConfigError: the fields do not fit each other.
        """
        try:
            return cls(**fields)
        except (TypeError, ValueError, ArithmeticError) as error:
            raise ModelConfigError(f"{source}: {error}") from error

    @classmethod
    def check_system(cls, values: Mapping[str, Any], source: Any) -> None:
        """Raise ModelConfigError unless the values are of this package's system."""
        if not isinstance(values, Mapping):
            kind = type(values).__name__
            raise ModelConfigError(f"{source}: expected a JSON object, got {kind}")
        if values.get("system") != cls.system:
            raise ModelConfigError(
                f'{source}: "system" is {values.get("system")!r}, expected {cls.system!r}'
            )

    @classmethod
    def read(cls, path: str | os.PathLike) -> Self:
        """Return the configuration of a model folder, or of a checkpoint with one beside it.

        Args:
          path: a model folder, a file in it, or a `.json` file.

        Raises:
          ModelConfigError: it is absent, not JSON or wrong; names the file.
        """
        path = Path(path)
        file = path if path.suffix == ".json" else config_path(path) or path / CONFIG_NAME
        if not file.is_file():
            raise ModelConfigError(f"{file}: missing; a model folder holds its configuration")
        try:
            values = read_json_object(file)
        except PretrainedError as error:
            raise ModelConfigError(str(error)) from error
        return cls.from_json(values, file)


def _fields(cls: type[BaseModelConfig]) -> list[_Field]:
    """Return the fields of a configuration, in order."""
    hints = typing.get_type_hints(cls, include_extras=True)
    found = []
    for field in dataclasses.fields(cls):
        hint, part = hints[field.name], Part()
        if typing.get_origin(hint) is Annotated:
            hint, part = hint.__origin__, hint.__metadata__[0]
        name = part.name or field.name
        found.append(_Field(field.name, name, hint, part, not _has_default(field)))
    return found


def _has_default(field: dataclasses.Field) -> bool:
    missing = dataclasses.MISSING
    return field.default is not missing or field.default_factory is not missing


def _read_field(value: Any, field: _Field, source: Any) -> Any:
    name, hint, kinds = field.name, field.hint, field.part.kinds
    if kinds is not None:
        check_type(value, Mapping[str, Any], name, source)
        kind = value.get("kind")
        value = {key: each for key, each in value.items() if key != "kind"}
        if not isinstance(kind, str) or kind not in kinds:
            known = ", ".join(kinds)
            raise ModelConfigError(f"{source}: {name}.kind={kind!r}: expected one of {known}")
        hint = kinds[kind]
    if dataclasses.is_dataclass(hint):
        return build_part(hint, value, name, source)  # type: ignore[arg-type]
    return check_type(value, hint, name, source)


def _write_part(value: Any, part: Part) -> dict[str, Any]:
    fields = changed_fields(value) if part.brief else dataclasses.asdict(value)
    if "dtype" in fields:
        fields["dtype"] = np.dtype(fields["dtype"]).name
    if part.kinds is None:
        return fields
    return {"kind": next(k for k, cls in part.kinds.items() if type(value) is cls), **fields}


# ------------------------------------------------------------------------------------------- fields


def changed_fields(value: Any) -> dict[str, Any]:
    """Return the fields of a dataclass that differ from their defaults, or have none."""
    fields = dataclasses.fields(value)
    return {f.name: x for f in fields if (x := getattr(value, f.name)) != f.default}


def check_fields(
    found: Collection[str],
    known: Collection[str],
    source: Any,
    prefix: str = "",
    what: str = "field",
) -> None:
    """Raise ModelConfigError, with a suggestion, for an unknown name."""
    for name in found:
        if name not in known:
            raise ModelConfigError(
                f"{source}: unknown {what} {prefix}{name}{did_you_mean(name, known)} Known: "
                f"{', '.join(sorted(known))}"
            )


def build_part[T](cls: type[T], values: Any, name: str, source: Any) -> T:
    """Return an instance of a dataclass with fields of a JSON object; lists become tuples.

    Args:
      cls: the dataclass; the types of its fields are checked.
      values: its fields.
      name: the part's name in the configuration.
      source: the file, for messages.

    Raises:
      ModelConfigError: no object, an unknown or missing field, one of another type, or values that
        the dataclass refuses.
    """
    check_type(values, Mapping[str, Any], name, source)
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    check_fields(values, fields, source, f"{name}.")
    for field in fields.values():
        if field.init and field.name not in values and not _has_default(field):
            raise ModelConfigError(f"{source}: {name}.{field.name} is missing")
    found = {
        key: _read_dtype(value, hints[key], f"{name}.{key}", source)
        if key == "dtype"
        else check_type(value, hints[key], f"{name}.{key}", source)
        for key, value in values.items()
    }
    try:
        return cls(**found)
    except (TypeError, ValueError, ArithmeticError) as error:
        raise ModelConfigError(f"{source}: {name}: {error}") from error


def _read_dtype(value: Any, hint: Any, name: str, source: Any) -> Any:
    """Return the name of a type of numbers, or the type where the field is no string."""
    try:
        dtype = np.dtype(check_type(value, str, name, source))
    except TypeError as error:
        raise ModelConfigError(
            f"{source}: {name}={value!r}: expected a type such as float32 or bfloat16"
        ) from error
    return value if hint is str else dtype


def check_type(value: Any, hint: Any, name: str, source: Any) -> Any:
    """Return a JSON value that is of a type; lists become tuples.

    Args:
      value: of `json.loads`, or of `to_json`.
      hint: a type of bool, int, float, str, None, and literals, unions, sequences and mappings.
        A float may be written as an int; other types of Python accept any value.
      name: of the field.
      source: the file, for messages.

    Raises:
      ModelConfigError: the value is of another type, or not finite; states the expected type.
    """
    if not _fits(value, hint):
        shown = reprlib.repr(value)
        large = isinstance(value, int) and abs(value) >= _LARGEST
        expected = f"{_describe(hint)}{' below 2**31' if large else ''}"
        raise ModelConfigError(f"{source}: {name}={shown}: expected {expected}")
    return _with_tuples(value)


def _fits(value: Any, hint: Any) -> bool:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint in (None, types.NoneType):
        return value is None
    if origin in (Union, types.UnionType):
        return any(_fits(value, each) for each in arguments)
    if origin is Literal:
        return any(type(value) is type(each) and value == each for each in arguments)
    if hint is bool:
        return isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < _LARGEST
    if hint is float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and abs(value) <= sys.float_info.max
    if hint is str:
        return isinstance(value, str)
    if origin in (tuple, list, collections.abc.Sequence):
        if not isinstance(value, list | tuple):
            return False
        if origin is tuple and arguments[1:] != (...,):
            return len(value) == len(arguments) and all(map(_fits, value, arguments))
        return all(_fits(each, arguments[0]) for each in value)
    if origin in (dict, collections.abc.Mapping):
        if not isinstance(value, Mapping):
            return False
        return all(_fits(k, arguments[0]) and _fits(v, arguments[1]) for k, v in value.items())
    return True


#: Sizes of arrays are below.
_LARGEST = 2**31
_LARGEST_SIZE = 2**24  # of one axis of a network
_COUNTS_LAYERS = re.compile("layers|transformers|blocks")
_NAMES: Mapping[Any, tuple[str, str]] = {
    bool: ("true or false", "values true or false"),
    int: ("a whole number", "whole numbers"),
    float: ("a finite number", "finite numbers"),
    str: ("a string", "strings"),
    types.NoneType: ("null", "nulls"),
}


def _describe(hint: Any, plural: bool = False) -> str:
    """Return words for a type, such as "a list of whole numbers or null"."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint in _NAMES:
        return _NAMES[hint][plural]
    if origin in (Union, types.UnionType):
        return " or ".join(_describe(each, plural) for each in arguments)
    if origin is Literal:
        return f"one of {', '.join(map(repr, arguments))}"
    if origin is tuple and arguments[1:] != (...,):
        return f"{'lists' if plural else 'a list'} of {len(arguments)}: " + ", ".join(
            _describe(each) for each in arguments
        )
    if origin in (tuple, list, collections.abc.Sequence):
        return f"{'lists' if plural else 'a list'} of {_describe(arguments[0], True)}"
    if origin in (dict, collections.abc.Mapping):
        return "objects" if plural else "an object"
    return "values" if plural else "a value"


def _with_tuples(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _with_tuples(each) for key, each in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(_with_tuples(each) for each in value)
    return value


# ------------------------------------------------------------------------------------------- models


def place_params(params: Any, expected: Any, source: Any = "model") -> Any:
    """Return parameters on the device, in float32, after a check of names, shapes and numbers.

    Args:
      params: nested dicts of arrays, of any floating type: half precision makes smaller files.
      expected: nested dicts of anything with a `shape`.
      source: the file, for messages.

    Raises:
      CheckpointError: arrays are missing, unknown, of other shapes, or not finite; lists which.
    """
    import jax

    from t5x.checkpoints import check_finite, check_params

    check_params(params, expected, source)
    check_finite(params, source)
    return jax.device_put(jax.tree.map(lambda x: np.asarray(x, np.float32), dict(params)))


def check_sizes(config: BaseModelConfig, params: Any, source: Any) -> None:
    """Raise ModelConfigError for sizes that the parameters cannot have.

    Shapes are known by building the network, which takes long for a million layers or a billion
    channels. Each layer has an array or more.
    """
    import jax

    arrays = len(jax.tree.leaves(params))
    for field in _fields(type(config)):
        part = getattr(config, field.attribute)
        if not dataclasses.is_dataclass(part):
            continue
        scanned = getattr(part, "scan_layers", False)
        for inner in dataclasses.fields(part):
            size, name = getattr(part, inner.name), f"{field.name}.{inner.name}"
            if not isinstance(size, int) or size <= arrays:
                continue
            if _COUNTS_LAYERS.search(inner.name) and not scanned:
                raise ModelConfigError(
                    f"{source}: {name}={size}: expected at most {arrays}, as many as the file has "
                    "arrays"
                )
            if size > _LARGEST_SIZE:
                raise ModelConfigError(f"{source}: {name}={size}: expected {_LARGEST_SIZE} or less")


class PretrainedModel[Config: BaseModelConfig]:
    """Base of the packages' model classes, whose methods have the names of their tasks.

    Args:
      config: the model's configuration.
      params: nested dicts of arrays.
      source: the file they are of, for messages.

    Raises:
      CheckpointError: arrays are missing, unknown, or of other shapes; lists which.
    """

    config_class: ClassVar[type[BaseModelConfig]]

    def __init__(self, config: Config, params: Any, source: Any = "model"):
        self.config = config
        check_sizes(config, params, source)
        try:
            expected = config.param_shapes()
        except Exception as error:  # whatever a network raises for sizes that make none
            told = str(error).partition("\n")[0]
            raise ModelConfigError(f"{source}: no network has these sizes ({told})") from error
        self.params = place_params(params, expected, source)

    @classmethod
    def options(cls, task: str, config: Config) -> Collection[str]:
        """Return the names of the options that the method of a task takes, for a configuration.

        These are its arguments by name; a class whose methods pass options on adds them.
        """
        arguments = inspect.signature(getattr(cls, task)).parameters.values()
        rest = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        return {a.name for a in arguments if a.kind not in rest} - {"self"}

    @classmethod
    def from_pretrained(cls, name_or_dir: str | os.PathLike) -> Self:
        """Load a model.

        Args:
          name_or_dir: the name of a shipped model, or a model folder (`python -m PACKAGE.export`
            makes one of a training run).

        Raises:
          PretrainedError: an unknown name.
          ModelConfigError: a wrong configuration, or none; names the field.
          CheckpointError: arrays are missing or do not fit; names them.
        """
        from t5x.checkpoints import load_params
        from t5x.compilation_cache import enable_compilation_cache

        enable_compilation_cache()
        path = resolve(name_or_dir)
        config = cls.config_class.read(path)
        return cls(config, load_params(path), path)  # type: ignore[arg-type]
