"""How benchmarks measure and report.

A benchmark is a module with `measure(tiny=False) -> list[Row]`. Every figure is a ratio of CPU
seconds of one process: of ours to another way of doing the same, or to a large product of
matrices, whose rate stands for the peak of the processor. Both sides run in turn and the median is
over pairs, so that a processor which is slower for a while is so for both. Work runs on one thread
in a process of its own (`run_pinned`), bound to one core before anything is imported.

A benchmark with a hot program names it in PROGRAMS and makes it in `work(name, tiny) -> Work`,
which `measure` and `benchmarks.profile` share.
"""

import dataclasses
import functools
import importlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
REPEATS = 7
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

SHARE_OF_PEAK = "share of peak"
TOKENS_PER_GFLOP = "tokens per GFLOP of peak"
SECONDS_PER_GFLOP = "seconds of audio per GFLOP of peak"
TIMES_UPSTREAM = "times upstream's CPU seconds"


class UnavailableError(RuntimeError):
    """What a benchmark measures is not here; the message says what is missing."""


@dataclasses.dataclass(frozen=True)
class Work:
    """A hot program.

    Attributes:
      run: does it once, to its end.
      amount: what a run yields: GFLOP of a training step, tokens, seconds of audio.
    """

    run: Callable[[], Any]
    amount: float


@dataclasses.dataclass(frozen=True)
class Row:
    """One figure.

    Attributes:
      case: what is measured.
      measure: what the figure is, such as "share of peak".
      figure: of musax, in this run.
      upstream: the same of upstream, or None where it is not known.
      goal: what the figure is to reach, or None.
      at_most: whether the goal is an upper bound.
    """

    case: str
    measure: str
    figure: float
    upstream: float | None = None
    goal: float | None = None
    at_most: bool = False

    @property
    def goal_met(self) -> bool | None:
        """Whether the goal is reached; None without one."""
        if self.goal is None:
            return None
        return self.figure <= self.goal if self.at_most else self.figure >= self.goal

    def to_json(self) -> dict[str, Any]:
        """Return all attributes, and whether the goal is met."""
        return {**dataclasses.asdict(self), "goal_met": self.goal_met}


# ---------------------------------------------------------------------------------- measuring


def time_ratio(
    numerator: Callable[[], Any],
    denominator: Callable[[], Any],
    *,
    repeats: int = REPEATS,
    min_seconds: float = MIN_REPEAT_S,
) -> float:
    """Return CPU seconds of `numerator` as a multiple of those of `denominator`.

    All threads of this process count. The first call of each (compilation, caches) does not. Quick
    work is called several times in a row, until that takes `min_seconds`, after a call that does
    not count: it frees what the other side has left.
    """
    sides = [(work, _calls(work, min_seconds)) for work in (numerator, denominator)]
    pairs = [[_seconds(work, calls) for work, calls in sides] for _ in range(repeats)]
    return statistics.median(a / b for a, b in pairs)


def _calls(work: Callable[[], Any], min_seconds: float) -> int:
    work()
    return max(1, round(min_seconds / _seconds(work, 1)))


def _seconds(work: Callable[[], Any], calls: int) -> float:
    """Return CPU seconds of one of so many calls."""
    if calls > 1:
        work()
    begin = time.process_time()
    for _ in range(calls):
        work()
    return max(time.process_time() - begin, 1e-9) / calls


def effort(tiny: bool) -> dict[str, Any]:
    """Return arguments of `time_ratio`: one short repeat where only the mechanics are tested."""
    return {"repeats": 1, "min_seconds": 0.0} if tiny else {}


def per_peak(work: Work, tiny: bool) -> float:
    """Return the amount a run yields for every GFLOP that the peak would do in the same time."""
    product, gflop = product_of_matrices(64 if tiny else MATRIX)
    return work.amount / gflop * time_ratio(product, work.run, **effort(tiny))


def product_of_matrices(size: int) -> tuple[Callable[[], Any], float]:
    """Return a float32 product of square matrices, and its GFLOP."""
    import jax

    x = jax.random.normal(jax.random.key(0), (size, size))
    multiply = jax.jit(lambda a: a @ a)
    return lambda: multiply(x).block_until_ready(), 2 * size**3 / 1e9


def programs_per_peak(module: str, names: Sequence[str], tiny: bool) -> dict[str, float]:
    """Return `per_peak` of programs of a benchmark by name, one after the other in this process."""
    make = importlib.import_module(module).work
    return {name: per_peak(make(name, tiny), tiny) for name in names}


def training(trainer: Any, batch: Any, flops: str = "model_flops") -> Work:
    """Return the training step of a trainer on a batch; its amount is GFLOP.

    Args:
      trainer: a `t5x.trainer.Trainer`.
      batch: of the host.
      flops: the trainer's count: "model_flops", by formula, or "flops", XLA's.
    """
    import jax

    on_device = trainer.to_device(batch)

    def step() -> None:
        trainer.step(on_device)
        jax.block_until_ready(trainer.train_state)

    step()
    return Work(step, getattr(trainer, flops) / 1e9)


def jitted(function: Callable[..., Any], *arguments: Any) -> Callable[[], Any]:
    """Return a call of `function`, compiled, which waits for its result."""
    import jax

    compiled = jax.jit(function)
    return lambda: jax.block_until_ready(compiled(*arguments))


# ---------------------------------------------------------------------------------- processes


def run_pinned(function: str, **arguments: Any) -> Any:
    """Run `module:function` with JSON `arguments` on one core in a new process.

    Returns:
      What it returns, through JSON.

    Raises:
      RuntimeError: it failed; holds the end of its error output.
    """
    command = [sys.executable, "-m", "benchmarks.pinned", function, json.dumps(arguments)]
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    env = {**os.environ, **SINGLE_THREAD, "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{function} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


run_programs = functools.partial(run_pinned, "benchmarks.harness:programs_per_peak")
