"""What training carries from step to step, and what inference needs of it.

    state_dict() = {"target": params, "state": {"step", "param_states"}[, "flax_mutables"]}

is the layout of every checkpoint, as in T5X.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, Self, runtime_checkable

import flax.serialization
import flax.struct
import flax.traverse_util
import jax
import jax.numpy as jnp
from flax.core import unfreeze
from flax.linen import partitioning as flax_partitioning
from jax.sharding import PartitionSpec

from t5x.unsupported import unsupported_names

if not TYPE_CHECKING:  # type checkers still report names that do not exist
    __getattr__ = unsupported_names(__name__)

Tree = Any


def _split_axes(variables: Mapping[str, Tree]) -> tuple[dict[str, Tree], dict[str, Tree]]:
    """Split collections from their axis annotations (`<collection>_axes`)."""
    variables = dict(unfreeze(dict(variables)))
    axes = {k.removesuffix("_axes"): variables.pop(k) for k in list(variables) if k[-5:] == "_axes"}
    return variables, axes


def check_params_axes(params: Tree, params_axes: Tree) -> None:
    """Check that every parameter has axis names, as many as it has axes.

    Raises:
      ValueError: names the parameters without annotation, or of another rank.
    """
    names: dict[str, Any] = flax.traverse_util.flatten_dict(
        unfreeze(flax_partitioning.get_axis_names(params_axes)), sep="/"
    )
    arrays: dict[str, Any] = flax.traverse_util.flatten_dict(unfreeze(params), sep="/")
    problems = [f"{k}: no axis names" for k in sorted(arrays.keys() - names.keys())]
    problems += [f"{k}: axis names of no parameter" for k in sorted(names.keys() - arrays.keys())]
    problems += [
        f"{k}: axes {tuple(names[k])} for shape {arrays[k].shape}"
        for k in sorted(arrays.keys() & names.keys())
        if len(names[k]) != arrays[k].ndim
    ]
    if problems:
        raise ValueError("The params_axes do not fit the params:\n  " + "\n  ".join(problems))


@runtime_checkable
class TrainState(Protocol):
    """What trainers, evaluators and checkpoints ask of a state.

    `FlaxOptimTrainState` and `InferenceState` offer it; so may a state of your own.
    """

    @property
    def step(self) -> Any:
        """int32 scalar: updates done."""
        ...

    @property
    def params(self) -> Tree:
        """The model's parameters."""
        ...

    @property
    def eval_params(self) -> Tree:
        """The parameters that are evaluated."""
        ...

    @property
    def param_states(self) -> Tree:
        """The optimizer's slots."""
        ...

    @property
    def flax_mutables(self) -> Tree:
        """Other collections of the model."""
        ...

    def state_dict(self) -> dict[str, Tree]:
        """Return nested dicts of arrays, in the layout of the checkpoints."""
        ...

    def restore_state(self, state_dict: Mapping[str, Tree]) -> Self:
        """Return this state with the values of a `state_dict()`."""
        ...

    def replace_params(self, params: Tree) -> Self:
        """Return this state with other parameters."""
        ...

    def replace_flax_mutables(self, flax_mutables: Tree) -> Self:
        """Return this state with other mutable collections."""
        ...

    def replace_step(self, step: Any) -> Self:
        """Return this state with another step number."""
        ...

    def apply_gradient(self, grads: Tree, learning_rate: Any, flax_mutables: Any = None) -> Self:
        """Return the state after one update."""
        ...

    def as_logical_axes(self) -> Self:
        """Return this state with the logical axis names in place of each array."""
        ...


class FlaxOptimTrainState(flax.struct.PyTreeNode):
    """Parameters, optimizer state, step and mutable collections, as one pytree.

    Attributes:
      params_axes: the collection of `AxisMetadata` from flax's `param_with_axes`, or None.
      flax_mutables: other collections of the model, such as batch statistics.
      flax_mutables_axes: their axis annotations, for those that have them.
    """

    _optimizer: Any
    params_axes: Tree = None
    flax_mutables: Tree = flax.struct.field(default_factory=dict)
    flax_mutables_axes: Tree = flax.struct.field(default_factory=dict)

    @classmethod
    def create(cls, optimizer_def: Any, model_variables: Mapping[str, Tree]) -> Self:
        """Step 0, from a model's initial variables: 'params', 'params_axes' and any others.

        Raises:
          ValueError: the axis annotations do not fit the parameters, or are missing where the
            optimizer needs them.
        """
        variables, axes = _split_axes(model_variables)
        params = variables.pop("params")
        params_axes = axes.pop("params", None)
        if params_axes is not None:
            check_params_axes(params, params_axes)
        if hasattr(optimizer_def, "set_param_axes"):
            if params_axes is not None:
                optimizer_def.set_param_axes(flax_partitioning.get_axis_names(params_axes))
            elif getattr(optimizer_def, "logical_factor_rules", True) is not None:
                raise ValueError(
                    f"{type(optimizer_def).__name__} reads the parameters' logical axes, but the "
                    "model has no 'params_axes'; create its parameters with param_with_axes."
                )
        return cls(
            _optimizer=optimizer_def.create(params),
            params_axes=params_axes,
            flax_mutables=variables,
            flax_mutables_axes=axes,
        )

    @property
    def step(self) -> jax.Array:
        """int32 scalar: updates done."""
        return self._optimizer.state.step

    @property
    def params(self) -> Tree:
        """The model's parameters."""
        return self._optimizer.target

    @property
    def eval_params(self) -> Tree:
        """What is evaluated: the optimizer's average of the parameters if it keeps one."""
        rule = self._optimizer.optimizer_def
        if hasattr(rule, "averaged_params"):
            return rule.averaged_params(self._optimizer.state)
        return self.params

    @property
    def param_states(self) -> Tree:
        """The optimizer's slots."""
        return self._optimizer.state.param_states

    @property
    def optimizer_def(self) -> Any:
        """The update rule."""
        return self._optimizer.optimizer_def

    def state_dict(self) -> dict[str, Tree]:
        """Nested dicts of arrays, in the layout of the checkpoints."""
        state = unfreeze(self._optimizer.state_dict())
        if self.flax_mutables:
            state["flax_mutables"] = flax.serialization.to_state_dict(unfreeze(self.flax_mutables))
        return state

    def restore_state(self, state_dict: Mapping[str, Tree]) -> Self:
        """This state with the values of `state_dict()`; the trees must have the same names."""
        restored = self.replace(_optimizer=self._optimizer.restore_state(state_dict))
        if not self.flax_mutables:
            return restored
        mutables = flax.serialization.from_state_dict(
            self.flax_mutables, state_dict["flax_mutables"], name="flax_mutables"
        )
        return restored.replace(flax_mutables=mutables)

    def apply_gradient(self, grads: Tree, learning_rate: Any, flax_mutables: Any = None) -> Self:
        """One update: `grads` like params, `learning_rate` a float32 scalar."""
        return self.replace(
            _optimizer=self._optimizer.apply_gradient(grads, learning_rate=learning_rate),
            flax_mutables=self.flax_mutables if flax_mutables is None else flax_mutables,
        )

    def replace_params(self, params: Tree) -> Self:
        return self.replace(_optimizer=self._optimizer.replace(target=params))

    def replace_flax_mutables(self, flax_mutables: Tree) -> Self:
        return self.replace(flax_mutables=flax_mutables)

    def replace_step(self, step: Any) -> Self:
        state = self._optimizer.state.replace(step=jnp.asarray(step, jnp.int32))
        return self.replace(_optimizer=self._optimizer.replace(state=state))

    def as_logical_axes(self) -> Self:
        """This state with a `PartitionSpec` of logical names (or None) in place of each array.

        What has no axis annotations has no names, so every device holds it whole.
        """
        names = _logical_axes(self.params, self.params_axes)
        axes = self._optimizer.optimizer_def.derive_logical_axes(self._optimizer, names)
        mutables = {
            collection: _logical_axes(tree, self.flax_mutables_axes.get(collection))
            for collection, tree in self.flax_mutables.items()
        }
        return self.replace(_optimizer=axes, flax_mutables=mutables)


def _logical_axes(tree: Tree, axes: Tree) -> Tree:
    if axes is None:
        return jax.tree.map(lambda _: PartitionSpec(), tree)
    return unfreeze(flax_partitioning.get_axis_names(axes))


class InferenceState(flax.struct.PyTreeNode):
    """Parameters and mutable collections, without an optimizer."""

    step: Any
    params: Tree
    params_axes: Tree = None
    flax_mutables: Tree = flax.struct.field(default_factory=dict)
    flax_mutables_axes: Tree = flax.struct.field(default_factory=dict)

    @classmethod
    def create(cls, model_variables: Mapping[str, Tree]) -> Self:
        """Step 0, from a model's initial variables."""
        variables, axes = _split_axes(model_variables)
        params, params_axes = variables.pop("params"), axes.pop("params", None)
        if params_axes is not None:
            check_params_axes(params, params_axes)
        return cls(jnp.zeros((), jnp.int32), params, params_axes, variables, axes)

    def state_dict(self) -> dict[str, Tree]:
        """As `FlaxOptimTrainState.state_dict`, without the optimizer's slots."""
        state = {"target": unfreeze(self.params), "state": {"step": self.step}}
        if self.flax_mutables:
            state["flax_mutables"] = flax.serialization.to_state_dict(unfreeze(self.flax_mutables))
        return state

    def restore_state(self, state_dict: Mapping[str, Tree]) -> Self:
        """This state with the values of `state_dict()`; optimizer slots in it are ignored."""
        mutables = self.flax_mutables
        if mutables:
            mutables = flax.serialization.from_state_dict(mutables, state_dict["flax_mutables"])
        return self.replace(
            step=state_dict["state"]["step"],
            params=flax.serialization.from_state_dict(self.params, state_dict["target"]),
            flax_mutables=mutables,
        )

    @property
    def eval_params(self) -> Tree:
        """The parameters."""
        return self.params

    @property
    def param_states(self) -> Tree:
        """No slots."""
        return {}

    def apply_gradient(self, grads: Tree, learning_rate: Any, flax_mutables: Any = None) -> Self:
        """Raise TypeError: there is no optimizer."""
        raise TypeError("An InferenceState has no optimizer; train a FlaxOptimTrainState.")

    def replace_params(self, params: Tree) -> Self:
        return self.replace(params=params)

    def replace_flax_mutables(self, flax_mutables: Tree) -> Self:
        return self.replace(flax_mutables=flax_mutables)

    def replace_step(self, step: Any) -> Self:
        return self.replace(step=jnp.asarray(step, jnp.int32))

    def as_logical_axes(self) -> Self:
        """As `FlaxOptimTrainState.as_logical_axes`."""
        mutables = {
            collection: _logical_axes(tree, self.flax_mutables_axes.get(collection))
            for collection, tree in self.flax_mutables.items()
        }
        return self.replace(
            step=PartitionSpec(),
            params=_logical_axes(self.params, self.params_axes),
            flax_mutables=mutables,
        )
