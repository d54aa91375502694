"""Optimizers: an update rule, the state it keeps, and the parameters it owns.

`OptimizerDef` is the rule, without arrays. `Optimizer` joins a rule, its state and the parameters
to one pytree, which the train state holds. Any optax transformation is a rule by `OptaxWrapper`.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, Self

import flax.struct
import jax
import jax.numpy as jnp
import optax
from flax import serialization
from flax.core import unfreeze
from jax import Array
from jax.sharding import PartitionSpec

Tree = Any


class OptimizerState(flax.struct.PyTreeNode):
    """What an optimizer keeps between steps.

    Attributes:
      step: int32 scalar, updates done.
      param_states: the rule's slots, a pytree.
    """

    step: Array
    param_states: Tree


class OptimizerDef:
    """An update rule. Subclasses define `init_state` and `apply_gradient`.

    Rules are static arguments of compiled functions: equal rules must compare equal.

    Args:
      hyper_params: a frozen dataclass of the rule's options.
    """

    def __init__(self, hyper_params: Any):
        self.hyper_params = hyper_params

    def init_state(self, params: Tree) -> OptimizerState:
        """The state before the first update of `params`."""
        raise NotImplementedError

    def apply_gradient(
        self, hyper_params: Any, params: Tree, state: OptimizerState, grads: Tree
    ) -> tuple[Tree, OptimizerState]:
        """(new parameters, new state); `grads` has the structure of `params`."""
        raise NotImplementedError

    def derive_logical_axes(self, optimizer: "Optimizer", param_logical_axes: Tree) -> "Optimizer":
        """`optimizer` with a `PartitionSpec` of logical names, or None, in place of each array."""
        raise NotImplementedError

    def update_hyper_params(self, **overrides: Any) -> Any:
        """The options with some replaced; raises TypeError for unknown names."""
        return (
            dataclasses.replace(self.hyper_params, **overrides) if overrides else self.hyper_params
        )

    def create(self, target: Tree) -> "Optimizer":
        """An optimizer of the parameters `target`, at step 0."""
        return Optimizer(optimizer_def=self, state=self.init_state(target), target=target)

    def _identity(self) -> tuple:
        return (self.hyper_params,)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self._identity() == other._identity()  # type: ignore

    def __hash__(self) -> int:
        return hash((type(self), self._identity()))


class Optimizer(flax.struct.PyTreeNode):
    """A rule, its state and the parameters.

    Attributes:
      optimizer_def: the rule.
      state: an `OptimizerState`.
      target: the parameters.
    """

    optimizer_def: OptimizerDef = flax.struct.field(pytree_node=False)
    state: OptimizerState
    target: Tree

    def apply_gradient(self, grads: Tree, **hyper_param_overrides: Any) -> Self:
        """One update; overrides are options of the rule, such as `learning_rate`."""
        hyper_params = self.optimizer_def.update_hyper_params(**hyper_param_overrides)
        target, state = self.optimizer_def.apply_gradient(
            hyper_params, self.target, self.state, grads
        )
        return self.replace(target=target, state=state)

    def state_dict(self) -> dict[str, Tree]:
        """Nested dicts {'target': parameters, 'state': {'step', 'param_states'}}."""
        return {
            "target": serialization.to_state_dict(unfreeze(self.target)),
            "state": serialization.to_state_dict(self.state),
        }

    def restore_state(self, state_dict: Mapping[str, Tree]) -> Self:
        """This optimizer with the values of `state_dict()`."""
        return self.replace(
            target=serialization.from_state_dict(self.target, state_dict["target"], name="target"),
            state=serialization.from_state_dict(self.state, state_dict["state"], name="state"),
        )


@dataclasses.dataclass(frozen=True)
class OptaxHyperParams:
    """Options of `OptaxWrapper` that change between steps.

    Attributes:
      learning_rate: multiplies the updates if the wrapper uses the trainer's learning rate.
    """

    learning_rate: Any = None


class OptaxWrapper(OptimizerDef):
    """Any optax transformation as a rule.

    Args:
      optax_optimizer: the transformation; its updates are added to the parameters.
      use_trainer_learning_rate: multiply the updates by the learning rate that the trainer passes
        at each step (the transformation is then made for a learning rate of 1). Otherwise the
        learning rate is the transformation's own, and the trainer's is not used.
    """

    def __init__(
        self,
        optax_optimizer: optax.GradientTransformation,
        use_trainer_learning_rate: bool = False,
    ):
        super().__init__(OptaxHyperParams())
        self.optax_optimizer = optax_optimizer
        self.use_trainer_learning_rate = use_trainer_learning_rate

    def _identity(self) -> tuple:
        return (self.optax_optimizer, self.use_trainer_learning_rate)

    def init_state(self, params: Tree) -> OptimizerState:
        """Step 0 and optax's own state."""
        return OptimizerState(jnp.zeros((), jnp.int32), self.optax_optimizer.init(params))

    def apply_gradient(
        self, hyper_params: OptaxHyperParams, params: Tree, state: OptimizerState, grads: Tree
    ) -> tuple[Tree, OptimizerState]:
        """Adds optax's updates to the parameters.

        Raises:
          ValueError: the trainer's learning rate is wanted and missing.
        """
        updates, new = self.optax_optimizer.update(grads, state.param_states, params)
        if self.use_trainer_learning_rate:
            rate = hyper_params.learning_rate
            if rate is None:
                raise ValueError("apply_gradient needs learning_rate=, the optimizer has none")
            updates = jax.tree.map(lambda u: u * jnp.asarray(rate, u.dtype), updates)
        return optax.apply_updates(params, updates), OptimizerState(state.step + 1, new)

    def derive_logical_axes(self, optimizer: Optimizer, param_logical_axes: Tree) -> Optimizer:
        """Slots of a parameter's shape follow the parameter, everything else is replicated."""

        def follow(slot, axes):
            return axes if getattr(slot, "ndim", None) == len(axes) else None

        states = optax.tree_utils.tree_map_params(
            self.optax_optimizer,
            follow,
            optimizer.state.param_states,
            param_logical_axes,
            transform_non_params=lambda _: None,
            is_leaf=lambda x: isinstance(x, PartitionSpec) or x is None,
        )
        state = OptimizerState(step=None, param_states=states)  # type: ignore
        return optimizer.replace(state=state, target=param_logical_axes)


def wrap_optax_optimizer(optax_fn: Callable[..., Any]) -> Callable[..., OptaxWrapper]:
    """A function like `optax_fn` which returns a rule.

    Without a `learning_rate` the trainer's is used.
    """

    @functools.wraps(optax_fn)
    def make(learning_rate: Any = None, **kwargs: Any) -> OptaxWrapper:
        if learning_rate is None:
            return OptaxWrapper(optax_fn(1.0, **kwargs), use_trainer_learning_rate=True)
        return OptaxWrapper(optax_fn(learning_rate, **kwargs))

    return make


def chain(*transformations: optax.GradientTransformation) -> OptaxWrapper:
    """The composition of transformations; for the trainer's learning rate see `OptaxWrapper`."""
    return OptaxWrapper(optax.chain(*transformations))


adafactor = wrap_optax_optimizer(optax.adafactor)
adam = wrap_optax_optimizer(optax.adam)
adamw = wrap_optax_optimizer(optax.adamw)
lamb = wrap_optax_optimizer(optax.lamb)
lion = wrap_optax_optimizer(optax.lion)
radam = wrap_optax_optimizer(optax.radam)
rmsprop = wrap_optax_optimizer(optax.rmsprop)
sgd = wrap_optax_optimizer(optax.sgd)
