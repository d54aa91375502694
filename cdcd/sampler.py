"""Tokens from noise: the probability-flow ODE in the space of embeddings.

Any positions of a row may be given; those never change. Letters in shapes: B batch, L length,
d width of embeddings, V vocabulary.

Dieleman et al. 2022 (arXiv 2211.15089), sections 6.1 and 6.4. A step from a noise level to the next
moves x towards the expected embeddings x_0; at the lowest level every position becomes its most
likely token.
"""

import dataclasses
import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer

from cdcd import warping
from cdcd.denoising import (
    Conditioning,
    Denoising,
    Params,
    beside_unconditioned,
    conditioning_of,
    embed,
)
from cdcd.warping import Curve
from musax.diffusion import METHODS, Churn, solve
from t5x.data.vocabularies import NUM_SPECIAL_IDS
from t5x.decoding.logit_masks import NEG_INF, topp_mask
from t5x.reductions import argmax

#: Padding, EOS and unknown: no tokens of texts and melodies.
SPECIAL_IDS = tuple(range(NUM_SPECIAL_IDS))


class NotFiniteError(FloatingPointError):
    """A network returned numbers that are not finite."""


@dataclasses.dataclass(frozen=True)
class SamplerOptions:
    """Sampling options.

    Attributes:
      steps: from the highest noise level to the lowest.
      method: of `musax.diffusion.METHODS`; `heun` evaluates the network twice a step.
      score_temperature: the score is divided by it: below 1 for likelier, less various tokens.
      softmax_temperature: of the distribution of tokens, before its mean is taken.
      topp: nucleus sampling: keep the most likely tokens of that distribution, up to this total
        probability; 1 for all.
      noise_scale: factor of the initial noise.
      guidance: classifier-free guidance weight of the conditional score; 1 for it alone, 0 for the
        unconditional one (Ho & Salimans 2022).
      guidance_low, guidance_high: noise levels between which there is guidance; beyond them it is 1
        (Kynkäänniemi et al. 2024).
      churn: noise added while sampling, S_churn of Karras et al. 2022; for `euler` and `heun` only.
      rho: spacing of the steps, see `cdcd.warping.spaced_levels`.
      warp: space levels by the learned time warp, as in training; otherwise evenly.
      self_conditioning: the network sees its estimate of the previous step.
      never: ids that are never sampled.

    Raises:
      ValueError: names the option that is out of range.
    """

    steps: int = 200
    method: str = "euler"
    score_temperature: float = 1.0
    softmax_temperature: float = 1.0
    topp: float = 1.0
    noise_scale: float = 1.0
    guidance: float = 1.0
    guidance_low: float = 0.0
    guidance_high: float = math.inf
    churn: float = 0.0
    rho: float = 1.0
    warp: bool = True
    self_conditioning: bool = True
    never: tuple[int, ...] = SPECIAL_IDS

    def __post_init__(self):
        object.__setattr__(self, "never", tuple(self.never))
        checks = {
            "steps": (self.steps >= 1, "1 or more"),
            "method": (self.method in METHODS, f"one of {', '.join(METHODS)}"),
            "score_temperature": (self.score_temperature > 0, "a positive number"),
            "softmax_temperature": (self.softmax_temperature > 0, "a positive number"),
            "topp": (0 < self.topp <= 1, "a probability above 0, up to 1"),
            "noise_scale": (self.noise_scale >= 0, "0 or more"),
            "guidance": (math.isfinite(self.guidance), "a number"),
            "guidance_low": (self.guidance_low <= self.guidance_high, "at most guidance_high"),
            "churn": (self.churn >= 0, "0 or more"),
            "rho": (self.rho > 0, "a positive number"),
        }
        for name, (good, expected) in checks.items():
            if not good:
                raise ValueError(f"{name}={getattr(self, name)!r}: expected {expected}")

    @property
    def numbers(self) -> "Numbers":
        """Numeric options as arrays; changing them does not recompile."""
        return Numbers(*(jnp.float32(getattr(self, name)) for name in Numbers._fields))

    @property
    def program(self) -> "SamplerOptions":
        """The options with canonical numbers, the same for all that share a compiled program."""
        same = {name: getattr(_DEFAULTS, name) for name in Numbers._fields}
        kept = {"guidance": 2.0} if self.guided else {}
        kept |= {"topp": 0.5} if self.topp < 1 else {}
        return dataclasses.replace(self, **(same | kept))

    @property
    def guided(self) -> bool:
        """Whether the network runs with and without conditioning."""
        return self.guidance != 1.0


class Numbers(NamedTuple):
    """Options as arrays, see `SamplerOptions`."""

    score_temperature: Array
    softmax_temperature: Array
    topp: Array
    noise_scale: Array
    guidance: Array
    guidance_low: Array
    guidance_high: Array
    rho: Array


_DEFAULTS = SamplerOptions()


class Rows(NamedTuple):
    """Rows of tokens, and the positions to sample.

    Attributes:
      tokens: int32 [B, L]; read where they are given, or where sampling does not begin with noise
        alone.
      noisy: bool [B, L], positions to sample.
      valid: bool [B, L], False for padding; None for no padding.
      source: see `cdcd.denoising.Conditioning`.
    """

    tokens: Array
    noisy: Array
    valid: Array | None = None
    source: Any = None


def rows_from_nothing(count: int, length: int) -> Rows:
    """Return rows without given tokens."""
    return Rows(jnp.zeros((count, length), jnp.int32), jnp.ones((count, length), bool))


def check_rows(rows: Rows, vocab_size: int) -> None:
    """Raise ValueError for shapes that do not fit and given tokens outside the vocabulary.

    Under `jax.jit`, where tokens are not known, nothing is checked.
    """
    if _traced(rows.tokens, rows.noisy):
        return
    tokens, noisy = np.asarray(rows.tokens), np.asarray(rows.noisy)
    if tokens.ndim != 2 or tokens.shape != noisy.shape or not tokens.size:
        raise ValueError(
            f"tokens {tokens.shape} and noisy {noisy.shape}: expected the same [rows, length], "
            "with at least one token"
        )
    given = tokens[~noisy.astype(bool)]
    if given.size and not 0 <= given.min() <= given.max() < vocab_size:
        bad = given[(given < 0) | (given >= vocab_size)][0]
        raise ValueError(f"given token {bad} is outside the vocabulary, 0 to {vocab_size - 1}")


def sample(
    denoising: Denoising,
    params: Params,
    rows: Rows,
    rng: Array,
    options: SamplerOptions = _DEFAULTS,
    distribution: Curve | None = None,
    start: float | None = None,
) -> Array:
    """Sample the positions of rows that are not given.

    Args:
      denoising: the network.
      params: its parameters; the curves of the time warp are among them.
      rows: given tokens, returned unchanged, and the positions to sample.
      rng: random key.
      options: see `SamplerOptions`.
      distribution: of noise levels, by which steps are spaced; None for that of `params` without
        manipulations.
      start: noise level to begin at, with the embeddings of `rows.tokens` plus noise of that
        level; None for the highest, with noise alone.

    Returns:
      int32 [B, L].

    Raises:
      ValueError: rows that do not fit, see `check_rows`, or a level outside the network's range.
      NotFiniteError: the network returned NaN.
    """
    check_rows(rows, denoising.module.config.vocab_size)
    program, setting = _compiled_for(denoising, params, options, distribution, start)
    tokens, good = _sample(program, setting, rows, rng)
    check_finite(good)
    return tokens


class _Program(NamedTuple):
    """Static arguments of the compiled sampler, see `sample`."""

    denoising: Denoising
    options: SamplerOptions
    from_noise: bool


class _Setting(NamedTuple):
    """Traced arguments of the compiled sampler."""

    params: Params
    numbers: Numbers
    distribution: Curve
    start: Array


def _compiled_for(
    denoising: Denoising,
    params: Params,
    options: SamplerOptions,
    distribution: Curve | None,
    start: float | None,
) -> tuple[_Program, _Setting]:
    noise = denoising.noise
    if start is not None and not noise.low < start <= noise.high:
        raise ValueError(f"start={start}: expected a noise level from {noise.low} to {noise.high}")
    if distribution is None:
        distribution = warping.Warping().distribution(params[warping.PARAMS])
    return _Program(denoising, options.program, start is None), _Setting(
        params,
        options.numbers,
        distribution if options.warp else warping.evenly(),
        jnp.float32(noise.high if start is None else start),
    )


def check_finite(good: Array) -> None:
    """Raise NotFiniteError unless all of `good` bool [...] hold; do nothing under `jax.jit`."""
    if not _traced(good) and not bool(jnp.all(good)):
        raise NotFiniteError(
            "the network returned logits that are not finite: its training diverged or the "
            "checkpoint is broken; use another one"
        )


def _traced(*arrays: Array) -> bool:
    return any(isinstance(x, Tracer) for x in arrays)


@functools.partial(jax.jit, static_argnums=0)
def _sample(program: _Program, setting: _Setting, rows: Rows, rng: Array) -> tuple[Array, Array]:
    """Return (tokens int32 [B, L], bool: all logits were finite)."""
    denoising, options, from_noise = program
    params, numbers, distribution, start = setting
    table = denoising.table(params)
    conditioning = conditioning_of(table, rows.tokens, rows.noisy, rows.valid, source=rows.source)
    branches = denoising.prepare(
        params, beside_unconditioned(conditioning) if options.guided else conditioning
    )
    network = functools.partial(_estimate, denoising, params, table, options, numbers, branches)
    levels = warping.spaced_levels(distribution, options.steps, denoising.noise, numbers.rho, start)
    noise_rng, solver_rng = jax.random.split(rng)
    sampled = rows.noisy[..., None]
    y = numbers.noise_scale * start * jax.random.normal(noise_rng, conditioning.given.shape)
    if not from_noise:
        y = y + embed(table, rows.tokens)

    def denoise(y: Array, t: Array, previous: Array) -> tuple[Array, Array]:
        x0, estimates, _ = network(y, t, previous)
        x0 = y + (x0 - y) / numbers.score_temperature
        return jnp.where(sampled, x0, 0.0), estimates

    y, previous = solve(
        denoise,
        jnp.where(sampled, y, 0.0),
        levels,
        jnp.zeros((1 + options.guided, *y.shape)),
        method=options.method,
        churn=Churn(options.churn) if options.churn else None,
        rng=solver_rng,
    )
    _, _, logits = network(y, levels[-1], previous)
    tokens = jnp.where(rows.noisy, argmax(logits), rows.tokens)
    return tokens.astype(jnp.int32), jnp.all(jnp.isfinite(logits) | ~sampled)


def _estimate(
    denoising: Denoising,
    params: Params,
    table: Array,
    options: SamplerOptions,
    numbers: Numbers,
    conditioning: Conditioning,
    y: Array,
    t: Array,
    previous: Array,
) -> tuple[Array, Array, Array]:
    """Return (estimate [B, L, d], of each branch [1 or 2, B, L, d], logits [B, L, V]).

    The branches, with and without given tokens, are one call on twice the rows; `conditioning` has
    both.
    """
    branches, rows = 1 + options.guided, y.shape[0]
    seen = previous if options.self_conditioning else jnp.zeros_like(previous)
    if options.guided:
        y = jnp.concatenate([y, y])
    level = jnp.full((branches * rows,), t)
    logits = denoising.logits(params, y, conditioning, seen.reshape(y.shape), level)
    logits = logits.at[..., jnp.asarray(options.never, jnp.int32)].set(NEG_INF)
    shaped = logits / numbers.softmax_temperature
    if options.topp < 1:
        flat = shaped.reshape(-1, shaped.shape[-1])
        shaped = topp_mask(flat, numbers.topp).reshape(shaped.shape)
    x0 = denoising.interpolate(shaped, table).reshape(branches, rows, *y.shape[1:])
    if not options.guided:
        return x0[0], x0, logits
    inside = (numbers.guidance_low <= t) & (t <= numbers.guidance_high)
    weight = jnp.where(inside, numbers.guidance, 1.0)
    given, hidden = logits[:rows], logits[rows:]
    # Scores are linear in x_0, and so is their combination. Logits beyond both would be noise.
    logits = hidden + jnp.clip(weight, 0.0, 1.0) * (given - hidden)
    return x0[1] + weight * (x0[0] - x0[1]), x0, logits


# ---------------------------------------------------------------------------- more than one pass


def refine(
    denoising: Denoising,
    params: Params,
    rows: Rows,
    rng: Array,
    options: SamplerOptions = _DEFAULTS,
    *,
    rounds: int,
    share: float = 0.5,
    start: float | None = None,
    distribution: Curve | None = None,
) -> Array:
    """Resample random subsets of positions given all others (block Gibbs sampling).

    Args:
      denoising, params, rng, options, distribution: see `sample`.
      rows: tokens, and the positions that may change.
      rounds: number of Gibbs rounds.
      share: fraction of those positions to resample in each round.
      start: noise level to resample from; None for the highest, which erases the old tokens.

    Returns:
      int32 [B, L].

    Raises:
      ValueError: a number out of range, and as `sample`.
      NotFiniteError: see `sample`.
    """
    if rounds < 1 or not 0.0 < share <= 1.0:
        raise ValueError(f"rounds={rounds}, share={share}: expected 1 or more, and above 0 up to 1")
    check_rows(rows, denoising.module.config.vocab_size)
    program, setting = _compiled_for(denoising, params, options, distribution, start)
    tokens, good = _refine(program, setting, rows, rng, jnp.int32(rounds), jnp.float32(share))
    check_finite(good)
    return tokens


@functools.partial(jax.jit, static_argnums=0)
def _refine(
    program: _Program, setting: _Setting, rows: Rows, rng: Array, rounds: Array, share: Array
) -> tuple[Array, Array]:
    """Return (tokens int32 [B, L], bool: all logits were finite) after all rounds."""

    def again(number: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        tokens, good = state
        mask_rng, sample_rng = jax.random.split(jax.random.fold_in(rng, number))
        chosen = rows.noisy & (jax.random.uniform(mask_rng, rows.noisy.shape) < share)
        part = rows._replace(tokens=tokens, noisy=chosen)
        tokens, finite = _sample(program, setting, part, sample_rng)
        return tokens, good & finite

    first = (jnp.asarray(rows.tokens, jnp.int32), jnp.bool_(True))
    return jax.lax.fori_loop(0, rounds, again, first)
