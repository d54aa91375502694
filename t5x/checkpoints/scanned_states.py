"""Whole training states of networks which scan over their layers, from and to the other layout.

The same network with `scan_layers` the other way round goes on from a checkpoint with

    utils.RestoreCheckpointConfig.state_transformation_fns = [@scanned_states.convert_layers]

| of the state | is converted |
|---|---|
| parameters, their average (EMA) | as by `scan_params` and `unscan_params` |
| Adafactor's `v`, `m` | as the parameter |
| its `v_row`, `v_col` | as the parameter, less the axes that are averaged; from `v` by averaging |
| trees of optax that are like the parameters | as the parameters |
| counts, and whatever else does not depend on the layers | not at all |

Everything is exact, or an error names it.
"""

import copy
import dataclasses
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from t5x.adafactor import Adafactor, FactorDim
from t5x.checkpoints.errors import CheckpointError
from t5x.checkpoints.scanning import restack
from t5x.optimizers import ExponentialMovingAverage, MultiOptimizer

Tree = Any
Flat = dict[str, Any]
_LAYER = "layers_"


def convert_layers(
    state: Mapping[str, Tree], *, train_state: Any, axis: int = 1
) -> dict[str, Tree]:
    """A checkpoint's state in the layout of a model, scanned or not; as it is if it fits already.

    Args:
      state: nested dicts of arrays: `target`, and, if there is an optimizer, `state`.
      train_state: the model's state; its arrays may be `jax.ShapeDtypeStruct`s.
      axis: which axis of scanned parameters the layers are: the network's `param_scan_axis`.

    Raises:
      CheckpointError: something of the state has no exact counterpart in the other layout.
    """
    found, wanted = _flat(state["target"]), _flat(train_state.params)
    scanning = _has_layers(found) and not _has_layers(wanted)
    if not scanning and not (_has_layers(wanted) and not _has_layers(found)):
        return dict(state)
    shared = any(_is_shared_table(name) for name in wanted)
    layout = _Layout(found, wanted, axis, scanning)
    result = {**state, "target": restack(state["target"], axis, scanning, shared)}
    slots = state.get("state", {}).get("param_states")
    if slots is not None and hasattr(train_state, "optimizer_def"):
        layout.refuse_shared_tables()
        rule = train_state.optimizer_def
        own = train_state.state_dict()["state"]["param_states"]
        converted = _convert(rule, slots, own, layout, "state/param_states")
        result["state"] = {**state["state"], "param_states": converted}
    return result


def _flat(tree: Tree) -> Flat:
    return flatten_dict(dict(tree), sep="/")


def _has_layers(flat: Flat) -> bool:
    return any(part.startswith(_LAYER) for name in flat for part in name.split("/"))


def _is_shared_table(name: str) -> bool:
    """Is this the table of relative positions of a whole stack, such as `encoder/relpos_bias`?"""
    parts = name.split("/")
    own = any(part.startswith(_LAYER) for part in parts) or _scanned_at(parts) is not None
    return "relpos_bias" in parts and not own


def _scanned_at(parts: list[str]) -> int | None:
    """i where parts i and i + 1 are the name of a stack: encoder/encoder/mlp -> 0."""
    return next((i for i, (a, b) in enumerate(itertools.pairwise(parts)) if a == b), None)


@dataclasses.dataclass
class _Layout:
    """How the parameters of a checkpoint become those of the model.

    Attributes:
      found: those of the checkpoint, by name.
      wanted: those of the model, by name.
      axis: which axis of scanned parameters the layers are.
      scanning: whether the model scans, and the checkpoint does not.
    """

    found: Flat
    wanted: Flat
    axis: int
    scanning: bool

    def sources(self, name: str) -> tuple[list[str], int | None]:
        """The parameters of the checkpoint which make up `name`, and the layer to take of them.

        [name] and None for what no layer has; the layers' if they are stacked; the stacked one and
        the number of a layer if they are separated.
        """
        parts = name.split("/")
        if self.scanning:
            at = _scanned_at(parts)
            if at is None:
                return [name], None
            count = self.wanted[name].shape[self.axis]
            layers = [f"{_LAYER}{i}" for i in range(count)]
            return ["/".join([*parts[: at + 1], x, *parts[at + 2 :]]) for x in layers], None
        at = next((i for i, part in enumerate(parts) if part.startswith(_LAYER)), None)
        if not at:
            return [name], None
        number = int(parts[at].removeprefix(_LAYER))
        return ["/".join([*parts[:at], parts[at - 1], *parts[at + 1 :]])], number

    def refuse_shared_tables(self) -> None:
        """Raise CheckpointError if layers share a table of positions in one layout only."""
        tables = [{n for n in x if _is_shared_table(n)} for x in (self.found, self.wanted)]
        differing = sorted(tables[0] ^ tables[1])
        if differing:
            raise CheckpointError(
                f"state/param_states of {', '.join(differing)}: one layout has this table of "
                "relative positions for all layers and the other one for each, so their optimizer "
                "states are not the same. Continue with the same network and the other value of "
                "scan_layers, or convert the parameters alone (scan_params, save_safetensors) and "
                "start a new run."
            )

    def part(self, names: Mapping[str, Any]) -> "_Layout":
        """This for some parameters of the model only."""
        sources = {source for name in names for source in self.sources(name)[0]}
        found = {name: x for name, x in self.found.items() if name in sources}
        return dataclasses.replace(self, found=found, wanted=dict(names))


def _convert(rule: Any, slots: Tree, own: Tree, layout: _Layout, where: str) -> Tree:
    """The slots of a checkpoint for `rule`, whose own for the model are `own`."""
    if isinstance(rule, ExponentialMovingAverage):
        return {
            "ema": _convert_like_params(slots["ema"], own["ema"], layout, f"{where}/ema"),
            "optimizer": _convert(
                rule.rule, slots["optimizer"], own["optimizer"], layout, f"{where}/optimizer"
            ),
        }
    if isinstance(rule, MultiOptimizer):
        params = unflatten_dict(layout.wanted, sep="/")
        return {
            str(i): _convert(
                part, slots[str(i)], own[str(i)], layout.part(_flat(names)), f"{where}/{i}"
            )
            for i, (part, names) in enumerate(zip(rule.rules, rule._split(params, params)))
        }
    if isinstance(rule, Adafactor):
        return _AdafactorSlots(rule, layout, where).convert(slots)
    return _convert_any(slots, own, layout, where)


def _convert_any(slots: Tree, own: Tree, layout: _Layout, where: str) -> Tree:
    """Trees like the parameters wherever they are, as in the states of optax."""
    if not isinstance(slots, Mapping):
        if np.shape(slots) != np.shape(own):
            raise _inexact(where, f"{np.shape(slots)} here, {np.shape(own)} in the other layout")
        return slots
    names = _flat(slots)
    if names and names.keys() <= layout.found.keys():
        return _convert_like_params(slots, own, layout, where)
    empty = {k: x for k, x in own.items() if _is_empty(x)} if isinstance(own, Mapping) else {}
    used = {k for k, x in slots.items() if not _is_empty(x)}  # not every format keeps empty ones
    if not isinstance(own, Mapping) or used != own.keys() - empty.keys():
        raise _inexact(where, f"it holds {sorted(used)}, which the other layout does not")
    return empty | {k: _convert_any(slots[k], own[k], layout, f"{where}/{k}") for k in sorted(used)}


def _is_empty(tree: Tree) -> bool:
    return isinstance(tree, Mapping) and not _flat(tree)


def _convert_like_params(slots: Tree, own: Tree, layout: _Layout, where: str) -> Tree:
    for name, value in _flat(slots).items():
        shape, expected = np.shape(value), tuple(layout.found[name].shape)
        if shape != expected:
            raise _inexact(f"{where}/{name}", f"shape {shape}, the parameter has {expected}")
    converted = restack(slots, layout.axis, layout.scanning, shared=False)
    differing = sorted(_flat(converted).keys() ^ _flat(own).keys())
    if differing:
        raise _inexact(where, f"the two layouts do not both have {differing[:3]}")
    return converted


def _inexact(where: str, why: str) -> CheckpointError:
    return CheckpointError(
        f"{where} has no exact counterpart when layers are scanned, or separated ({why}). Convert "
        "the parameters alone (scan_params or unscan_params, save_safetensors) and start a new run."
    )


class _AdafactorSlots:
    """The slots of Adafactor, whose factors lack some axes of their parameter.

    Args:
      rule: that of the model.
      layout: the parameters.
      where: name of the slots, for messages.
    """

    def __init__(self, rule: Adafactor, layout: _Layout, where: str):
        self._rule, self._layout, self._where = rule, layout, where
        self._before = copy.copy(rule)  # the rule as the checkpoint's names and axes make it
        self._before._axis_roles = {
            source: self._roles(name, number)
            for name in layout.wanted
            for sources, number in [layout.sources(name)]
            for source in sources
            if name in rule._axis_roles
        }

    def _roles(self, name: str, number: int | None) -> tuple[FactorDim, ...]:
        roles, axis = list(self._rule._axis_roles[name]), self._layout.axis
        if number is not None:
            rules = self._rule.logical_factor_rules or {}
            roles.insert(axis, rules.get("layers", FactorDim.BATCH))
        elif self._layout.sources(name)[0] != [name]:
            del roles[axis]
        return tuple(roles)

    def convert(self, slots: Tree) -> Tree:
        """The slots {v_row, v_col, v, m} of every parameter of the model."""
        flat = _flat(slots)
        result = {}
        for name, param in self._layout.wanted.items():
            for slot, value in self._convert_one(name, tuple(param.shape), flat).items():
                result[f"{name}/{slot}"] = value
        return unflatten_dict(result, sep="/")

    def _convert_one(self, name: str, shape: tuple[int, ...], flat: Flat) -> dict[str, Any]:
        sources, number = self._layout.sources(name)
        lacking = [source for source in sources if f"{source}/v" not in flat]
        if lacking:
            raise CheckpointError(f"{self._where}: no slots of {lacking[0]} in the checkpoint.")
        parts = [
            {k: np.asarray(flat[f"{s}/{k}"]) for k in ("v_row", "v_col", "v", "m")} for s in sources
        ]
        axis, source = self._layout.axis, sources[0]
        old = self._axes(self._before, source, tuple(self._layout.found[source].shape))
        new = self._axes(self._rule, name, shape)
        momentum = self._rule.hyper_params.beta1 is not None
        if number is not None:
            layer = _each(
                parts[0], old, axis, momentum, lambda x, i: np.take(x, number, i), lambda x: x
            )
            return self._refactor(layer, _without_axis(old, axis), new, name)
        if sources == [name]:
            return self._refactor(parts[0], old, new, name)
        goal = _without_axis(new, axis)
        layers = [self._refactor(part, old, goal, name) for part in parts]
        stacked = {k: [layer[k] for layer in layers] for k in layers[0]}
        return _each(stacked, new, axis, momentum, np.stack, lambda x: x[0])

    def _axes(self, rule: Adafactor, name: str, shape: tuple[int, ...]) -> "_Axes":
        factoring = rule._factoring(name, shape)
        rows, columns = factoring.rows or (), factoring.columns or ()
        stacked = _scanned_at(name.split("/")) is not None
        if stacked and self._layout.axis in (*rows, *columns):
            raise _inexact(f"{self._where}/{name}", "its factors are averages over the layers")
        return _Axes(rows, columns)

    def _refactor(
        self, slots: dict[str, Any], old: "_Axes", new: "_Axes", name: str
    ) -> dict[str, Any]:
        """The slots of one layer, for other rows and columns."""
        if (old.rows, old.columns) == (new.rows, new.columns):
            return slots
        if (old.columns, old.rows) == (new.rows, new.columns):
            return {**slots, "v_row": slots["v_col"], "v_col": slots["v_row"]}
        if not old.rows and new.rows:
            v = slots["v"]  # averages of moving averages are moving averages of averages
            v_row, v_col = np.mean(v, new.columns), np.mean(v, new.rows)
            return {**slots, "v": np.zeros(1, v.dtype), "v_row": v_row, "v_col": v_col}
        raise _inexact(
            f"{self._where}/{name}",
            "the second moment is factored in one layout and not in the other",
        )


@dataclasses.dataclass(frozen=True)
class _Axes:
    """Rows and columns of a parameter; () if it is not factored."""

    rows: tuple[int, ...]
    columns: tuple[int, ...]


def _without_axis(axes: _Axes, axis: int) -> _Axes:
    def shift(some: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(i - (i > axis) for i in some)

    return _Axes(shift(axes.rows), shift(axes.columns))


def _each(
    slots: Mapping[str, Any],
    axes: _Axes,
    axis: int,
    momentum: bool,
    change: Callable[[Any, int], Any],
    first: Callable[[Any], Any],
) -> dict[str, Any]:
    """change(slot, place of the layers in it) of slots in use, first(slot) of the others.

    `axes` are those of the stacked parameter.
    """
    factored = bool(axes.rows)
    used = {"v_row": factored, "v_col": factored, "v": not factored, "m": momentum}
    averaged = {"v_row": axes.columns, "v_col": axes.rows, "v": (), "m": ()}
    places = {k: axis - sum(i < axis for i in missing) for k, missing in averaged.items()}
    return {k: change(x, places[k]) if used[k] else first(x) for k, x in slots.items()}
