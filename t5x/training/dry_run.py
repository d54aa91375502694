"""What a run would train, as text: parameters, shardings, batch, learning rate."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import flax.traverse_util
import jax
import numpy as np
from jax.sharding import PartitionSpec

_BLOCKS = "▁▂▃▄▅▆▇█"


def describe_run(
    train_state: Any,
    partitioner: Any,
    batch: Mapping[str, Any],
    learning_rate_fn: Callable[[Any], Any],
    total_steps: int,
    start: str,
) -> str:
    """The report of `--dry_run`.

    Args:
      train_state: the state, of arrays or `jax.ShapeDtypeStruct`s.
      partitioner: its mesh and rules.
      batch: name -> array or struct of a global batch.
      learning_rate_fn: step -> learning rate.
      total_steps: last step.
      start: what the run starts from.
    """
    sections = [
        ("Mesh", [f"{dict(partitioner.mesh.shape)} of {partitioner.mesh.devices.size} devices"]),
        ("Parameters", _parameters(train_state, partitioner)),
        ("Optimizer state", [_total(train_state.state_dict()["state"], "arrays")]),
        ("Batch", _batch(batch, partitioner.data_partition_spec)),
        ("Learning rate", _learning_rate(learning_rate_fn, total_steps)),
        ("Starts from", [start]),
    ]
    return "\n".join(f"{title}\n" + "\n".join(f"  {x}" for x in xs) for title, xs in sections)


def describe_inference(
    state: Any,
    partitioner: Any,
    spec: Mapping[str, tuple[Sequence[int], Any]],
    checkpoints: Sequence[Any],
) -> str:
    """The report of `--dry_run` of evaluation and inference.

    Args:
      state: an `InferenceState` of arrays or structs.
      partitioner: its mesh and rules.
      spec: {model feature: (shape, dtype)} of a batch.
      checkpoints: what would be read.
    """
    batch = {name: jax.ShapeDtypeStruct(*value) for name, value in spec.items()}
    sections = [
        ("Mesh", [f"{dict(partitioner.mesh.shape)} of {partitioner.mesh.devices.size} devices"]),
        ("Parameters", _parameters(state, partitioner)),
        ("Batch", _batch(batch, partitioner.data_partition_spec)),
        ("Checkpoints", [str(path) for path in checkpoints] or ["none left to do"]),
    ]
    return "\n".join(f"{title}\n" + "\n".join(f"  {x}" for x in xs) for title, xs in sections)


def _flat(tree: Any) -> dict[str, Any]:
    return flax.traverse_util.flatten_dict(dict(tree), sep="/")


def _columns(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip()


def _axes(spec: Iterable[Any] | None) -> str:
    return "(" + ", ".join(str(axis) for axis in spec or ()) + ")"


def _parameters(train_state: Any, partitioner: Any) -> list[str]:
    shapes = _flat(train_state.params)
    logical = _flat(partitioner.get_logical_axes(train_state).params)
    mesh = _flat(partitioner.get_mesh_axes(train_state).params)
    rows = [("name", "shape", "dtype", "count", "logical axes", "mesh axes")]
    for name, array in shapes.items():
        shape = "x".join(map(str, array.shape)) or "()"
        count = f"{math.prod(array.shape):,}"
        axes = (_axes(logical[name]), _axes(mesh[name]))
        rows.append((name, shape, np.dtype(array.dtype).name, count, *axes))
    return [*_columns(rows), _total(train_state.params, "parameters")]


def _total(tree: Any, what: str) -> str:
    leaves = [x for x in _flat(tree).values() if hasattr(x, "shape")]
    count = sum(math.prod(x.shape) for x in leaves)
    size = sum(math.prod(x.shape) * np.dtype(x.dtype).itemsize for x in leaves)
    return f"total: {len(leaves)} {what}, {count:,} numbers, {size / 2**20:.1f} MiB"


def _batch(batch: Mapping[str, Any], spec: PartitionSpec) -> list[str]:
    rows = [
        (name, "x".join(map(str, x.shape)), np.dtype(x.dtype).name, _axes(spec))
        for name, x in sorted(batch.items())
    ]
    return list(_columns([("feature", "shape", "dtype", "mesh axes"), *rows]))


def _learning_rate(fn: Callable[[Any], Any], total_steps: int) -> list[str]:
    steps = np.unique(np.linspace(0, max(total_steps, 1), 60).astype(int))
    values = np.asarray([float(fn(int(step))) for step in steps])
    top = values.max()
    levels = (values / top * (len(_BLOCKS) - 1)).round().astype(int) if top > 0 else values * 0
    curve = "".join(_BLOCKS[int(level)] for level in levels)
    marks = [0, len(steps) // 4, len(steps) // 2, 3 * len(steps) // 4, len(steps) - 1]
    points = (f"step {steps[i]}: {values[i]:.3g}" for i in dict.fromkeys(marks))
    return [curve, ", ".join(points)]
