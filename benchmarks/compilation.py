"""CPU seconds of tracing, lowering and compiling, relative to upstream's.

Ours are measured in units of those of a fixed program (`baselines.plain_transformer`) in the same
process, and divided by upstream's in the same units. Those are constants: what this repository
took at commit ed82e5a, divided by its ratio to t5x cc342d4 (jax 0.12.0) side by side then. Nothing
is cached.
"""

import functools
from collections.abc import Callable
from typing import Any

from benchmarks import decoding, t5
from benchmarks.harness import TIMES_UPSTREAM, Row, effort, run_pinned, time_ratio

#: By program: what it is, upstream's time in units of the fixed program, what is asked of ours.
CASES = {
    "train": ("train step, 1.05 M T5", 9.1 / 1.1, 0.8),
    "decode": ("greedy decoding, MT3-small, batch 8", 5.0 / 2.7, 1.0),
}


def measure(tiny: bool = False) -> list[Row]:
    """Return a row for each of `CASES`."""
    found = run_pinned(f"{__name__}:figures", tiny=tiny)
    return [
        Row(case, TIMES_UPSTREAM, found[name] / upstream, 1.0, goal, at_most=True)
        for name, (case, upstream, goal) in CASES.items()
    ]


def figures(tiny: bool) -> dict[str, float]:
    """Return times in units of the fixed program's."""
    import jax

    from benchmarks.baselines.plain_transformer import compile_anew

    jax.config.update("jax_enable_compilation_cache", False)
    works = {"train": train_step(tiny), "decode": decode_program(tiny)}
    options = effort(tiny) or {"repeats": 3}
    return {name: time_ratio(work, compile_anew, **options) for name, work in works.items()}


def train_step(tiny: bool) -> Callable[[], Any]:
    """Return work that compiles the training step of a T5."""
    import jax

    network, length = (t5.TINY, t5.TINY_LENGTH) if tiny else (t5.NETWORK, t5.LENGTH)
    trainer = t5.make_trainer(network, length)
    batch = trainer.to_device(t5.random_batch(length))

    def work() -> None:
        jax.clear_caches()
        trainer.compile_train(batch)

    return work


def decode_program(tiny: bool) -> Callable[[], Any]:
    """Return work that compiles decoding with MT3's network."""
    import jax

    predict, arguments = decoding.program("batch8", tiny)

    def work() -> None:
        jax.clear_caches()
        jax.jit(functools.partial(predict)).lower(*arguments).compile()

    return work
