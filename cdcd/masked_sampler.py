"""Tokens from masks: the sampler of masked diffusion (Sahoo et al. 2024, section 3.2).

Letters in shapes: B batch, L length, V vocabulary.
"""

import functools
from collections.abc import Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax import Array, lax

from cdcd.denoising import Params
from cdcd.sampler import SPECIAL_IDS, Rows, check_finite, check_rows
from t5x.decoding.logit_masks import NEG_INF


class MaskPredictor(Protocol):
    """The interface of models to sample, such as `cdcd.baselines.MaskedDiffusionModel`."""

    module: Any

    def logits(self, params: Params, tokens: Array, masked: Array, valid: Array | None) -> Array:
        """Return logits float32 [B, L, V] of all tokens, with those `masked` bool [B, L] hidden."""
        ...


def sample_masked(
    model: MaskPredictor,
    params: Params,
    rows: Rows,
    rng: Array,
    *,
    steps: int = 200,
    temperature: float = 1.0,
    never: Sequence[int] = SPECIAL_IDS,
) -> Array:
    """Sample the positions of rows that are not given; given tokens never change.

    From time t to the next, s, a masked position is unmasked with probability (t - s) / t, as one
    of the tokens that the network finds likely.

    Args:
      model: the network.
      params: its parameters.
      rows: see `cdcd.sampler.Rows`.
      rng: random key.
      steps: network evaluations.
      temperature: divides the logits.
      never: ids that are not sampled.

    Returns:
      int32 [B, L].

    Raises:
      ValueError: rows that do not fit, or a number out of range.
      NotFiniteError: the network returned NaN.
    """
    check_rows(rows, model.module.config.vocab_size)
    if steps < 1 or temperature <= 0:
        raise ValueError(f"steps={steps}, temperature={temperature}: expected positive numbers")
    tokens, good = _sample(model, steps, tuple(never), params, rows, rng, jnp.float32(temperature))
    check_finite(good)
    return tokens


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _sample(
    model: MaskPredictor,
    steps: int,
    never: tuple[int, ...],
    params: Params,
    rows: Rows,
    rng: Array,
    temperature: Array,
) -> tuple[Array, Array]:
    times = jnp.linspace(1.0, 0.0, steps + 1)

    def step(state: tuple[Array, Array, Array], xs: tuple[Array, Array, Array]):
        tokens, masked, good = state
        t, after, key = xs
        token_rng, when_rng = jax.random.split(key)
        logits = model.logits(params, tokens, masked, rows.valid)
        good &= jnp.all(jnp.isfinite(logits))
        logits = logits.at[..., jnp.asarray(never, jnp.int32)].set(NEG_INF)
        drawn = jax.random.categorical(token_rng, logits / temperature)
        now = masked & (jax.random.uniform(when_rng, masked.shape) < (t - after) / t)
        return (jnp.where(now, drawn, tokens), masked & ~now, good), None

    start = (rows.tokens.astype(jnp.int32), rows.noisy, jnp.asarray(True))
    keys = jax.random.split(rng, steps)
    (tokens, _, good), _ = lax.scan(step, start, (times[:-1], times[1:], keys))
    return tokens, good
