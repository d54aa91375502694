"""Optimizers: an update rule, the state it keeps, and the parameters it owns.

`OptimizerDef` is the rule, without arrays. `Optimizer` joins a rule, its state and the parameters
to one pytree, which the train state holds. Any optax transformation is a rule by `OptaxWrapper`.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import flax.struct
import jax
import jax.numpy as jnp
import optax
import optax.contrib
from flax import serialization
from flax.core import unfreeze
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import Array
from jax.sharding import PartitionSpec

from t5x.unsupported import explanation, unsupported_names

if not TYPE_CHECKING:  # type checkers still report names that do not exist
    __getattr__ = unsupported_names(__name__)

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


#: Upstream's name for the type of any update rule.
OptimizerDefType = OptimizerDef


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
        """Add optax's updates to the parameters.

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


def chain(
    transformations: Sequence[optax.GradientTransformation],
    use_trainer_learning_rate: bool = False,
) -> OptaxWrapper:
    """The composition of transformations; for the trainer's learning rate see `OptaxWrapper`."""
    return OptaxWrapper(optax.chain(*transformations), use_trainer_learning_rate)


class MultiOptimizer(OptimizerDef):
    """Several rules, each for its own parameters; what none of them takes stays as it is.

    A frozen encoder with a fast head, or matrices by one rule and norms by another:

        MultiOptimizer([("decoder/.*", Adafactor()), (".*/scale", adamw(1e-4))])

    The first filter that takes a parameter decides. The rules' slots are the `param_states`
    {"0": ..., "1": ...}, in the order of the rules.

    Args:
      traversals_and_optimizers: pairs (filter, rule). A filter is a regular expression that matches
        the whole '/'-joined name, a function f(path, value) -> bool of that name with a leading
        '/', or a `flax.traverse_util.ModelParamTraversal`.

    Raises:
      ValueError: when the state is made: a filter that takes no parameter.
    """

    def __init__(self, traversals_and_optimizers: Sequence[tuple[Any, OptimizerDef]]):
        self._filters = tuple(_name_filter(f) for f, _ in traversals_and_optimizers)
        self._shown = tuple(str(f) for f, _ in traversals_and_optimizers)
        self.rules = tuple(rule for _, rule in traversals_and_optimizers)
        super().__init__(tuple(rule.hyper_params for rule in self.rules))
        if any(hasattr(rule, "set_param_axes") for rule in self.rules):
            self.set_param_axes = self._set_param_axes

    def _identity(self) -> tuple:
        return (self._shown, self.rules)

    def _split(self, tree: Tree, params: Tree) -> list[dict[str, Tree]]:
        """`tree`, of the structure of `params`, in one nested dict per rule."""
        parts: list[dict[tuple, Any]] = [{} for _ in self.rules]
        values = flatten_dict(unfreeze(tree))
        for path, param in flatten_dict(unfreeze(params)).items():
            takers = (i for i, takes in enumerate(self._filters) if takes("/".join(path), param))
            number = next(takers, None)
            if number is not None:
                parts[number][path] = values[path]
        return [unflatten_dict(part) for part in parts]

    def _join(self, parts: Sequence[Tree], params: Tree) -> Tree:
        flat = flatten_dict(unfreeze(params))
        for part in parts:
            flat |= flatten_dict(unfreeze(part))
        return unflatten_dict(flat)

    def init_state(self, params: Tree) -> OptimizerState:
        """Step 0 and the state of every rule."""
        parts = self._split(params, params)
        idle = [name for name, part in zip(self._shown, parts) if not part]
        if idle:
            raise ValueError(f"MultiOptimizer: no parameter is left for {idle}.")
        states = {
            str(i): rule.init_state(part).param_states
            for i, (rule, part) in enumerate(zip(self.rules, parts))
        }
        return OptimizerState(jnp.zeros((), jnp.int32), states)

    def update_hyper_params(self, **overrides: Any) -> tuple[Any, ...]:
        """The options of every rule, with the same ones replaced in each."""
        return tuple(rule.update_hyper_params(**overrides) for rule in self.rules)

    def apply_gradient(
        self, hyper_params: Sequence[Any], params: Tree, state: OptimizerState, grads: Tree
    ) -> tuple[Tree, OptimizerState]:
        """Every rule updates its own."""
        new_parts, new_states = [], {}
        parts = zip(
            self.rules, hyper_params, self._split(params, params), self._split(grads, params)
        )
        for i, (rule, options, part, part_grads) in enumerate(parts):
            old = OptimizerState(state.step, state.param_states[str(i)])
            new_part, new = rule.apply_gradient(options, part, old, part_grads)
            new_parts.append(new_part)
            new_states[str(i)] = new.param_states
        return self._join(new_parts, params), OptimizerState(state.step + 1, new_states)

    def derive_logical_axes(self, optimizer: Optimizer, param_logical_axes: Tree) -> Optimizer:
        """The axes of every rule's slots, as that rule derives them."""
        params, states = optimizer.target, {}
        parts = zip(self.rules, self._split(params, params))
        axes = self._split(param_logical_axes, params)
        for i, (rule, part) in enumerate(parts):
            own = OptimizerState(optimizer.state.step, optimizer.state.param_states[str(i)])
            derived = rule.derive_logical_axes(Optimizer(rule, own, part), axes[i])
            states[str(i)] = derived.state.param_states
        state = OptimizerState(step=None, param_states=states)  # type: ignore
        return optimizer.replace(state=state, target=param_logical_axes)

    def _set_param_axes(self, param_axes: Tree) -> None:
        for rule, part in zip(self.rules, self._split(param_axes, param_axes)):
            if hasattr(rule, "set_param_axes"):
                rule.set_param_axes(part)  # type: ignore


def _name_filter(given: Any) -> Callable[[str, Any], bool]:
    if isinstance(given, str):
        pattern = re.compile(given)
        return lambda name, _: pattern.fullmatch(name) is not None
    function = getattr(given, "_filter_fn", given)  # of a ModelParamTraversal
    if not callable(function):
        raise TypeError(
            f"MultiOptimizer: {given!r} is no filter; give a regular expression, a function "
            "f(path, value), or a ModelParamTraversal"
        )
    return lambda name, value: bool(function("/" + name, value))


class ExponentialMovingAverage(OptimizerDef):
    """A rule that also keeps an average of the parameters, for evaluation and inference.

    After update t (from 1) the average moves by 1 - min(decay, (1 + t) / (10 + t)) towards the
    parameters, so early averages forget the initialization. The average is sharded and saved with
    the optimizer's slots (`param_states` is {"ema", "optimizer"}); evaluations inside training
    use it. Elsewhere, restore it as the parameters:

        RestoreCheckpointConfig.assignment_map = [("target/(.*)", r"state/param_states/ema/\\1")]

    Args:
      optimizer_def: the rule that updates the parameters.
      decay: of the average per step, in [0, 1).
    """

    def __init__(self, optimizer_def: OptimizerDef, decay: float = 0.999):
        if not 0 <= decay < 1:
            raise ValueError(f"ExponentialMovingAverage.decay is {decay}, expected 0 <= decay < 1.")
        self.rule, self.decay = optimizer_def, decay
        super().__init__(optimizer_def.hyper_params)
        if hasattr(optimizer_def, "set_param_axes"):
            self.set_param_axes = optimizer_def.set_param_axes  # type: ignore

    def _identity(self) -> tuple:
        return (self.rule, self.decay)

    def init_state(self, params: Tree) -> OptimizerState:
        """Step 0, the rule's slots and a float32 copy of the parameters."""
        slots = self.rule.init_state(params).param_states
        average = jax.tree.map(lambda p: jnp.array(p, jnp.float32), unfreeze(params))
        return OptimizerState(jnp.zeros((), jnp.int32), {"ema": average, "optimizer": slots})

    def update_hyper_params(self, **overrides: Any) -> Any:
        return self.rule.update_hyper_params(**overrides)

    def apply_gradient(
        self, hyper_params: Any, params: Tree, state: OptimizerState, grads: Tree
    ) -> tuple[Tree, OptimizerState]:
        """The rule's update, then the average's."""
        inner = OptimizerState(state.step, state.param_states["optimizer"])
        params, inner = self.rule.apply_gradient(hyper_params, params, inner, grads)
        t = inner.step.astype(jnp.float32)
        decay = jnp.minimum(self.decay, (1 + t) / (10 + t))
        average = jax.tree.map(
            lambda e, p: e + (1 - decay) * (p.astype(jnp.float32) - e),
            state.param_states["ema"],
            unfreeze(params),
        )
        return params, OptimizerState(inner.step, {"ema": average, "optimizer": inner.param_states})

    def averaged_params(self, state: OptimizerState) -> Tree:
        """The average, of the structure of the parameters."""
        return state.param_states["ema"]

    def derive_logical_axes(self, optimizer: Optimizer, param_logical_axes: Tree) -> Optimizer:
        """The average lies as the parameters do."""
        slots = OptimizerState(optimizer.state.step, optimizer.state.param_states["optimizer"])
        inner = self.rule.derive_logical_axes(
            Optimizer(self.rule, slots, optimizer.target), param_logical_axes
        )
        states = {"ema": param_logical_axes, "optimizer": inner.state.param_states}
        state = OptimizerState(step=None, param_states=states)  # type: ignore
        return optimizer.replace(state=state, target=param_logical_axes)


adabelief = wrap_optax_optimizer(optax.adabelief)
adafactor = wrap_optax_optimizer(optax.adafactor)
adagrad = wrap_optax_optimizer(optax.adagrad)
adam = wrap_optax_optimizer(optax.adam)
adamw = wrap_optax_optimizer(optax.adamw)
dpsgd = wrap_optax_optimizer(optax.contrib.dpsgd)
fromage = wrap_optax_optimizer(optax.fromage)
lamb = wrap_optax_optimizer(optax.lamb)
lars = wrap_optax_optimizer(optax.lars)
lion = wrap_optax_optimizer(optax.lion)
muon = wrap_optax_optimizer(optax.contrib.muon)
noisy_sgd = wrap_optax_optimizer(optax.noisy_sgd)
novograd = wrap_optax_optimizer(optax.novograd)
radam = wrap_optax_optimizer(optax.radam)
rmsprop = wrap_optax_optimizer(optax.rmsprop)
sgd = wrap_optax_optimizer(optax.sgd)
sm3 = wrap_optax_optimizer(optax.sm3)
yogi = wrap_optax_optimizer(optax.yogi)


def amos(*args: Any, **kwargs: Any) -> OptaxWrapper:
    """Upstream's Amos lives in a package that no longer installs.

    Raises:
      NotImplementedError: always; says what to use.
    """
    del args, kwargs
    raise NotImplementedError(explanation("t5x.optimizers.amos"))
