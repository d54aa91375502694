"""CPU seconds of restoring a training state, relative to upstream's.

Ours are measured in units of `np.load` of the same arrays from .npy files in the same process, and
divided by upstream's in the same units. Those are constants: what this repository took at commit
ed82e5a, divided by its ratio to t5x cc342d4 (jax 0.12.0) side by side then. Files are in the
system's cache.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import t5
from benchmarks.harness import TIMES_UPSTREAM, Row, effort, run_pinned, time_ratio

#: By size: upstream's time in units of loading .npy files.
UPSTREAM = {"1.05 M": 21.3 / 2.7, "70.7 M": 12.3 / 1.35}
NETWORKS = {"1.05 M": t5.NETWORK, "70.7 M": t5.SMALL}
GOAL = 1.0


def measure(tiny: bool = False) -> list[Row]:
    """Return a row for each size."""
    rows = []
    for size, upstream in UPSTREAM.items():
        figure = run_pinned(f"{__name__}:figure", size=size, tiny=tiny) / upstream
        case = f"state of a T5 of {size} parameters, Adafactor"
        rows.append(Row(case, TIMES_UPSTREAM, figure, 1.0, GOAL, at_most=True))
    return rows


def figure(size: str, tiny: bool) -> float:
    """Return the time in units of loading .npy files."""
    network = t5.TINY if tiny else NETWORKS[size]
    with tempfile.TemporaryDirectory() as folder:
        restore, load = restoring_and_loading(network, Path(folder))
        return time_ratio(restore, load, **effort(tiny))


def restoring_and_loading(
    network: dict[str, Any], folder: Path
) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Write a random state both ways; return (restore it, load its arrays)."""
    import jax

    from t5x.checkpoints import CheckpointManager
    from t5x.partitioning import PjitPartitioner
    from t5x.utils import TrainStateInitializer

    trainer, batch = t5.make_trainer(network, t5.TINY_LENGTH), t5.random_batch(t5.TINY_LENGTH)
    initializer = TrainStateInitializer(
        trainer.model.optimizer_def,
        trainer.model.get_initial_variables,
        {name: x.shape for name, x in batch.items()},
        PjitPartitioner(num_partitions=1),
    )
    manager = CheckpointManager(folder / "run")
    state = trainer.train_state.state_dict()
    manager.save(1, state)
    manager.wait()
    paths = [folder / f"{i}.npy" for i, _ in enumerate(jax.tree.leaves(state))]
    for path, x in zip(paths, jax.tree.leaves(state)):
        np.save(path, np.asarray(x))

    def restore() -> Any:
        return jax.block_until_ready(initializer.from_manager(manager, 1))

    return restore, lambda: [np.load(path) for path in paths]
