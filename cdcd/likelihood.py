"""Likelihoods of tokens. The training loss is not a likelihood, but the network has two others.

* `variational_bound`: an upper bound of -log p(x) of the diffusion model, by integration over noise
  levels (Kingma et al. 2021, "Variational diffusion models", section 4, for x_t = x_0 + t eps).
* Decoding orders: at the highest noise level noisy positions say practically nothing (they have a
  signal-to-noise ratio of d / t^2), and subsets of given tokens were trained on. So the network is
  a conditional p(x_i | given tokens), and the product over any order of positions is the exact
  likelihood of filling them in, in that order, one after the other: `decoding_nats`. Its mean over
  all orders has an unbiased estimate of a few forward passes: `any_order_nats` (Hoogeboom et al.
  2022, "Autoregressive diffusion models", equation 5).

The second kind is defined for masked diffusion as well, with a mask in place of noise. All results
are nats. Letters in shapes: B batch, L length, d width of embeddings, V vocabulary.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax import Array, lax

from cdcd import warping
from cdcd.denoising import Denoising, Params, conditioning_of, embed
from cdcd.warping import Curve, time_to_noise
from musax.diffusion import low_discrepancy_uniform
from t5x.losses import mean_where, token_nats


class FillIn(Protocol):
    """A model that predicts hidden tokens from the others, all at once."""

    def __call__(self, params: Params, tokens: Array, noisy: Array, rng: Array) -> Array:
        """Return logits float32 [B, L, V] of tokens int [B, L], with those `noisy` bool hidden."""
        ...


@dataclasses.dataclass(frozen=True)
class FillInByDenoising:
    """A network's logits at the highest noise level.

    Attributes:
      denoising: the network.
      iterations: evaluations, of which each but the first sees the estimate of the one before.
    """

    denoising: Denoising
    iterations: int = 1

    def __call__(self, params: Params, tokens: Array, noisy: Array, rng: Array) -> Array:
        table = self.denoising.table(params)
        conditioning = conditioning_of(table, tokens, noisy)
        t = jnp.full(tokens.shape[:1], self.denoising.noise.high)
        x = self.denoising.noise.high * jax.random.normal(rng, conditioning.given.shape)
        return self_conditioned(self.denoising, params, table, x, conditioning, t, self.iterations)[
            0
        ]


@dataclasses.dataclass(frozen=True)
class FillInByUnmasking:
    """The logits of masked diffusion, which needs no noise.

    Attributes:
      model: `cdcd.baselines.MaskedDiffusionModel`.
    """

    model: Any

    def __call__(self, params: Params, tokens: Array, noisy: Array, rng: Array) -> Array:
        del rng
        return self.model.logits(params, tokens, noisy)


def self_conditioned(
    denoising: Denoising,
    params: Params,
    table: Array,
    x: Array,
    conditioning: Any,
    t: Array,
    iterations: int,
) -> tuple[Array, Array]:
    """Return (logits [B, L, V], estimate [B, L, d]) after self-conditioned evaluations."""
    previous = jnp.zeros_like(x)
    logits = denoising.logits(params, x, conditioning, previous, t)
    for _ in range(iterations - 1):
        previous = denoising.interpolate(logits, table)
        logits = denoising.logits(params, x, conditioning, previous, t)
    return logits, denoising.interpolate(logits, table)


# ------------------------------------------------------------------------------ variational bound


@functools.partial(jax.jit, static_argnums=(0,), static_argnames=("levels", "iterations"))
def variational_bound(
    denoising: Denoising,
    params: Params,
    tokens: Array,
    rng: Array,
    *,
    noisy: Array | None = None,
    distribution: Curve | None = None,
    levels: int = 32,
    iterations: int = 1,
    source: Any = None,
) -> Array:
    """Return an upper bound of -log p(noisy tokens | given tokens), on average over noise.

    The sum of d / (2 high^2) for each noisy token, the cross-entropy at the lowest noise level, and

        integral over t of t^-3 E |x_0 - estimate(x_t)|^2,

    for which levels are drawn as in training.

    Args:
      denoising: the network.
      params: its parameters; the curves of the time warp are among them.
      tokens: int [B, L].
      rng: random key.
      noisy: bool [B, L]; None for all.
      distribution: of levels; None for that of the parameters.
      levels: drawn for each row, spread evenly over the distribution.
      iterations: evaluations for each estimate, see `self_conditioned`.
      source: see `cdcd.denoising.Conditioning`; the bound is of -log p(noisy tokens | it).

    Returns:
      float32 [B], the sum over noisy tokens.
    """
    noise = denoising.noise
    if distribution is None:
        distribution = warping.Warping().distribution(params[warping.PARAMS])
    noisy = jnp.ones(tokens.shape, bool) if noisy is None else noisy
    table = denoising.table(params)
    conditioning = denoising.prepare(params, conditioning_of(table, tokens, noisy, source=source))
    clean = embed(table, tokens)
    rows = tokens.shape[0]
    level_rng, noise_rng, last_rng = jax.random.split(rng, 3)
    # Row after row one value of each stratum, which are then dealt out.
    u = low_discrepancy_uniform(level_rng, rows * levels).reshape(levels, rows)

    def corrupt(key: Array, t: Array) -> Array:
        return clean + t[:, None, None] * jax.random.normal(key, clean.shape)

    def at_level(total: Array, xs: tuple[Array, Array]) -> tuple[Array, None]:
        u, key = xs
        time = distribution.inverse(u)
        t = time_to_noise(time, noise)
        _, estimate = self_conditioned(
            denoising, params, table, corrupt(key, t), conditioning, t, iterations
        )
        squares = jnp.sum(jnp.square(clean - estimate), axis=-1)
        density = distribution.slope(time) / (noise.high - noise.low)
        return total + jnp.sum(squares * noisy, axis=-1) / (t**3 * density), None

    keys = jax.random.split(noise_rng, levels)
    integral, _ = lax.scan(at_level, jnp.zeros(rows), (u, keys))
    lowest = jnp.full((rows,), noise.low)
    logits, _ = self_conditioned(
        denoising, params, table, corrupt(last_rng, lowest), conditioning, lowest, iterations
    )
    prior = jnp.sum(jnp.square(clean), axis=-1) / (2 * noise.high**2)
    rest = jnp.sum((token_nats(logits, tokens) + prior) * noisy, axis=-1)
    return integral / levels + rest


# -------------------------------------------------------------------------------- decoding orders


def left_to_right(tokens: Array) -> Array:
    """Return positions in the order of reading, int32 [B, L]."""
    return jnp.broadcast_to(jnp.arange(tokens.shape[1], dtype=jnp.int32), tokens.shape)


def random_orders(rng: Array, tokens: Array) -> Array:
    """Return a random order of positions for each row, int32 [B, L]."""
    return jnp.argsort(jax.random.uniform(rng, tokens.shape), axis=-1).astype(jnp.int32)


@functools.partial(jax.jit, static_argnums=(0,))
def decoding_nats(
    fill_in: FillIn, params: Params, tokens: Array, order: Array, rng: Array
) -> Array:
    """Return -log p of each token when positions are filled in in an order: L forward passes.

    Args:
      fill_in: see `FillIn`.
      params: of the network.
      tokens: int [B, L].
      order: int [B, L], positions in the order of filling in.
      rng: random key of the noise in place of unknown tokens.

    Returns:
      float32 [B, L], by position; the sum over a row is -log p of it.
    """
    rank = jnp.argsort(order, axis=-1)

    def step(_: None, index: Array) -> tuple[None, Array]:
        logits = fill_in(params, tokens, rank >= index, jax.random.fold_in(rng, index))
        nats = token_nats(logits, tokens)
        at = lax.dynamic_index_in_dim(order, index, axis=1)
        return None, jnp.take_along_axis(nats, at, axis=1)[:, 0]

    _, by_rank = lax.scan(step, None, jnp.arange(tokens.shape[1]))  # [L, B]
    return jnp.take_along_axis(by_rank.T, rank, axis=1)


@functools.partial(jax.jit, static_argnums=(0,), static_argnames=("passes",))
def any_order_nats(
    fill_in: FillIn,
    params: Params,
    tokens: Array,
    rng: Array,
    *,
    passes: int = 32,
    scored: Array | None = None,
) -> Array:
    """Estimate -log p of rows, on average over all orders of filling in, without bias.

    Args:
      fill_in, params, tokens: see `decoding_nats`.
      rng: random key.
      passes: forward passes, with numbers of given tokens spread evenly.
      scored: bool [B, L], tokens to score, at least one in each row; the others stay unknown. None
        for all.

    Returns:
      float32 [B].
    """
    rows = tokens.shape[0]
    counted = jnp.ones(tokens.shape, bool) if scored is None else scored
    length = jnp.sum(counted, axis=1)
    count_rng, order_rng, fill_rng = jax.random.split(rng, 3)
    u = low_discrepancy_uniform(count_rng, rows * passes).reshape(passes, rows)

    def step(total: Array, xs: tuple[Array, Array, Array]) -> tuple[Array, None]:
        u, order_key, fill_key = xs
        place = jax.random.uniform(order_key, tokens.shape) + ~counted  # others come last
        rank = jnp.argsort(jnp.argsort(place, axis=-1), axis=-1)
        given = jnp.minimum((u * length).astype(jnp.int32), length - 1)
        unknown = rank >= given[:, None]
        nats = token_nats(fill_in(params, tokens, unknown, fill_key), tokens)
        return total + length * mean_where(nats, unknown & counted, axis=1), None

    order_keys, fill_keys = (jax.random.split(key, passes) for key in (order_rng, fill_rng))
    total, _ = lax.scan(step, jnp.zeros(rows), (u, order_keys, fill_keys))
    return total / passes


def in_batches(
    score: Callable[[Array, Array], Array], tokens: Array, rng: Array, batch_size: int
) -> Array:
    """Return `score(tokens, rng)` of all rows, `batch_size` at a time; the last batch is padded."""
    found = []
    for number, first in enumerate(range(0, tokens.shape[0], batch_size)):
        part = tokens[first : first + batch_size]
        missing = batch_size - part.shape[0]
        full = jnp.concatenate([part, jnp.repeat(part[:1], missing, axis=0)])
        found.append(score(full, jax.random.fold_in(rng, number))[: part.shape[0]])
    return jnp.concatenate(found)
