"""Tokens from masks: the sampler of masked diffusion (Sahoo et al. 2024, section 3.2).

Letters in shapes: B batch, L length, V vocabulary.
"""

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jax import Array, lax

from cdcd.denoising import Params
from cdcd.sampler import SPECIAL_IDS, Rows, check_finite, check_rows
from t5x.decoding.logit_masks import NEG_INF

if TYPE_CHECKING:
    from cdcd.baselines import MaskedDiffusionModel


def sample_masked(
    model: "MaskedDiffusionModel",
    params: Params,
    rows: Rows,
    rng: Array,
    *,
    steps: int = 200,
    temperature: float = 1.0,
    never: Sequence[int] = SPECIAL_IDS,
) -> Array:
    """Makes the positions of rows that are not given; those never change.

    From time t to the next, s, a masked position is unmasked with probability (t - s) / t, as one
    of the tokens that the network finds likely.

    Args:
      model: the network.
      params: its parameters.
      rows: see `cdcd.sampler.Rows`.
      rng: random key.
      steps: network evaluations.
      temperature: divides the logits.
      never: ids that are not made.

    Returns:
      int32 [B, L].

    Raises:
      ValueError: rows that do not fit, or a number out of range.
      NotFiniteError: the network made NaN.
    """
    check_rows(rows, model.module.config.vocab_size)
    if steps < 1 or temperature <= 0:
        raise ValueError(f"steps={steps}, temperature={temperature}: expected positive numbers")
    warmth = jnp.float32(temperature)
    tokens, good = _sample(model, steps, tuple(never), params, rows, rng, warmth)
    check_finite(good)
    return tokens


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _sample(
    model: "MaskedDiffusionModel",
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
