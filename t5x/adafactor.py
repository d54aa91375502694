"""Adafactor (Shazeer & Stern 2018, arXiv 1804.04235) as T5 uses it.

The second moment of a matrix is kept as a row and a column; updates are clipped by their root mean
square and scaled by that of the parameter. Which axes are rows and columns follows the shape, or,
for arrays of rank 3 and more and for stacked layers, the logical names of the axes.
"""

import dataclasses
import enum
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from flax.core import unfreeze
from jax import Array
from jax.sharding import PartitionSpec

from t5x.optimizers import Optimizer, OptimizerDef, OptimizerState
from t5x.unsupported import unsupported_names

if not TYPE_CHECKING:  # type checkers still report names that do not exist
    __getattr__ = unsupported_names(__name__)

Tree = Any


@enum.unique
class FactorDim(enum.Enum):
    """What an axis is to the factored second moment.

    NONE: kept in both factors.
    BATCH: kept in both factors, and each of its entries has its own root mean squares.
    ROW, COLUMN: averaged in the other factor.
    """

    NONE = "none"
    BATCH = "batch"
    ROW = "row"
    COLUMN = "column"


#: Rule of a parameter: factor the two largest axes, if both are large enough.
HEURISTIC_RULE = "heuristic"

FactorRule = tuple[FactorDim, ...] | str | None


def standard_logical_factor_rules(
    rules: Mapping[str, FactorDim] | None = None,
) -> dict[str, FactorDim]:
    """T5's rules, logical axis name -> role, with those of `rules` added or replaced."""
    return {
        "vocab": FactorDim.COLUMN,
        "embed": FactorDim.ROW,
        "mlp": FactorDim.COLUMN,
        "heads": FactorDim.COLUMN,
        "kv": FactorDim.COLUMN,
        "joined_kv": FactorDim.COLUMN,
        "relpos_buckets": FactorDim.NONE,
        "layer_norm_scale": FactorDim.NONE,
        "layers": FactorDim.BATCH,
        "stack": FactorDim.BATCH,
        **(rules or {}),
    }


@dataclasses.dataclass(frozen=True)
class HParamMap:
    """A value by parameter name: that of the first pattern found in the name.

    Args:
      rules: pairs (regular expression, value).
    """

    rules: Sequence[tuple[str, Any]]

    def __post_init__(self):
        object.__setattr__(self, "rules", tuple((p, _frozen(v)) for p, v in self.rules))

    def __getitem__(self, name: str) -> Any:
        """Raise KeyError if no pattern is found in `name`."""
        for pattern, value in self.rules:
            if re.search(pattern, name):
                return value
        raise KeyError(f"no rule matches the parameter {name!r}: {[p for p, _ in self.rules]}")


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _for_param(option: Any, name: str) -> Any:
    return option[name] if isinstance(option, HParamMap) else option


def standard_factor_rules() -> HParamMap:
    """Return the roles of the axes of T5's parameters by name, for `Adafactor.factor_map`.

    They are those of `standard_logical_factor_rules` for a network whose parameters have no axis
    names, or not these. Other parameters, such as of layers stacked by `scan_layers`, follow the
    heuristic: the two largest axes.
    """
    row, column = FactorDim.ROW, FactorDim.COLUMN
    return HParamMap(
        [
            (r"^(encoder|decoder)/\1/", HEURISTIC_RULE),
            (r"(norm/(scale|bias)|relpos_bias/rel_embedding)$", None),
            (r"token_embedder/embedding$", (column, row)),
            (r"attention/(query|key|value)/kernel$", (row, column)),
            (r"attention/out/kernel$", (column, row)),
            (r"mlp/wi(_\d+)?/kernel$", (row, column)),
            (r"mlp/wo/kernel$", (column, row)),
            (r"logits_dense/kernel$", (row, column)),
            (r"", HEURISTIC_RULE),
        ]
    )


@dataclasses.dataclass(frozen=True)
class AdafactorHyperParams:
    """Options, see `Adafactor`."""

    learning_rate: Any
    factored: bool
    multiply_by_parameter_scale: bool | HParamMap
    beta1: float | None
    decay_rate: float
    step_offset: int
    clipping_threshold: float | None
    weight_decay_rate: float | None
    min_dim_size_to_factor: int
    epsilon1: float
    epsilon2: float
    dtype_momentum: Any
    factor_map: HParamMap | None
    weight_decay_rate_lr_exponent: float | None
    global_norm_clip_threshold: float | None
    max_parameter_scale: float | None
    skip_nan_updates: bool


class AdafactorParamState(flax.struct.PyTreeNode):
    """Slots of one parameter, float32; unused slots are zeros of shape (1,).

    Attributes:
      v_row: second moment averaged over the columns.
      v_col: second moment averaged over the rows.
      v: second moment of a parameter that is not factored.
      m: first moment, with beta1.
    """

    v_row: Array
    v_col: Array
    v: Array
    m: Array


class _Factoring(NamedTuple):
    """Axes of a parameter: rows, columns (None: not factored), and those averaged in an RMS."""

    rows: tuple[int, ...] | None
    columns: tuple[int, ...] | None
    averaged: tuple[int, ...]


class Adafactor(OptimizerDef):
    """The update rule.

    Args:
      learning_rate: multiplies the update; usually given at each step instead.
      factored: factor the second moments.
      multiply_by_parameter_scale: make steps relative to the root mean square of the parameter; a
        bool, or an `HParamMap` of them.
      beta1: decay of the first moment, None for none.
      decay_rate: the second moment decays by 1 - (t + 1 - step_offset)^-decay_rate at step t.
      step_offset: step at which fine-tuning began.
      clipping_threshold: largest root mean square of an update, None for any.
      weight_decay_rate: parameters are multiplied by 1 - rate at each step.
      min_dim_size_to_factor: the heuristic factors only if both axes have this size.
      epsilon1: added to squared gradients.
      epsilon2: least scale of a parameter.
      dtype_momentum: type of the first moment.
      factor_map: `HParamMap` of roles, a `FactorDim` per axis, None or "heuristic", by name.
      logical_factor_rules: role by logical axis name, see `standard_logical_factor_rules`.
      weight_decay_rate_lr_exponent: multiply the decay by learning_rate^exponent.
      global_norm_clip_threshold: clip the norm of all gradients together.
      max_parameter_scale: largest scale of a parameter.
      skip_nan_updates: keep the old value wherever the new one is not a number.

    Raises:
      ValueError: both `factor_map` and `logical_factor_rules`.
    """

    def __init__(
        self,
        learning_rate: float | None = None,
        factored: bool = True,
        multiply_by_parameter_scale: bool | HParamMap = True,
        beta1: float | None = None,
        decay_rate: float = 0.8,
        step_offset: int = 0,
        clipping_threshold: float | None = 1.0,
        weight_decay_rate: float | None = None,
        min_dim_size_to_factor: int = 128,
        epsilon1: float = 1e-30,
        epsilon2: float = 1e-3,
        dtype_momentum: Any = jnp.float32,
        factor_map: HParamMap | None = None,
        logical_factor_rules: Mapping[str, FactorDim] | None = None,
        weight_decay_rate_lr_exponent: float | None = None,
        global_norm_clip_threshold: float | None = None,
        max_parameter_scale: float | None = None,
        skip_nan_updates: bool = False,
    ):
        if factor_map is not None and logical_factor_rules is not None:
            raise ValueError("give Adafactor either factor_map or logical_factor_rules, not both")
        super().__init__(
            AdafactorHyperParams(
                learning_rate,
                factored,
                multiply_by_parameter_scale,
                beta1,
                decay_rate,
                step_offset,
                clipping_threshold,
                weight_decay_rate,
                min_dim_size_to_factor,
                epsilon1,
                epsilon2,
                dtype_momentum,
                factor_map,
                weight_decay_rate_lr_exponent,
                global_norm_clip_threshold,
                max_parameter_scale,
                skip_nan_updates,
            )
        )
        self.logical_factor_rules = dict(logical_factor_rules) if logical_factor_rules else None
        self._axis_roles: dict[str, tuple[FactorDim, ...]] = {}

    def _identity(self) -> tuple:
        return (self.hyper_params, tuple(sorted(self._axis_roles.items(), key=lambda x: x[0])))

    def set_param_axes(self, param_logical_axes: Tree) -> None:
        """Apply `logical_factor_rules` to the axis names of all parameters.

        Args:
          param_logical_axes: tree of `PartitionSpec`s or tuples of names, like the parameters.

        Raises:
          ValueError: an axis name without rule.
        """
        if self.logical_factor_rules is None:
            return
        for name, axes in _flatten(param_logical_axes).items():
            unknown = [a for a in axes if a is not None and a not in self.logical_factor_rules]
            if unknown:
                raise ValueError(
                    f"{name}: logical_factor_rules say nothing about the axes {unknown} of "
                    f"{tuple(axes)}; know {sorted(self.logical_factor_rules)}"
                )
            self._axis_roles[name] = tuple(
                FactorDim.NONE if a is None else self.logical_factor_rules[a] for a in axes
            )

    def _factoring(self, name: str, shape: tuple[int, ...]) -> _Factoring:
        everything = tuple(range(len(shape)))
        rule = self._rule(name, shape)
        if isinstance(rule, str):
            rows, columns = self._largest_axes(shape)
            return _Factoring(rows, columns, everything)
        if rule is None:
            return _Factoring(None, None, everything)
        if len(rule) > len(shape):
            raise ValueError(f"{name}: {len(rule)} roles for the axes of shape {shape}")
        rule = (FactorDim.BATCH,) * (len(shape) - len(rule)) + rule
        rows, columns = (
            tuple(i for i in everything if rule[i] is role)
            for role in (FactorDim.ROW, FactorDim.COLUMN)
        )
        averaged = tuple(i for i in everything if rule[i] is not FactorDim.BATCH)
        if not (rows and columns and self.hyper_params.factored):
            return _Factoring(None, None, averaged)
        return _Factoring(rows, columns, averaged)

    def _rule(self, name: str, shape: tuple[int, ...]) -> FactorRule:
        if self.hyper_params.factor_map is not None:
            return self.hyper_params.factor_map[name]
        roles = self._axis_roles.get(name)
        if roles is not None and (len(shape) > 2 or FactorDim.BATCH in roles):
            return roles
        return HEURISTIC_RULE

    def _largest_axes(
        self, shape: tuple[int, ...]
    ) -> tuple[tuple[int, ...] | None, tuple[int, ...] | None]:
        if not self.hyper_params.factored or len(shape) < 2:
            return None, None
        *_, row, column = np.argsort(shape)
        if shape[row] < self.hyper_params.min_dim_size_to_factor:
            return None, None
        return (int(row),), (int(column),)

    def init_state(self, params: Tree) -> OptimizerState:
        """Zero slots for all parameters."""
        states = {k: self._init_param_state(k, p) for k, p in _flatten(params).items()}
        return OptimizerState(jnp.zeros((), jnp.int32), _unflatten(states))

    def _init_param_state(self, name: str, param: Array) -> AdafactorParamState:
        factoring = self._factoring(name, param.shape)

        def without(axes: tuple[int, ...]) -> Array:
            return jnp.zeros([n for i, n in enumerate(param.shape) if i not in axes], jnp.float32)

        def unused() -> Array:  # one array in two slots could not be donated
            return jnp.zeros((1,), jnp.float32)

        factored = factoring.rows is not None and factoring.columns is not None
        momentum = self.hyper_params.beta1 is not None
        return AdafactorParamState(
            v_row=without(factoring.columns) if factored else unused(),  # type: ignore
            v_col=without(factoring.rows) if factored else unused(),  # type: ignore
            v=unused() if factored else jnp.zeros(param.shape, jnp.float32),
            m=jnp.zeros(param.shape, self.hyper_params.dtype_momentum) if momentum else unused(),
        )

    def apply_gradient(
        self, hyper_params: AdafactorHyperParams, params: Tree, state: OptimizerState, grads: Tree
    ) -> tuple[Tree, OptimizerState]:
        """One update of all parameters.

        Raises:
          ValueError: no learning rate.
        """
        if hyper_params.learning_rate is None:
            raise ValueError("apply_gradient needs learning_rate=, this Adafactor has none")
        flat_grads = _flatten(grads)
        threshold = hyper_params.global_norm_clip_threshold
        if threshold is not None:
            norm = jnp.sqrt(sum(jnp.sum(jnp.square(g)) for g in jax.tree.leaves(grads)))
            scale = threshold * jnp.minimum(1.0 / threshold, 1.0 / norm)
            flat_grads = {k: g * scale for k, g in flat_grads.items()}
        slots = _flatten(state.param_states)
        updated = {
            name: self._update(name, hyper_params, state.step, param, slots[name], flat_grads[name])
            for name, param in _flatten(params).items()
        }
        new_params = jax.tree.unflatten(
            jax.tree.structure(params),
            jax.tree.leaves(_unflatten({k: p for k, (p, _) in updated.items()})),
        )
        new_slots = _unflatten({k: s for k, (_, s) in updated.items()})
        return new_params, OptimizerState(state.step + 1, new_slots)

    def _update(
        self,
        name: str,
        hyper: AdafactorHyperParams,
        step: Array,
        param: Array,
        slots: AdafactorParamState,
        grad: Array,
    ) -> tuple[Array, AdafactorParamState]:
        factoring = self._factoring(name, param.shape)
        decay = 1.0 - (step - hyper.step_offset + 1.0) ** -hyper.decay_rate
        update, new_slots = _precondition(
            grad.astype(jnp.float32), slots, factoring, decay, hyper.epsilon1
        )
        if hyper.clipping_threshold is not None:
            excess = _rms(update, factoring.averaged) / hyper.clipping_threshold
            update = update / jnp.maximum(1.0, excess)
        scale = hyper.learning_rate
        if _for_param(hyper.multiply_by_parameter_scale, name):
            size = jnp.maximum(_rms(param, factoring.averaged), hyper.epsilon2)
            if hyper.max_parameter_scale is not None:
                size = jnp.minimum(size, hyper.max_parameter_scale)
            scale = scale * size
        update = scale * update
        if hyper.beta1 is not None:
            moment = slots.m.astype(jnp.float32)
            update = hyper.beta1 * moment + (1.0 - hyper.beta1) * update
            new_slots = new_slots.replace(m=update.astype(hyper.dtype_momentum))
        new_param = param.astype(jnp.float32)
        if hyper.weight_decay_rate is not None:
            rate = hyper.weight_decay_rate
            if hyper.weight_decay_rate_lr_exponent:
                rate = rate * hyper.learning_rate**hyper.weight_decay_rate_lr_exponent
            new_param = (1.0 - rate) * new_param
        new_param = (new_param - update).astype(param.dtype)
        if hyper.skip_nan_updates:
            new_param, new_slots = jax.tree.map(
                lambda new, old: jnp.where(jnp.isnan(new), old, new),
                (new_param, new_slots),
                (param, slots),
            )
        return new_param, new_slots

    def derive_logical_axes(self, optimizer: Optimizer, param_logical_axes: Tree) -> Optimizer:
        """`v` and `m` follow their parameter if in use; factors and the step are replicated."""

        def derive(name: str, param: Array, axes: PartitionSpec) -> AdafactorParamState:
            factored = self._factoring(name, param.shape).rows is not None
            return AdafactorParamState(
                v_row=None,  # type: ignore
                v_col=None,  # type: ignore
                v=None if factored else axes,  # type: ignore
                m=None if self.hyper_params.beta1 is None else axes,  # type: ignore
            )

        params, axes = _flatten(optimizer.target), _flatten(param_logical_axes)
        states = {name: derive(name, param, axes[name]) for name, param in params.items()}
        state = OptimizerState(step=None, param_states=_unflatten(states))  # type: ignore
        return optimizer.replace(state=state, target=param_logical_axes)


def _precondition(
    grad: Array, slots: AdafactorParamState, factoring: _Factoring, decay: Array, epsilon: float
) -> tuple[Array, AdafactorParamState]:
    """The gradient divided by the root of its second moment, and the slots with that moment."""
    square = jnp.square(grad) + epsilon
    rows, columns, _ = factoring
    if rows is None or columns is None:
        v = decay * slots.v + (1.0 - decay) * square
        return grad * jax.lax.rsqrt(v), slots.replace(v=v)
    row = jnp.mean(square, axis=columns, keepdims=True)
    column = jnp.mean(square, axis=rows, keepdims=True)
    row = decay * slots.v_row.reshape(row.shape) + (1.0 - decay) * row
    column = decay * slots.v_col.reshape(column.shape) + (1.0 - decay) * column
    row_factor = (row / jnp.mean(row, axis=rows, keepdims=True)) ** -0.5
    new = slots.replace(
        v_row=row.reshape(slots.v_row.shape), v_col=column.reshape(slots.v_col.shape)
    )
    return grad * row_factor * column**-0.5, new


def _rms(x: Array, axes: tuple[int, ...]) -> Array:
    return jnp.sqrt(jnp.mean(jnp.square(x.astype(jnp.float32)), axis=axes, keepdims=True))


def _flatten(tree: Tree) -> dict[str, Any]:
    """Leaves, or slots of a parameter, by path."""
    return traverse_util.flatten_dict(unfreeze(tree), sep="/")


def _unflatten(flat: Mapping[str, Any]) -> Tree:
    return traverse_util.unflatten_dict(dict(flat), sep="/")
