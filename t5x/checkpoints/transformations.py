"""Functions that change a state dict on its way to or from a checkpoint."""

import inspect
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import jax
import numpy as np

Tree = Any


class SaveStateTransformationFn(Protocol):
    """A change of what is written: state dict -> state dict, both nested dicts of arrays.

    Functions with a second required argument are called as upstream's: they get `parameter_infos`,
    the state dict's shapes and dtypes, and return (state dict, parameter_infos).
    """

    def __call__(self, state_dict: Tree, /) -> Tree:
        """Return the state dict to write."""
        ...


class RestoreStateTransformationFn(Protocol):
    """A change of what was read before it is fitted to the model.

    Functions of one argument get the state dict that was read. A second required argument is the
    model's state dict. Keyword arguments named `is_resuming` and `train_state` are filled in.
    """

    def __call__(
        self, state_dict: Tree, target_state_dict: Tree, *, is_resuming: bool = False
    ) -> Tree:
        """Return the state dict to fit to the model."""
        ...


def transform_saved(state: Tree, functions: Iterable[Callable[..., Any]]) -> Tree:
    """Apply `SaveStateTransformationFn`s, in order, to a state dict of arrays."""
    for function in functions:
        if len(_required(function, ())) > 1:
            infos = jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x), x.dtype), state)
            state, _ = function(state, infos)
        else:
            state = function(state)
    return state


def transform_restored(
    state: Tree, functions: Iterable[Callable[..., Tree]], target: Tree, **offered: Any
) -> Tree:
    """Apply `RestoreStateTransformationFn`s, in order, to a state dict that was read.

    Args:
      state: the state dict.
      functions: called with what each of them takes.
      target: the second argument of functions with two required ones.
      **offered: further arguments, for functions with parameters of these names.
    """
    for function in functions:
        names = inspect.signature(function).parameters
        options = {name: value for name, value in offered.items() if name in names}
        rest = (target,) if len(_required(function, offered)) > 1 else ()
        state = function(state, *rest, **options)
    return state


def _required(function: Callable[..., Any], given: Iterable[str]) -> list[str]:
    """Names of the arguments that `function` needs, without those `given` by name."""
    return [
        p.name
        for p in inspect.signature(function).parameters.values()
        if p.default is p.empty
        and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        and p.name not in given
    ]
