"""How likely sequences of any length are, window after window, by each kind of model.

Letters in shapes: W windows, L length of rows in training.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from cdcd.baselines import AutoregressiveModel, MaskedDiffusionModel
from cdcd.likelihood import (
    FillIn,
    FillInByDenoising,
    FillInByUnmasking,
    any_order_nats,
    decoding_nats,
    in_batches,
    left_to_right,
    variational_bound,
)

#: Estimates of -log p: exact ones of the autoregressive model; of others the mean over all orders
#: of filling in, the order of reading, and the variational bound. See `cdcd.likelihood`.
EXACT, ANY_ORDER, LEFT_TO_RIGHT, BOUND = "exact", "any_order", "left_to_right", "bound"
_BATCH = 16


def estimates_of(model: Any) -> tuple[str, ...]:
    """Return the estimates that a model has, the default one first."""
    if isinstance(model, AutoregressiveModel):
        return (EXACT,)
    return (ANY_ORDER, LEFT_TO_RIGHT, BOUND)


def side_by_side(tokens: np.ndarray, length: int) -> np.ndarray:
    """Return windows int32 [W, length] of tokens [n], the last one padded with 0."""
    missing = -len(tokens) % length
    return np.pad(tokens, (0, missing)).reshape(-1, length).astype(np.int32)


def window_nats(
    model: Any, params: Any, windows: np.ndarray, estimate: str, rng: Array, passes: int = 32
) -> np.ndarray:
    """Return -log p of each window, float64 [W].

    Args:
      model, params: of `cdcd.model_config.MODELS`.
      windows: int32 [W, L]; zeros, at the end only, are padding and do not count. For estimates
        by orders such positions are there and unknown, as what follows a text is; a bound has none.
      estimate: one of `estimates_of(model)`.
      rng: random key.
      passes: forward passes of `any_order`, noise levels or masks of `bound`.
    """
    score: Callable[[Array, Array], Array]
    if estimate == EXACT:
        score = functools.partial(_exact, model, params)
    elif estimate == BOUND and isinstance(model, MaskedDiffusionModel):
        score = functools.partial(_masked_bound, model, passes, params)
    elif estimate == BOUND:
        score = functools.partial(
            variational_bound,
            model.denoising,
            params,
            distribution=model.distribution(params),
            levels=passes,
        )
    else:
        ordered = _any_order if estimate == ANY_ORDER else _left_to_right
        score = functools.partial(ordered, _fill_in(model), passes, params)
    size = min(_BATCH, len(windows))
    return np.asarray(in_batches(score, jnp.asarray(windows), rng, size), np.float64)


def _fill_in(model: Any) -> FillIn:
    if isinstance(model, MaskedDiffusionModel):
        return FillInByUnmasking(model)
    return FillInByDenoising(model.denoising)


def _any_order(fill_in: FillIn, passes: int, params: Any, rows: Array, rng: Array) -> Array:
    return any_order_nats(fill_in, params, rows, rng, passes=passes, scored=rows > 0)


def _left_to_right(fill_in: FillIn, _: int, params: Any, rows: Array, rng: Array) -> Array:
    nats = decoding_nats(fill_in, params, rows, left_to_right(rows), rng)
    return jnp.sum(nats * (rows > 0), axis=1)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _masked_bound(model: Any, levels: int, params: Any, rows: Array, rng: Array) -> Array:
    batch = {"decoder_target_tokens": rows}
    return model.variational_bound(params, batch, rng, levels=levels)


@functools.partial(jax.jit, static_argnums=(0,))
def _exact(model: Any, params: Any, rows: Array, rng: Array) -> Array:
    del rng
    inputs = jnp.pad(rows[:, :-1], ((0, 0), (1, 0)))
    batch = {"decoder_input_tokens": inputs, "decoder_target_tokens": rows}
    nats, valid = model.target_nats(params, batch)
    return jnp.sum(nats * valid, axis=1)
