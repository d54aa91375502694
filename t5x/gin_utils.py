"""Gin files and `--gin.X=Y` flags, with errors that say what to do.

    --gin_file=t5x/examples/t5/t5_1_1/tiny.gin --gin.TRAIN_STEPS=100 --gin.MODEL_DIR=/tmp/run

Files are searched in the user's search paths, in the working directory, and then where the
packages' own lie: in the checkout, or in the installed wheel (`configs/mt3/tiny_piano.gin` is found
from anywhere). A later file or flag overrides an earlier one. A name that nothing has, a macro that
nothing reads, a required macro that nothing sets, and a value that is not of the parameter's type
all stop the run before it starts.
"""

import argparse
import ast
import contextlib
import difflib
import inspect
import os
import re
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import gin

from t5x import gin_limits
from t5x.files import check_local, write_text
from t5x.gin_files import quietly_read, searching
from t5x.gin_types import type_problems
from t5x.unsupported import UNSUPPORTED, explanation

_MACRO_LINE = re.compile(r"^\s*([A-Za-z_]\w*)\s*=")
_REFERRED_SCOPES = re.compile(r"@((?:[\w.]+/)+)")
_DYNAMIC = "from __gin__ import dynamic_registration"


class GinError(ValueError):
    """A configuration that cannot run; the message names the file or flag and the remedy."""


# ---------------------------------------------------------------------- flags


def rewrite_gin_args(args: Sequence[str]) -> list[str]:
    """Turn `--gin.X.y=v` into `--gin_bindings=X.y = v`.

    A value that is neither a literal nor a reference, such as a path or `a,b`, is a string.

    Raises:
      GinError: a `--gin.` argument without `=`.
    """
    return [_rewrite(arg) if arg.startswith("--gin.") else arg for arg in args]


def _rewrite(arg: str) -> str:
    name, equals, value = arg.removeprefix("--gin.").partition("=")
    if not equals:
        raise GinError(f"{arg}: expected --gin.NAME=VALUE.")
    if not value.strip():
        raise GinError(f"{arg}: has no value; for an empty string give --gin.{name}=\"''\".")
    return f"--gin_bindings={name} = {value if _is_gin_value(value.strip()) else repr(value)}"


def _is_gin_value(text: str) -> bool:
    """Is this a reference, a container, a quoted string or a literal, and no bare string?"""
    if text[0] in "@%[({'\"":
        return True
    if "#" in text:  # Python and gin take it for a comment
        return False
    try:
        return isinstance(ast.literal_eval(text), int | float | str | bytes | None)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return False


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
) -> dict[Path, str]:
    """Read files, then bindings; return all files read, includes too, with their names."""
    with searching(search_paths) as read:
        try:
            for file in files:
                check_local(file, "--gin_file")
                gin.parse_config_file(str(file), skip_unknown=skip_unknown)
            lines = [_without_alias(binding, main) for binding in bindings]
            gin.parse_config(lines, skip_unknown=skip_unknown)  # type: ignore[arg-type]
        except gin_limits.ForbiddenError as error:
            raise gin_limits.ForbiddenError(first_line(error)) from error
        except Exception as error:
            message = _told(error)
            if isinstance(error, UnicodeError) and read:  # of Python's tokenizer
                message = (
                    f"{[*read][-1]}: has characters that are no text of a gin file ({message})"
                )
            raise GinError(f"{message}\n {_suggestion(message)}".rstrip()) from error
    return read


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


def _check(files: Mapping[Path, str], bindings: Sequence[str]) -> None:
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
    problems += _scope_problems(files, bindings)
    if not problems:
        problems += type_problems(values, {n: p for n, p in where.items() if n not in flags})
    if problems:
        raise GinError("\n".join(problems))


def _how(name: str) -> str:
    return f"\n  Set it with --gin.{name}=VALUE, or with `{name} = VALUE` in a gin file."


def _close(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=3, cutoff=0.6)
    return f" Did you mean {', '.join(close)}?" if close else ""


def _declarations(files: Mapping[Path, str]) -> dict[str, str]:
    """Macro name -> the place that first gives it, as `file:line`."""
    where: dict[str, str] = {}
    for path, file in files.items():
        for number, line in enumerate(quietly_read(path).splitlines(), start=1):
            match = _MACRO_LINE.match(line)
            if match:
                where.setdefault(match.group(1), f"{file}:{number}")
    return where


def _told(error: BaseException) -> str:
    """Return the message of an error of gin's; a KeyError's is in quotes."""
    message = str(error)
    return (
        re.sub(r"\A\"(.*?)\"(?=$|\n)", r"\1", message) if isinstance(error, KeyError) else message
    )


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says, without gin's account of where it was."""
    return next(iter(_told(error).strip().splitlines()), type(error).__name__)


def _scope_problems(files: Mapping[Path, str], bindings: Sequence[str]) -> Iterator[str]:
    """One sentence for each scope of a binding that nothing enters, such as a misspelt `trian/`.

    A scope is entered by a macro of its name and by references such as @train/f(), also by those
    that a later file or flag replaces.
    """
    texts = [*map(quietly_read, files), *bindings]
    entered = set(_macro_values())
    for text in texts:
        for scopes in _REFERRED_SCOPES.findall(text):
            entered.update(scopes.split("/"))
    for scope, selector in gin.config._CONFIG:
        if selector == "gin.macro":
            continue
        for part in filter(None, scope.split("/")):
            if part not in entered:
                yield (
                    f"{scope}/{selector}: nothing enters the scope {part}/, so this binding has no "
                    f"effect; a reference such as @{part}/... would.{_close(part, entered)}"
                )


def _suggestion(message: str) -> str:
    """What to do about one of gin's error messages: « Did you mean », or the line that lacks."""
    if "malformed node" in message or "Expected newline" in message:
        return "A value is a Python literal, a reference @name or a macro %NAME; text needs quotes."
    if found := re.match(r"'(\w+)' was not provided by an import statement", message):
        return f"Import it in that file, such as `from t5x import {found.group(1)}`."
    if "should be enabled before any other modules" in message:
        return f"Put `{_DYNAMIC}` before the other imports."
    if found := re.search(r"Ambiguous selector '([\w.]+)'", message):
        return f"Write more of the name, such as {_longer_name(found.group(1))}."
    found = re.search(r"doesn't have a parameter named '(\w+)'", message)
    owner = re.search(r"onfigurable '([\w.]+)'", message)
    if found and owner:
        return _close(found.group(1), _parameters(owner.group(1)))
    found = re.search(r"<(?:module|class) '([\w.]+)'.*has no attribute (\w+)", message)
    if found:
        if (full := ".".join(found.groups())) in UNSUPPORTED:
            return explanation(full)
        return _close(found.group(2), dir(_find_object(found.group(1))))
    found = re.search(r"No configurable matching (?:reference )?'@?(?:\w+/)*([\w.]+)", message)
    if found and (lacking := _without_registration(message)):
        return lacking
    if found and (close := _close_in_module(found.group(1))):
        return close
    if found:
        selectors = [selector for selector, _ in gin.config._REGISTRY.items()]
        wanted = found.group(1)
        depth = wanted.count(".") + 1
        return _close(wanted, {".".join(s.split(".")[-depth:]) for s in selectors})
    return ""


def _locate(file: Path) -> Path:
    candidates = (Path(prefix) / file for prefix in gin.config._LOCATION_PREFIXES)
    return next((path for path in candidates if path.is_file()), file)


def _without_registration(message: str) -> str:
    """What to do if the file that a message names imports modules without dynamic registration."""
    place = re.search(r'In file "(.*)", line', message)
    file = _locate(Path(place.group(1))) if place else None
    if file is None or not file.is_file():
        return ""
    text = quietly_read(file)
    if re.search(r"^from __gin__ import dynamic_registration", text, re.MULTILINE):
        return ""
    return f"The file does not begin with `{_DYNAMIC}`, without which its imports give no names."


def _parameters(selector: str) -> Collection[str]:
    """Names of the parameters of a configurable that an error names; none if it is ambiguous."""
    matches = gin.config._REGISTRY.matching_selectors(selector)
    if len(matches) != 1:
        return ()
    return inspect.signature(gin.config._REGISTRY[matches[0]].wrapped).parameters


def _longer_name(selector: str) -> str:
    """The shortest names that tell apart what a selector matches."""
    matches = gin.config._REGISTRY.matching_selectors(selector)
    return " or ".join(sorted(gin.config._REGISTRY.minimal_selector(match) for match in matches))


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
