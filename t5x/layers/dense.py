"""Dense projections with logical axes, and the sharding helper every layer uses.

Letters in shapes: B batch, L length, E embed, H heads, D head dim, M mlp.
"""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.linen import partitioning as nn_partitioning
from jax import Array

from t5x import partitioning
from t5x.layers.products import project
from t5x.moved import moved_names

if not TYPE_CHECKING:  # type checkers still report names that do not exist
    __getattr__ = moved_names(__name__, {"broadcast_dropout": "t5x.layers.dropout"})

type Initializer = Callable[..., Any]

#: Axes may be None, which flax's annotation does not say.
param_with_axes: Callable[..., Array] = nn_partitioning.param_with_axes

#: T5 1.1's initialiser of MLP and logits kernels: truncated normal, variance 1 / fan-in.
default_kernel_init = nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal")
#: T5 1.1's initialiser of attention kernels: normal, variance 1 / fan-in.
attention_kernel_init = nn.initializers.variance_scaling(1.0, "fan_in", "normal")


def shard(x: Array, *logical_axes: str | None) -> Array:
    """Constrain `x` to the layout of its logical axes; do nothing outside a mesh."""
    return partitioning.with_sharding_constraint(x, logical_axes)


def _as_tuple(x: Iterable[int] | int) -> tuple[int, ...]:
    return tuple(x) if isinstance(x, Iterable) else (x,)


class DenseGeneral(nn.Module):
    """Linear map without bias over the axes `axis`, from a kernel stored as a matrix.

    Attributes:
      features: size, or sizes, of the new trailing axes.
      axis: axes of the input to contract, negative or not.
      dtype: type of the computation; the kernel itself is float32.
      kernel_init: initialiser, called with the matrix shape (inputs, outputs).
      kernel_axes: logical names of the two axes of the matrix.
    """

    features: Iterable[int] | int
    axis: Iterable[int] | int = -1
    dtype: Any = jnp.float32
    kernel_init: Initializer = default_kernel_init
    kernel_axes: tuple[str | None, ...] = ()

    @nn.compact
    def __call__(self, inputs: Array) -> Array:
        """Map [..., contracted axes] to [..., *features], in `dtype`."""
        features = _as_tuple(self.features)
        axis = tuple(a % inputs.ndim for a in _as_tuple(self.axis))
        contracted = tuple(inputs.shape[a] for a in axis)
        matrix = (int(np.prod(contracted)), int(np.prod(features)))
        axes: Any = self.kernel_axes or (None, None)  # annotated in Flax as without None
        kernel = param_with_axes("kernel", self.kernel_init, matrix, jnp.float32, axes=axes)
        kernel = jnp.asarray(kernel, self.dtype).reshape(contracted + features)
        inputs = jnp.moveaxis(jnp.asarray(inputs, self.dtype), axis, range(-len(axis), 0))
        return project(inputs, kernel, len(axis))


class Linear(nn.Module):
    """x kernel + bias, in `dtype`; the parameters are float32.

    Attributes:
      features: size of the last axis of the result.
      axes: logical names of the axes of the kernel.
      dtype: type of the computation.
      kernel_init: initialiser of the kernel.
    """

    features: int
    axes: tuple[str | None, str | None] = (None, None)
    dtype: Any = jnp.float32
    kernel_init: Initializer = default_kernel_init

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[..., F] -> [..., features]."""
        shape = (x.shape[-1], self.features)
        axes: Any = self.axes  # annotated in Flax as without None
        kernel = param_with_axes("kernel", self.kernel_init, shape, jnp.float32, axes=axes)
        zeros = nn.initializers.zeros
        bias = param_with_axes("bias", zeros, shape[1:], jnp.float32, axes=axes[1:])
        x = project(jnp.asarray(x, self.dtype), jnp.asarray(kernel, self.dtype))
        return x + jnp.asarray(bias, self.dtype)


def activation_fn(name: str | Callable[[Array], Array]) -> Callable[[Array], Array]:
    """The activation called `name`: 'linear', or any function of `flax.linen` by its name."""
    if callable(name):
        return name
    if name == "linear":
        return lambda x: x
    fn = getattr(nn, name, None)
    if fn is None:
        raise ValueError(f"unknown activation {name!r}: give 'linear' or a name in flax.linen")
    return fn
