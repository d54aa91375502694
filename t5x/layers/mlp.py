"""The feed-forward block of T5: plain, or gated by a product of activations."""

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from t5x.layers.dense import (
    DenseGeneral,
    Initializer,
    activation_fn,
    default_kernel_init,
    shard,
)
from t5x.layers.dropout import broadcast_dropout


class MlpBlock(nn.Module):
    """wo(dropout(prod_i activation_i(wi_i x))): ('gelu', 'linear') is T5 1.1's gated GELU.

    With one activation the input kernel is called `wi`, with several `wi_0`, `wi_1`, ...
    (Shazeer 2020, "GLU variants improve transformer").
    """

    intermediate_dim: int = 2048
    activations: Sequence[str | Callable[[Array], Array]] = ("relu",)
    kernel_init: Initializer = default_kernel_init
    intermediate_dropout_rate: float = 0.1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, inputs: Array, deterministic: bool = False) -> Array:
        """Map [B, L, E] to [B, L, E]; dropout after the product, shared along L."""
        single = len(self.activations) == 1
        branches = []
        for i, activation in enumerate(self.activations):
            x = DenseGeneral(
                self.intermediate_dim,
                dtype=self.dtype,
                kernel_init=self.kernel_init,
                kernel_axes=("embed", "mlp"),
                name="wi" if single else f"wi_{i}",
            )(inputs)
            branches.append(activation_fn(activation)(x))
        x = functools.reduce(operator.mul, branches)
        x = broadcast_dropout(self.intermediate_dropout_rate)(x, deterministic=deterministic)
        x = shard(x, "batch", "length", "mlp")
        return DenseGeneral(
            inputs.shape[-1],
            dtype=self.dtype,
            kernel_init=self.kernel_init,
            kernel_axes=("mlp", "embed"),
            name="wo",
        )(x)
