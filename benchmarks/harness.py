"""How benchmarks measure and report.

A benchmark is a module with `measure(tiny=False) -> list[Row]`. Every row holds two figures from
the same run on the same machine, so that their ratio means something elsewhere; times are CPU
seconds of the process, medians of several repeats. Work that must not use more than one thread runs
in a process of its own (`run_pinned`), bound to one core before anything is imported.
"""

import dataclasses
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from t5x.files import write_json

ROOT = Path(__file__).resolve().parents[1]
REPEATS = 5
MIN_REPEAT_S = 0.2
MATRIX = 1024

#: One thread for XLA and for the BLAS behind NumPy.
SINGLE_THREAD = {
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
    "JAX_PLATFORMS": "cpu",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
}


class UnavailableError(RuntimeError):
    """What a benchmark measures is not here; the message says what is missing."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
      case: what is measured.
      unit: of both figures.
      ours: figure of musax.
      reference: figure of what it is compared with.
      reference_name: what that is.
      higher_is_better: whether a larger figure is better; then the ratio is ours / reference, and
        reference / ours otherwise: above 1 musax is ahead.
      goal: what is asked of `ratio`, or of `ours`, or nothing.
      goal_is_ratio: which of the two.
    """

    case: str
    unit: str
    ours: float
    reference: float
    reference_name: str
    higher_is_better: bool = True
    goal: float | None = None
    goal_is_ratio: bool = True

    @property
    def ratio(self) -> float:
        """How far ahead of the reference musax is."""
        better, worse = self.ours, self.reference
        return better / worse if self.higher_is_better else worse / better

    @property
    def goal_met(self) -> bool | None:
        """Whether the goal is reached; None without one."""
        if self.goal is None:
            return None
        if self.goal_is_ratio or self.higher_is_better:
            return (self.ratio if self.goal_is_ratio else self.ours) >= self.goal
        return self.ours <= self.goal

    @property
    def goal_text(self) -> str:
        """The goal and whether it is met, for the table."""
        if self.goal is None:
            return ""
        sign = "≥" if self.goal_is_ratio or self.higher_is_better else "≤"
        unit = "x" if self.goal_is_ratio else f" {self.unit}"
        return f"{sign} {self.goal:g}{unit}: {'met' if self.goal_met else 'MISSED'}"

    def to_table(self) -> dict[str, Any]:
        """Return the cells of the row of a table."""
        ours, other = (f"{x:,.4g} {self.unit}" for x in (self.ours, self.reference))
        return {
            "Case": self.case,
            "Compared with": self.reference_name,
            "musax": ours,
            "other": other,
            "Ratio": self.ratio,
            "Goal": self.goal_text,
        }

    def to_json(self) -> dict[str, Any]:
        """Return all attributes, the ratio and whether the goal is met."""
        return {**dataclasses.asdict(self), "ratio": self.ratio, "goal_met": self.goal_met}


def cpu_seconds(
    work: Callable[[], Any], *, repeats: int = REPEATS, min_seconds: float = MIN_REPEAT_S
) -> float:
    """Return median CPU seconds of one call of `work`, all threads of this process together.

    The first call (compilation, caches) is not counted. Quick work is called several times a
    repeat, until a repeat takes `min_seconds`.
    """
    work()
    begin = time.process_time()
    work()
    calls = max(1, round(min_seconds / max(time.process_time() - begin, 1e-6)))
    taken = []
    for _ in range(repeats):
        begin = time.process_time()
        for _ in range(calls):
            work()
        taken.append((time.process_time() - begin) / calls)
    return statistics.median(taken)


def effort(tiny: bool) -> dict[str, Any]:
    """Return arguments of `cpu_seconds`: few repeats where only the mechanics are tested."""
    return {"repeats": 1, "min_seconds": 0.0} if tiny else {}


def matmul_gflops(tiny: bool) -> float:
    """Return GFLOP per CPU second of a large product of matrices in this process."""
    import jax

    size = 64 if tiny else MATRIX
    x = jax.random.normal(jax.random.key(0), (size, size))
    multiply = jax.jit(lambda a: a @ a)
    return 2 * size**3 / 1e9 / cpu_seconds(lambda: multiply(x).block_until_ready(), **effort(tiny))


def run_pinned(function: str, **arguments: Any) -> Any:
    """Run `module:function` with JSON `arguments` on one core in a new process.

    Returns:
      What it returns, through JSON.

    Raises:
      RuntimeError: it failed; holds the end of its error output.
    """
    return _run("benchmarks.pinned", function, arguments, SINGLE_THREAD)


def run_in_process(function: str, **arguments: Any) -> Any:
    """Run a function as `run_pinned` does, without a bound on cores and threads."""
    return _run("benchmarks.unpinned", function, arguments, {"JAX_PLATFORMS": "cpu"})


def _run(module: str, function: str, arguments: dict[str, Any], settings: dict[str, str]) -> Any:
    command = [sys.executable, "-m", module, function, json.dumps(arguments)]
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    env = {**os.environ, **settings, "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{function} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def save_rows(path: str | Path, results: Mapping[str, Sequence[Row] | str]) -> None:
    """Write results by benchmark as JSON; a string says why there are none."""
    content = {
        "format": 1,
        "machine": {"cores": os.cpu_count(), "load": list(os.getloadavg())},
        "benchmarks": {
            name: {"unavailable": rows} if isinstance(rows, str) else [r.to_json() for r in rows]
            for name, rows in results.items()
        },
    }
    write_json(path, content)
