"""Gin files and `--gin.X=Y` flags, with errors that say what to do.

    --gin_file=t5x/examples/t5/t5_1_1/tiny.gin --gin.TRAIN_STEPS=100 --gin.MODEL_DIR=/tmp/run

Files are searched in the user's search paths, in the working directory, and then where the
packages' own lie: in the checkout, or in the installed wheel (`configs/mt3/tiny_piano.gin` is found
from anywhere). A later file or flag overrides an earlier one. A name that nothing has, a macro that
nothing reads, a required macro that nothing sets, and a value that is not of the parameter's type
all stop the run before it starts.
"""

import argparse
import contextlib
import difflib
import inspect
import logging
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import gin
from gin import resource_reader

from t5x.files import write_text
from t5x.gin_types import type_problems
from t5x.unsupported import UNSUPPORTED, explanation

_PACKAGE_ROOT = Path(__file__).resolve().parent.parent
#: Built-in search paths; the wheel has a checkout's `configs/` in the second (see hatch_build.py).
_OWN_FOLDERS = (_PACKAGE_ROOT, _PACKAGE_ROOT / "t5x/_shipped", _PACKAGE_ROOT / "t5x/configs")
_MACRO_LINE = re.compile(r"^\s*([A-Za-z_]\w*)\s*=")
_PLAIN_TEXT = re.compile(r"[\w./~:+-]+")


class GinError(ValueError):
    """A configuration that cannot run; the message names the file or flag and the remedy."""


# ---------------------------------------------------------------------- flags


def rewrite_gin_args(args: Sequence[str]) -> list[str]:
    """Turn `--gin.X.y=v` into `--gin_bindings=X.y = v`.

    A value that is neither a gin literal nor a reference, such as a path, is taken as a string.

    Raises:
      GinError: a `--gin.` argument without `=`.
    """
    return [_rewrite(arg) if arg.startswith("--gin.") else arg for arg in args]


def _rewrite(arg: str) -> str:
    name, equals, value = arg.removeprefix("--gin.").partition("=")
    if not equals:
        raise GinError(f"{arg}: expected --gin.NAME=VALUE.")
    if value and not value.startswith(("@", "%")) and _PLAIN_TEXT.fullmatch(value):
        try:
            gin.config.parse_value(value)
        except (SyntaxError, ValueError):
            value = repr(value)
    return f"--gin_bindings={name} = {value}"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add `--gin_file`, `--gin_bindings` and `--gin_search_paths`."""
    parser.add_argument(
        "--gin_file",
        action="append",
        default=[],
        help="gin file; may be repeated, later files override earlier ones",
    )
    parser.add_argument(
        "--gin_bindings",
        action="append",
        default=[],
        metavar="'NAME = VALUE'",
        help="override a binding or macro; short form: --gin.NAME=VALUE",
    )
    parser.add_argument(
        "--gin_search_paths",
        default="",
        help="comma-separated folders in which gin files are searched first",
    )


def parse_flags(args: argparse.Namespace, entry: Callable[..., Any]) -> Callable[..., Any]:
    """Parse what `add_flags` read; return the gin-configured `entry`."""
    paths = [p for p in args.gin_search_paths.split(",") if p]
    return parse(args.gin_file, args.gin_bindings, paths, entry)


# ---------------------------------------------------------------------- parsing


def parse(
    files: Sequence[str | os.PathLike[str]],
    bindings: Sequence[str],
    search_paths: Sequence[str | os.PathLike[str]],
    entry: Callable[..., Any],
) -> Callable[..., Any]:
    """Replace the gin configuration by that of `files` and `bindings`.

    Args:
      files: gin files.
      bindings: `NAME = VALUE` lines that override them.
      search_paths: folders tried first.
      entry: the function that will run, such as `t5x.train.train`. Its module stands for
        `__main__` in the files, so that `import __main__ as train_script` finds it.

    Returns:
      `entry` with the configured arguments filled in.

    Raises:
      GinError: see the module's docstring.
    """
    gin.clear_config()
    module = sys.modules[entry.__module__]
    with _standing_for_main(module):
        _register(entry)
        read = _read(search_paths, files, bindings, module)
    _check(read, bindings)
    return gin.get_configurable(entry)


def parse_gin_flags(
    gin_search_paths: Sequence[str | os.PathLike[str]],
    gin_files: Sequence[str | os.PathLike[str]],
    gin_bindings: Sequence[str],
    skip_unknown: bool | Sequence[str] = False,
    finalize_config: bool = True,
) -> None:
    """Add the files and bindings of flags to the gin configuration, as upstream's scripts do.

    Unlike `parse` it keeps what is configured already, and `__main__` in the files is the script
    that runs.

    Args:
      gin_search_paths: folders tried first.
      gin_files: gin files.
      gin_bindings: `NAME = VALUE` lines that override them.
      skip_unknown: whether unknown configurables are left out, or which; also leaves out the checks
        for unknown and missing macros.
      finalize_config: whether the configuration is locked afterwards.

    Raises:
      GinError: see the module's docstring.
    """
    with gin.unlock_config():
        read = _read(
            gin_search_paths, gin_files, gin_bindings, sys.modules["__main__"], skip_unknown
        )
    if not skip_unknown:
        _check(read, gin_bindings)
    if finalize_config and not gin.config.config_is_locked():
        gin.finalize()


def run(main: Callable[[Sequence[str]], Any]) -> None:
    """Run `main(argv)` with absl, after turning `--gin.NAME=VALUE` into `--gin_bindings`.

    `main` reads the flags that its module defined with `absl.flags`, such as `gin_file`,
    `gin_bindings` and `gin_search_paths`, and gives them to `parse_gin_flags`. The process ends
    with its result as exit status.
    """
    from absl import app

    app.run(main, flags_parser=lambda args: app.parse_flags_with_usage(rewrite_gin_args(args)))


def _read(
    search_paths: Sequence[str | os.PathLike[str]],
    files: Sequence[str | os.PathLike[str]],
    bindings: Sequence[str],
    main: ModuleType,
    skip_unknown: bool | Sequence[str] = False,
) -> list[Path]:
    """Read files, then bindings; return the names of all files read, includes too."""
    _search_packages_safely()
    _add_search_paths(search_paths)
    read: list[Path] = []
    with _quiet_search():
        try:
            for file in files:
                parsed = gin.parse_config_file(str(file), skip_unknown=skip_unknown)
                read += _file_names(parsed)
            lines = [_without_alias(binding, main) for binding in bindings]
            gin.parse_config(lines, skip_unknown=skip_unknown)  # type: ignore[arg-type]
        except Exception as error:
            raise GinError(f"{error}\n {_suggestion(str(error))}".rstrip()) from error
    return read


def _search_packages_safely() -> None:
    """gin takes a folder without `__init__.py` for a package, and fails before it looks further."""
    readers = gin.config._FILE_READERS
    for i, (reader, exists) in enumerate(readers):
        if exists is resource_reader.system_path_file_exists:
            readers[i] = (reader, _is_in_a_package)


def _is_in_a_package(file: str) -> bool:
    try:
        return resource_reader.system_path_file_exists(file)
    except TypeError:
        return False


def _add_search_paths(first: Sequence[str | os.PathLike[str]]) -> None:
    """Search `first`, then what gin searches already (the working directory), then our own."""
    folders = [*map(str, first), *gin.config._LOCATION_PREFIXES, *map(str, _OWN_FOLDERS)]
    gin.config._LOCATION_PREFIXES[:] = dict.fromkeys(folders)


def _register(entry: Callable[..., Any]) -> None:
    """Make `entry` configurable as a gin file that imports its module would."""
    package, _, name = entry.__module__.rpartition(".")
    source = f"from {package} import {name}" if package else f"import {name}"
    gin.parse_config(
        f"from __gin__ import dynamic_registration\n{source}\n_ENTRY = @{name}.{entry.__name__}\n"
    )
    gin.config._CONFIG.pop(("_ENTRY", "gin.macro"), None)


def _without_alias(binding: str, main: ModuleType) -> str:
    """A binding in which names that a file gave a module (`import a.b as c`) are the module's own.

    gin knows them in that file only, and upstream's run files call the entry point's module
    `train_script`, `eval_script` or `infer_script`.
    """
    for statement in gin.config._IMPORTS:
        if statement.alias:
            name = main.__name__ if statement.module == "__main__" else statement.module
            used = rf"(^\s*|[/@])({re.escape(statement.alias)})(?=\.)"
            binding = re.sub(used, lambda match, name=name: match.group(1) + name, binding)
    return binding


@contextlib.contextmanager
def _standing_for_main(module: ModuleType) -> Iterator[None]:
    before = sys.modules["__main__"]
    sys.modules["__main__"] = module
    try:
        yield
    finally:
        sys.modules["__main__"] = before


@contextlib.contextmanager
def _quiet_search() -> Iterator[None]:
    """gin logs an error for every folder where it does not find a file, found elsewhere or not."""
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def _file_names(parsed: Any) -> list[Path]:
    names = [Path(parsed.filename)]
    for include in parsed.includes:
        names += _file_names(include)
    return names


# ---------------------------------------------------------------------- checks


def _macro_values() -> dict[str, Any]:
    return {
        scope: values.get("value")
        for (scope, selector), values in gin.config._CONFIG.items()
        if selector == "gin.macro"
    }


def _references(kind: str) -> Iterator[str]:
    """Names of the macros or constants that the configuration refers to."""
    for reference in gin.config.iterate_references(gin.config._CONFIG):
        if reference.configurable.selector == kind:
            yield "/".join(reference.scopes)


def _is_required(value: Any) -> bool:
    if not isinstance(value, gin.config.ConfigurableReference):
        return value is gin.REQUIRED
    return (value.configurable.selector, value.scopes) == ("gin.constant", ["gin.REQUIRED"])


def _check(files: Iterable[Path], bindings: Sequence[str]) -> None:
    values, used = _macro_values(), set(_references("gin.macro"))
    where = _declarations(files)
    problems = [
        f"Macro {name} is used but never set.{_close(name, values)}{_how(name)}"
        for name in sorted(used - values.keys())
    ]
    for name, value in values.items():
        if _is_required(value):
            declared = where.get(name, "on the command line")
            problems.append(f"Macro {name} is required ({declared}) but not set.{_how(name)}")
    for (scope, selector), arguments in gin.config._CONFIG.items():
        for argument, value in arguments.items():
            if selector != "gin.macro" and _is_required(value):
                full = "/".join(filter(None, [scope, f"{selector}.{argument}"]))
                problems.append(f"{full} is required but not set.{_how(full)}")
    known = used | where.keys()
    flags = [match.group(1) for match in map(_MACRO_LINE.match, bindings) if match]
    problems += [
        f"--gin.{name}: no gin file has this macro.{_close(name, known)}"
        for name in flags
        if name not in known
    ]
    for name in sorted(where.keys() - used):
        close = difflib.get_close_matches(name, used, n=1, cutoff=0.85)
        if close and close[0] not in where:
            problems.append(f"Macro {name} ({where[name]}) is never used; did you mean {close[0]}?")
    if not problems:
        problems += type_problems(values, {n: p for n, p in where.items() if n not in flags})
    if problems:
        raise GinError("\n".join(problems))


def _how(name: str) -> str:
    return f"\n  Set it with --gin.{name}=VALUE, or with `{name} = VALUE` in a gin file."


def _close(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=3, cutoff=0.6)
    return f" Did you mean {', '.join(close)}?" if close else ""


def _declarations(files: Iterable[Path]) -> dict[str, str]:
    """Macro name -> the place that first gives it, as `file:line`."""
    where: dict[str, str] = {}
    for file in files:
        text = _locate(file).read_text(encoding="utf-8")
        for number, line in enumerate(text.splitlines(), start=1):
            match = _MACRO_LINE.match(line)
            if match:
                where.setdefault(match.group(1), f"{file}:{number}")
    return where


def _locate(file: Path) -> Path:
    candidates = (Path(prefix) / file for prefix in gin.config._LOCATION_PREFIXES)
    return next((path for path in candidates if path.is_file()), file)


def _suggestion(message: str) -> str:
    """« Did you mean » for the unknown name in one of gin's error messages."""
    found = re.search(r"doesn't have a parameter named '(\w+)'", message)
    owner = re.search(r"onfigurable '([\w.]+)'", message)
    if found and owner:
        configurable = gin.config._REGISTRY.get_match(owner.group(1)).wrapped
        return _close(found.group(1), inspect.signature(configurable).parameters)
    found = re.search(r"<(?:module|class) '([\w.]+)'.*has no attribute (\w+)", message)
    if found:
        if (full := ".".join(found.groups())) in UNSUPPORTED:
            return explanation(full)
        return _close(found.group(2), dir(_find_object(found.group(1))))
    found = re.search(r"No configurable matching (?:reference )?'@?(?:\w+/)*([\w.]+)", message)
    if found and (close := _close_in_module(found.group(1))):
        return close
    if found:
        selectors = [selector for selector, _ in gin.config._REGISTRY.items()]
        wanted = found.group(1)
        depth = wanted.count(".") + 1
        return _close(wanted, {".".join(s.split(".")[-depth:]) for s in selectors})
    return ""


def _close_in_module(selector: str) -> str:
    """« Did you mean » for `module.thing`, of what the files import as `module`."""
    module, _, name = selector.rpartition(".")
    for statement in gin.config._IMPORTS:
        if module and (statement.alias or statement.module).endswith(module):
            known = sys.modules.get(statement.module)
            return _close(name, dir(known)) if known else ""
    return ""


def _find_object(name: str) -> Any:
    parts = name.split(".")
    for size in range(len(parts), 0, -1):
        found: Any = sys.modules.get(".".join(parts[:size]))
        if found is not None:
            for part in parts[size:]:
                found = getattr(found, part, None)
            return found
    return None


# ---------------------------------------------------------------------- record, helpers


def summarize_gin_config(model_dir: str, summary_writer: Any = None, step: int = 0) -> None:
    """Write the bindings that were used to `model_dir/config.gin`, and to TensorBoard."""
    text = gin.operative_config_str()
    path = Path(model_dir) / "config.gin"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)
    if summary_writer is not None:
        summary_writer.write_text(step, "config", gin.markdown(text))


def sum_fn(var1: Any, var2: Any) -> Any:
    """var1 + var2, for gin files."""
    return var1 + var2


def bool_fn(var1: Any) -> bool:
    """bool(var1), for gin files."""
    return bool(var1)


def string_split_fn(text: str, separator: str, maxsplit: int = -1, index: int | None = None) -> Any:
    """The parts of `text`, or part `index`, for gin files."""
    parts = text.split(separator, maxsplit)
    return parts if index is None else parts[index]
