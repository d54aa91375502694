"""Parameters of networks which scan over their layers, from and to one set for each layer.

| layout | names | relative positions |
|---|---|---|
| plain (`t5`) | `encoder/layers_3/mlp/wo/kernel` (M, E) | `encoder/relpos_bias`, for all |
| scanned (`scalable_t5`) | `encoder/encoder/mlp/wo/kernel` (M, layers, E) | a table in each layer |

Networks that can scan but do not (`scan_layers=False`) have the names of the first with
the tables of the second.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import traverse_util

from t5x.checkpoints.errors import CheckpointError

Tree = Any

_POSITIONS = "relpos_bias"


def scan_params(params: Mapping[str, Tree], axis: int = 1) -> dict[str, Tree]:
    """Stack `layers_0`, `layers_1`, ... of every stack of layers on a new axis.

    A table of relative positions which the layers share is repeated for each of them, which
    computes the same function.

    Args:
      params: nested dicts of arrays; `layers_i` of one stack must agree in names and shapes.
      axis: where the new axis stands: the network's `param_scan_axis`.

    Raises:
      CheckpointError: there are no such layers, or they differ.
    """
    scanned, found = _scan(dict(params), "", axis)
    if not found:
        raise CheckpointError("The parameters have no layers_0, layers_1, ... to be stacked.")
    return scanned


def unscan_params(
    params: Mapping[str, Tree], axis: int = 1, shared_positions: bool = True
) -> dict[str, Tree]:
    """The inverse of `scan_params`.

    Args:
      params: nested dicts of arrays, scanned layers under `<name>/<name>`.
      axis: which axis of the arrays the layers are: the network's `param_scan_axis`.
      shared_positions: take the table of relative positions out of the layers, for a plain T5;
        otherwise each layer keeps its own.

    Raises:
      CheckpointError: nothing is scanned, or the layers' tables of relative positions, which were
        to be one, differ.
    """
    unscanned, found = _unscan(dict(params), "", axis, shared_positions)
    if not found:
        raise CheckpointError(
            "The parameters have no scanned layers (such as decoder/decoder/...) to be separated."
        )
    return unscanned


def restack(
    tree: Mapping[str, Tree], axis: int, scanning: bool, shared: bool = True
) -> dict[str, Tree]:
    """`scan_params` or `unscan_params` of a tree that need not have layers at all."""
    if scanning:
        return _scan(dict(tree), "", axis)[0]
    return _unscan(dict(tree), "", axis, shared)[0]


def _scan(tree: dict[str, Tree], name: str, axis: int) -> tuple[dict[str, Tree], bool]:
    if "layers_0" in tree:
        return _scan_stack(tree, name, axis), True
    result, found = {}, False
    for key, value in tree.items():
        result[key] = value
        if isinstance(value, Mapping):
            result[key], inner = _scan(dict(value), key, axis)
            found |= inner
    return result, found


def _scan_stack(tree: dict[str, Tree], name: str, axis: int) -> dict[str, Tree]:
    count = sum(key.startswith("layers_") for key in tree)
    rest = {k: v for k, v in tree.items() if not k.startswith("layers_")}
    shared = {_POSITIONS: rest.pop(_POSITIONS)} if _POSITIONS in rest else {}
    layers = []
    for i in range(count):
        if f"layers_{i}" not in tree:
            raise CheckpointError(f"{name}: {count} layers, but none is called layers_{i}.")
        layers.append(traverse_util.flatten_dict({**shared, **tree[f"layers_{i}"]}, sep="/"))
    for i, layer in enumerate(layers):
        shapes, first = ({k: np.shape(v) for k, v in x.items()} for x in (layer, layers[0]))
        if shapes != first:
            differing = sorted(dict(shapes.items() ^ first.items()))
            raise CheckpointError(f"{name}: layers_{i} and layers_0 differ in {differing}.")
    stacked = {k: np.stack([layer[k] for layer in layers], axis) for k in layers[0]}
    return {**rest, name: traverse_util.unflatten_dict(stacked, sep="/")}


def _unscan(
    tree: dict[str, Tree], name: str, axis: int, shared: bool
) -> tuple[dict[str, Tree], bool]:
    if name and isinstance(tree.get(name), Mapping) and "layers_0" not in tree:
        return _unscan_stack(tree, name, axis, shared), True
    result, found = {}, False
    for key, value in tree.items():
        result[key] = value
        if isinstance(value, Mapping):
            result[key], inner = _unscan(dict(value), key, axis, shared)
            found |= inner
    return result, found


def _unscan_stack(tree: dict[str, Tree], name: str, axis: int, shared: bool) -> dict[str, Tree]:
    result = {k: v for k, v in tree.items() if k != name}
    stacked: dict[str, Any] = traverse_util.flatten_dict(dict(tree[name]), sep="/")
    if shared:
        tables = [k for k in stacked if k.startswith(f"{_POSITIONS}/")]
        for key in tables:
            value = _the_one_table(np.asarray(stacked.pop(key)), axis, f"{name}/{name}/{key}")
            result[_POSITIONS] = {key.removeprefix(f"{_POSITIONS}/"): value}
    counts = {k: np.shape(v)[axis] for k, v in stacked.items()}
    if len(set(counts.values())) != 1:
        raise CheckpointError(f"{name}: axis {axis} is no axis of layers: lengths {counts}.")
    for i in range(next(iter(counts.values()))):
        layer = {k: np.take(np.asarray(v), i, axis) for k, v in stacked.items()}
        result[f"layers_{i}"] = traverse_util.unflatten_dict(layer, sep="/")
    return result


def _the_one_table(tables: np.ndarray, axis: int, name: str) -> np.ndarray:
    first = np.take(tables, 0, axis)
    if (tables != np.expand_dims(first, axis)).any():
        raise CheckpointError(
            f"{name}: the layers have different tables of relative positions, while a plain T5 "
            "has one for all of them. These parameters are those of another function: keep "
            "the scanned network, or pass shared_positions=False for one with scan_layers=False."
        )
    return first
