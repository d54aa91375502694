"""Noise schedules, and the parametrisations of a network's prediction.

A schedule gives alpha and sigma of x_t = alpha(t) x_0 + sigma(t) eps, for t from 0 (clean) to 1
(noise), float32 of the shape of t. Solvers use the noise level sigma / alpha instead, of which
there are lists here: float32 [S + 1] for S steps, strictly decreasing; the last may be 0.
"""

import abc
import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

# ------------------------------------------------------------------------------------ schedules


class Schedule(abc.ABC):
    """Scales of signal and noise by time."""

    @abc.abstractmethod
    def alpha(self, t: ArrayLike) -> Array:
        """Return the scale of the data at t."""

    @abc.abstractmethod
    def sigma(self, t: ArrayLike) -> Array:
        """Return the standard deviation of the noise at t."""

    @abc.abstractmethod
    def time(self, level: ArrayLike) -> Array:
        """Return t of a noise level, the inverse of `level`."""

    def level(self, t: ArrayLike) -> Array:
        """Return the noise level sigma / alpha at t; it grows with t."""
        return self.sigma(t) / self.alpha(t)

    def log_snr(self, t: ArrayLike) -> Array:
        """Return log(alpha² / sigma²) at t; infinite where there is no noise."""
        return -2 * jnp.log(self.level(t))


@dataclasses.dataclass(frozen=True)
class VarianceExploding(Schedule):
    """alpha = 1, sigma = t, which need not end at 1 (Karras et al. 2022)."""

    def alpha(self, t: ArrayLike) -> Array:
        return jnp.ones_like(_float32(t))

    def sigma(self, t: ArrayLike) -> Array:
        return _float32(t)

    def time(self, level: ArrayLike) -> Array:
        return _float32(level)


@dataclasses.dataclass(frozen=True, kw_only=True)
class VariancePreserving(Schedule):
    """alpha² + sigma² = 1; a subclass gives the log of their ratio, which is then clipped.

    Attributes:
      max_log_snr: bound of |log_snr|, so that levels are positive and finite at both ends.
    """

    max_log_snr: float = 20.0

    @abc.abstractmethod
    def unclipped_log_snr(self, t: Array) -> Array:
        """Return log(alpha² / sigma²) of t float32; may be infinite at the ends."""

    def log_snr(self, t: ArrayLike) -> Array:
        unclipped = self.unclipped_log_snr(_float32(t))
        return jnp.clip(unclipped, -self.max_log_snr, self.max_log_snr)

    def alpha(self, t: ArrayLike) -> Array:
        return jnp.sqrt(jax.nn.sigmoid(self.log_snr(t)))

    def sigma(self, t: ArrayLike) -> Array:
        return jnp.sqrt(jax.nn.sigmoid(-self.log_snr(t)))

    def level(self, t: ArrayLike) -> Array:
        return jnp.exp(-self.log_snr(t) / 2)


@dataclasses.dataclass(frozen=True)
class Cosine(VariancePreserving):
    """alpha = cos(angle(t)) / cos(angle(0)), angle = pi/2 (t + s) / (1 + s) (Nichol & Dhariwal
    2021, equation 17).

    Attributes:
      shift: s, more of which makes the first steps larger.
    """

    shift: float = 0.008

    @property
    def _first_angle(self) -> float:
        return math.pi / 2 * self.shift / (1 + self.shift)

    def unclipped_log_snr(self, t: Array) -> Array:
        first, scale = self._first_angle, math.pi / 2 / (1 + self.shift)
        # 1 - alpha² = sin(angle + first) sin(angle - first) / cos²(first), and cos(angle) as the
        # sine of the remainder to pi/2: exact at both ends, where differences would cancel.
        noise = jnp.sin(scale * t + 2 * first) * jnp.sin(scale * t)
        return 2 * jnp.log(jnp.sin(scale * (1 - t))) - jnp.log(noise)

    def time(self, level: ArrayLike) -> Array:
        opposite = jnp.hypot(_float32(level), math.sin(self._first_angle))
        angle = jnp.arctan2(opposite, math.cos(self._first_angle))
        return angle * (2 / math.pi * (1 + self.shift)) - self.shift


@dataclasses.dataclass(frozen=True)
class LinearBeta(VariancePreserving):
    """alpha² = exp(-integral of beta), beta linear in t (Song et al. 2021, appendix C).

    Attributes:
      beta_min, beta_max: beta at t = 0 and 1.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def unclipped_log_snr(self, t: Array) -> Array:
        integral = t * (self.beta_min + t * (self.beta_max - self.beta_min) / 2)
        return -jnp.log(jnp.expm1(integral))

    def time(self, level: ArrayLike) -> Array:
        integral = jnp.log1p(jnp.square(_float32(level)))
        slope = self.beta_max - self.beta_min
        root = jnp.sqrt(self.beta_min**2 + 2 * slope * integral)
        return 2 * integral / (self.beta_min + root)


@dataclasses.dataclass(frozen=True)
class DDPM(Schedule):
    """N discrete steps with linear beta (Ho et al. 2020); t counts as the nearest step t N.

    Attributes:
      num_steps: N.
      beta_1, beta_T: variance that the first and the last step add.
    """

    num_steps: int = 1000
    beta_1: float = 1e-4
    beta_T: float = 0.02

    @property
    def alphas_cumprod(self) -> np.ndarray:
        """alpha² after 0 to N steps, float64 [N + 1]."""
        betas = np.linspace(self.beta_1, self.beta_T, self.num_steps)
        return np.concatenate([[1.0], np.cumprod(1 - betas)])

    def alpha(self, t: ArrayLike) -> Array:
        return self._nearest(t, np.sqrt(self.alphas_cumprod))

    def sigma(self, t: ArrayLike) -> Array:
        return self._nearest(t, np.sqrt(1 - self.alphas_cumprod))

    def level(self, t: ArrayLike) -> Array:
        return self._nearest(t, self._levels)

    def time(self, level: ArrayLike) -> Array:
        between = (self._levels[1:] + self._levels[:-1]) / 2
        return jnp.searchsorted(_float32(between), _float32(level)) / jnp.float32(self.num_steps)

    @property
    def _levels(self) -> np.ndarray:
        return np.sqrt(1 / self.alphas_cumprod - 1)

    def _nearest(self, t: ArrayLike, table: np.ndarray) -> Array:
        return _float32(table)[jnp.round(_float32(t) * self.num_steps).astype(jnp.int32)]


# ------------------------------------------------------------------------- noise and predictions
#
# alpha and sigma are scalars or have the leading axes of x, such as [B] with x [B, L, D].


def preserving_scales(level: ArrayLike) -> tuple[Array, Array]:
    """Return (alpha, sigma) of a noise level where alpha² + sigma² = 1.

    By way of t they would be less exact: near t = 1, the last digit of t is much of alpha.
    """
    alpha = jax.lax.rsqrt(1 + jnp.square(_float32(level)))
    return alpha, alpha * _float32(level)


def add_noise(x0: Array, noise: Array, alpha: ArrayLike, sigma: ArrayLike) -> Array:
    """Return x_t = alpha x_0 + sigma eps, of the shape of `x0`."""
    return _lead(alpha, x0) * x0 + _lead(sigma, x0) * noise


def x0_from_eps(x_t: Array, eps: Array, alpha: ArrayLike, sigma: ArrayLike) -> Array:
    """Return the data x_0 of x_t, given its noise."""
    return (x_t - _lead(sigma, x_t) * eps) / _lead(alpha, x_t)


def eps_from_x0(x_t: Array, x0: Array, alpha: ArrayLike, sigma: ArrayLike) -> Array:
    """Return the noise of x_t, given its data x_0; sigma > 0."""
    return (x_t - _lead(alpha, x_t) * x0) / _lead(sigma, x_t)


def v_from_x0(x0: Array, eps: Array, alpha: ArrayLike, sigma: ArrayLike) -> Array:
    """Return v = alpha eps - sigma x_0 (Salimans & Ho 2022, appendix D); variance preserving."""
    return _lead(alpha, x0) * eps - _lead(sigma, x0) * x0


def x0_from_v(x_t: Array, v: Array, alpha: ArrayLike, sigma: ArrayLike) -> Array:
    """Return x_0 = alpha x_t - sigma v, where alpha² + sigma² = 1."""
    return _lead(alpha, x_t) * x_t - _lead(sigma, x_t) * v


def eps_from_v(x_t: Array, v: Array, alpha: ArrayLike, sigma: ArrayLike) -> Array:
    """Return eps = sigma x_t + alpha v, where alpha² + sigma² = 1."""
    return _lead(sigma, x_t) * x_t + _lead(alpha, x_t) * v


# ------------------------------------------------------------------------------ levels and times


def karras_spacing(u: Any, low: float, high: float, rho: Any) -> np.ndarray | Array:
    """Return noise levels equally spaced in level^(1 / rho) (Karras et al. 2022, equation 5).

    Args:
      u: where between `low` (0) and `high` (1), of any shape.
      low, high: the lowest and the highest level.
      rho: 1 spaces them equally; more takes smaller steps at low levels.

    Returns:
      As `u`; of NumPy arrays, a NumPy array.
    """
    first, last = low ** (1 / rho), high ** (1 / rho)
    return (first + u * (last - first)) ** rho


def karras_levels(
    num_steps: int, low: float, high: float, rho: float = 7.0, *, to_zero: bool = True
) -> np.ndarray:
    """Return noise levels from `high` down, see `karras_spacing`.

    Args:
      num_steps: S.
      low, high: the lowest and the highest positive level.
      rho: see there.
      to_zero: the last step goes from `low` to 0, as in Karras et al. 2022, equation 5; otherwise
        the last level is `low`.

    Returns:
      float32 [S + 1].

    Raises:
      ValueError: not S >= 1, or not 0 < low < high.
    """
    positive = num_steps if to_zero else num_steps + 1
    if num_steps < 1 or not 0 < low < high:
        raise ValueError(
            f"num_steps={num_steps}, low={low}, high={high}: expected num_steps >= 1 and "
            "0 < low < high"
        )
    levels = karras_spacing(np.linspace(1.0, 0.0, positive), low, high, rho)
    return np.append(levels, [0.0] * to_zero).astype(np.float32)


def uniform_levels(schedule: Schedule, num_steps: int) -> Array:
    """Return noise levels at equally spaced t from 1 to 0, float32 [num_steps + 1], the last 0."""
    return schedule.level(jnp.linspace(1.0, 0.0, num_steps + 1)).at[-1].set(0.0)


def low_discrepancy_uniform(rng: Array, count: int) -> Array:
    """Draw uniform numbers in [0, 1), one in each stratum of width 1 / count.

    Each by itself is uniform; together their mean varies less than that of independent ones
    (Kingma et al. 2021, "Variational diffusion models").

    Returns:
      float32 [count], (r + i / count) mod 1 of one offset r.
    """
    offset = jax.random.uniform(rng, dtype=jnp.float32)
    return (offset + jnp.arange(count, dtype=jnp.float32) / count) % 1.0


def _float32(x: ArrayLike) -> Array:
    return jnp.asarray(x, jnp.float32)


def _lead(scale: ArrayLike, x: Array) -> Array:
    """Append axes of length 1 to `scale`, up to the rank of x."""
    scale = jnp.asarray(scale)
    return scale.reshape(scale.shape + (1,) * (x.ndim - scale.ndim))
