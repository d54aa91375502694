"""What importing musax after jax, flax and optax adds to their CPU seconds."""

import json
import statistics
import subprocess
import sys

from benchmarks.harness import REPEATS, ROOT, Row

BASE = "import jax, flax.linen, optax"
CASES = {
    "musax, t5x, mt3": "import musax, t5x, mt3",
    "the command line": "import musax.cli",
    "a transcriber": "import mt3.inference",
    "the trainer": "import t5x.train",
}
GOAL = 1.5  # times the base
_SCRIPT = """
import json, time
begin = time.process_time()
{base}
middle = time.process_time()
{ours}
print(json.dumps([middle - begin, time.process_time() - middle]))
"""


def measure(tiny: bool = False) -> list[Row]:
    """Return a row for each of `CASES`, in fresh interpreters."""
    rows = []
    for case, statement in list(CASES.items())[: 1 if tiny else None]:
        pairs = [_import_seconds(statement) for _ in range(1 if tiny else REPEATS)]
        figure = statistics.median((base + ours) / base for base, ours in pairs)
        measure = "times jax, flax and optax"
        rows.append(Row(f"importing {case} too", measure, figure, goal=GOAL, at_most=True))
    return rows


def _import_seconds(statement: str) -> tuple[float, float]:
    """Return CPU seconds of the base imports, and of `statement` after them."""
    script = _SCRIPT.format(base=BASE, ours=statement)
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    base, ours = json.loads(done.stdout.splitlines()[-1])
    return base, ours
