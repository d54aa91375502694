"""Who imports whom, read from the sources: imports inside functions count as well."""

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
PAPERS = set(PACKAGES) - {"t5x", "musax"}
#: Modules of musax that may import paper packages: verbs, and the table of models by name.
DOORS = ("musax.commands.", "musax.pretrained.")


def module_name(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(source: str, modules: set[str]) -> Iterator[str]:
    """The modules, out of `modules`, that a source imports."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in modules else node.module for name in names]
        else:
            continue
        yield from (name for name in names if name in modules)


def circle(graph: dict[str, set[str]]) -> list[str]:
    """A circle of imports, its first module also last; empty without one."""
    left = {name: targets - {name} for name, targets in graph.items()}
    while leaves := {name for name, targets in left.items() if not targets}:
        left = {name: targets - leaves for name, targets in left.items() if name not in leaves}
    path = sorted(left)[:1]
    while left:
        step = min(left[path[-1]])
        path.append(step)
        if step in path[:-1]:
            return path[path.index(step) :]
    return []


@pytest.fixture(scope="module")
def graph() -> dict[str, set[str]]:
    files = {module_name(f): f for package in PACKAGES for f in (ROOT / package).rglob("*.py")}
    modules = set(files)
    return {name: set(imported(file.read_text(), modules)) for name, file in files.items()}


def test_circles_are_found():
    assert circle({"a": {"b"}, "b": {"c", "a"}, "c": set()}) == ["a", "b", "a"]
    assert circle({"a": {"b", "a"}, "b": {"c"}, "c": set()}) == []
    source = "import p.a\ndef f():\n    from p import b, name\n    from p.c import d"
    assert set(imported(source, {"p", "p.a", "p.b", "p.c"})) == {"p", "p.a", "p.b", "p.c"}


def test_no_import_circles(graph):
    assert circle(graph) == []


def test_packages_import_only_what_is_below_them(graph):
    wrong = []
    for name, targets in graph.items():
        package = name.partition(".")[0]
        forbidden = set(PACKAGES) - {"t5x"} if package == "t5x" else PAPERS - {package}
        if package == "musax" and f"{name}.".startswith(DOORS):
            continue
        wrong += [f"{name} imports {t}" for t in targets if t.partition(".")[0] in forbidden]
    assert wrong == []
