"""Where the time of a benchmark's hot program goes: `python -m benchmarks profile NAME`.

NAME is a benchmark, or one of its programs: `t5:beam`. The program runs on one thread under JAX's
profiler. Instructions are those of XLA; the compiled programs say which operation, and which line
of this repository, each of them was made by. Instructions of the same operation, line and kind are
counted together, such as those of all layers.
"""

import argparse
import collections
import importlib
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.harness import ROOT, run_pinned
from musax.tables import Table

RUNS = 3
SHOWN = 10

_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%([\w.-]+) = (.*)$")
_NAMES = re.compile(r"%([\w.-]+)")
_OP_NAME = re.compile(r'op_name="([^"]*)"')
_FRAME = re.compile(r"stack_frame_id=(\d+)")
_TABLE_LINE = re.compile(r"^(\d+) (.*)$")


class Origin(NamedTuple):
    """What made an instruction.

    Attributes:
      operation: JAX's primitive, and whether it belongs to a gradient.
      source: file:line in this repository, and that of its caller; "" if unknown.
    """

    operation: str
    source: str


class Spent(NamedTuple):
    """The time of like instructions: share of all, how often a run, kind, and origin."""

    share: float
    count: float
    kind: str
    operation: str
    source: str


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the most expensive operations of a program."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks profile", description=__doc__)
    parser.add_argument("name", metavar="NAME[:PROGRAM]", help="such as t5:beam")
    parser.add_argument("--tiny", action="store_true", help="small sizes: the shares mean nothing")
    args = parser.parse_args(arguments)
    module, _, program = args.name.partition(":")
    programs = _programs(module)
    if not programs:
        parser.error(f"{module!r} is no benchmark with a program to profile, such as t5 or drums")
    program = program or programs[0]
    if program not in programs:
        parser.error(f"{module} has no program {program!r}; there are {', '.join(programs)}")
    found = run_pinned("benchmarks.profile:hottest", module=module, program=program, tiny=args.tiny)
    print(make_table(f"{module}:{program}", [Spent(*x) for x in found]).to_text())


def _programs(module: str) -> tuple[str, ...]:
    from benchmarks.__main__ import NAMES

    if module not in NAMES:
        return ()
    return getattr(importlib.import_module(f"benchmarks.{module}"), "PROGRAMS", ())


def make_table(title: str, found: Sequence[Spent]) -> Table:
    """Return a line for each operation, and one for the rest."""
    rows = [
        {
            "Share": x.share,
            "Count": round(x.count),
            "Operation": x.operation,
            "XLA": x.kind,
            "Source": x.source,
        }
        for x in found
    ]
    rest = {"Share": 1.0 - sum(x.share for x in found), "Operation": "all others"}
    return Table(title, [*rows, rest], {"Share": ".1%", "Count": ","})


def hottest(module: str, program: str, tiny: bool) -> list[Spent]:
    """Return the most expensive operations of a program, which runs in this process."""
    work = importlib.import_module(f"benchmarks.{module}").work(program, tiny)
    work.run()
    origins = _origins()
    spent: dict[tuple[str, Origin], float] = collections.defaultdict(float)
    counts: collections.Counter[tuple[str, Origin]] = collections.Counter()
    for program_name, instruction, nanoseconds in _trace(work.run):
        origin = origins.get(program_name, {}).get(instruction, Origin("", ""))
        key = re.sub(r"[.\d]+$", "", instruction), origin
        spent[key] += nanoseconds
        counts[key] += 1
    whole = max(sum(spent.values()), 1.0)
    most = sorted(spent, key=lambda key: -spent[key])[:SHOWN]
    return [Spent(spent[key] / whole, counts[key] / RUNS, key[0], *key[1]) for key in most]


# ------------------------------------------------------------------------------------- traces


def _trace(run: Any) -> Iterator[tuple[str, str, float]]:
    """Yield (program, instruction, nanoseconds of its own) of every instruction that runs."""
    import jax

    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder, profiler_options=options):
            for _ in range(RUNS):
                run()
        (path,) = Path(folder).rglob("*.xplane.pb")
        data = jax.profiler.ProfileData.from_file(str(path))
    for plane in data.planes:
        for line in plane.lines:
            events = []
            for event in line.events:
                stats = dict(event.stats)
                if "hlo_op" in stats:
                    name = str(stats["hlo_module"]), str(stats["hlo_op"])
                    events.append((event.start_ns, event.duration_ns, name))
            for name, own in own_times(events):
                yield *name, own


def own_times(
    events: Iterable[tuple[float, float, Any]],
) -> Iterator[tuple[Any, float]]:
    """Yield (name, time of its own) of the events (start, duration, name) of a thread.

    That is without what runs inside it: a loop's event holds those of its body.
    """
    stack: list[list[Any]] = []  # of end, name, time of its own
    for start, duration, name in sorted(events, key=lambda event: (event[0], -event[1])):
        while stack and stack[-1][0] <= start:
            _, *done = stack.pop()
            yield tuple(done)
        if stack:
            stack[-1][2] -= duration
        stack.append([start + duration, name, duration])
    for _, *done in stack:
        yield tuple(done)


# ---------------------------------------------------------------------------------- programs


def _origins() -> dict[str, dict[str, Origin]]:
    """Return what made each instruction, by program and instruction, of all compiled programs."""
    from jax.extend import backend

    found: dict[str, dict[str, Origin]] = collections.defaultdict(dict)
    for executable in backend.get_backend().live_executables():
        for module in executable.hlo_modules():
            found[module.name] |= read_origins(module.to_string())
    return found


def read_origins(text: str) -> dict[str, Origin]:
    """Return what made each instruction of a compiled program, given as text.

    An instruction that does not say so, such as a copy, is given that of its first operand that
    does, or else of the first instruction that uses it.
    """
    sources = _sources(text)
    found: dict[str, Origin] = {}
    operands: dict[str, list[str]] = {}
    users: dict[str, list[str]] = collections.defaultdict(list)
    for line in text.splitlines():
        if instruction := _INSTRUCTION.match(line):
            name, named, frame = instruction[1], _OP_NAME.search(line), _FRAME.search(line)
            operands[name] = _NAMES.findall(instruction[2].partition("metadata=")[0])
            for operand in operands[name]:
                users[operand].append(name)
            if named and frame:
                found[name] = Origin(_operation(named[1]), sources.get(frame[1], ""))
    made = dict(found)
    for name in operands.keys() - made.keys():
        for word, others in (("before", users[name]), ("after", operands[name])):
            known = [made[other] for other in others if other in made]
            if known:
                found[name] = Origin(f"{word} {known[0].operation}", known[0].source)
    return found


def _operation(op_name: str) -> str:
    """Return the primitive at the end of a path of scopes, and whether it is in a gradient."""
    primitive = op_name.rsplit("/", 1)[-1]
    return f"{primitive}, gradient" if "transpose(" in op_name else primitive


def _sources(text: str) -> dict[str, str]:
    """Return where each stack frame of a program is: the line in this repository, and its caller's.

    Without such a line it is the innermost one of all.
    """
    files, places, frames = (_table(text, x) for x in ("FileNames", "FileLocations", "StackFrames"))

    def chain(frame: str) -> Iterator[str]:
        while frame in frames:
            fields = _fields(frames[frame])
            place = _fields(places[fields["file_location_id"]])
            yield f"{files[place['file_name_id']].strip('"')}:{place['line']}"
            frame = str(int(fields.get("parent_frame_id", 1)) - 1)  # written plus one; 0 is none

    found = {}
    for frame in frames:
        lines = list(chain(frame))
        ours = [line for line in lines if line.startswith(f"{ROOT}/") and "/.venv/" not in line]
        # Every product is made there; who asked for it is what tells.
        ours = [line for line in ours if "t5x/layers/products.py:" not in line] or ours
        shown = ours[:2] or lines[:1]
        found[frame] = " < ".join(line.removeprefix(f"{ROOT}/") for line in shown)
    return found


def _table(text: str, title: str) -> Mapping[str, str]:
    """Return the numbered lines below a title."""
    found = {}
    for line in text.partition(f"\n{title}\n")[2].splitlines():
        entry = _TABLE_LINE.match(line)
        if not entry:
            break
        found[entry[1]] = entry[2]
    return found


def _fields(entry: str) -> dict[str, str]:
    return dict(part.split("=") for part in entry.strip("{}").split())
