"""Time warping: noise levels drawn so that the loss grows evenly along them.

L(t), the cross-entropy at noise level t, is fit by an unnormalised cumulative distribution; times
are drawn from the normalised one by its inverse, and more of them fall where the loss changes most
(section 3.3 and appendix A). Both are piecewise linear, with edges that are learned.

Times here run from 0 to 1, (t - low) / (high - low). N bins; letters in shapes: any shape, [...].
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from cdcd.config import NoiseRange
from musax.diffusion import karras_spacing
from t5x.losses import mean_where

#: Names of parameters and of the collection with their average.
PARAMS, AVERAGE = "warp", "warp_ema"

Params = dict[str, Array]


class Curve(NamedTuple):
    """A piecewise linear, increasing function by its corners.

    Attributes:
      x: float32 [N + 1].
      y: float32 [N + 1].
    """

    x: Array
    y: Array

    def __call__(self, at: Array) -> Array:
        """Return y at points `at` [...]; beyond the ends, that of the ends."""
        low = self._bin(at)
        x, y = self.x, self.y
        width, height = x[low + 1] - x[low], y[low + 1] - y[low]
        share = jnp.clip((at - x[low]) / width, 0.0, 1.0)
        return y[low] + share * height

    def slope(self, at: Array) -> Array:
        """Return dy/dx at points `at` [...]."""
        low = self._bin(at)
        return (self.y[low + 1] - self.y[low]) / (self.x[low + 1] - self.x[low])

    @property
    def inverse(self) -> "Curve":
        """The function from y to x."""
        return Curve(self.y, self.x)

    def _bin(self, at: Array) -> Array:
        """Return the bin of each point, int32 [...], 0 to N - 1."""
        inner = lax.stop_gradient(self.x[1:-1])
        return jnp.searchsorted(inner, lax.stop_gradient(at), side="right").astype(jnp.int32)


def initial_params(num_bins: int) -> Params:
    """Return logits of the sizes of bins along the time, `lt`, and the loss, `lu`, float32 [N].

    The time is not warped at first.
    """
    even = jnp.full((num_bins,), -jnp.log(float(num_bins)), jnp.float32)
    return {"lt": even, "lu": even}


@dataclasses.dataclass(frozen=True)
class Warping:
    """How times are warped.

    Attributes:
      num_bins: N.
      min_size: added to the sizes of all bins, which then sum to 1 again.
      enabled: if False, times are drawn evenly, and the loss is still fit.
      ema_decay: decay of the moving average of the parameters by which times are drawn; 0 for none.
      temperature: above 1 for a more even distribution of times, below 1 for a sharper one.
      uniformity: share of a uniform distribution of times, 0 to 1.
      beta: the loss grows as the cumulative Beta(a, b) distribution; (1, 1) is evenly.

    Raises:
      ValueError: a field is out of range.
    """

    num_bins: int = 100
    min_size: float = 1e-3
    enabled: bool = True
    ema_decay: float = 0.99
    temperature: float = 1.0
    uniformity: float = 0.0
    beta: tuple[float, float] = (1.0, 1.0)

    def __post_init__(self):
        object.__setattr__(self, "beta", tuple(self.beta))
        checks = {
            "num_bins": (self.num_bins >= 2, "2 or more"),
            "min_size": (self.min_size >= 0, "0 or more"),
            "ema_decay": (0 <= self.ema_decay < 1, "0 or more, below 1"),
            "temperature": (self.temperature > 0, "a positive number"),
            "uniformity": (0 <= self.uniformity <= 1, "0 to 1"),
            "beta": (len(self.beta) == 2 and min(self.beta) > 0, "two positive numbers"),
        }
        for name, (good, expected) in checks.items():
            if not good:
                raise ValueError(f"warping: {name}={getattr(self, name)}: expected {expected}")

    # ------------------------------------------------------------------------ the two curves

    def loss_curve(self, params: Params) -> Curve:
        """Return the fit of the loss: time 0 .. 1 -> nats, with its gradients."""
        sizes = jnp.exp(params["lu"])
        return Curve(_edges(self._sizes(params["lt"])), _edges(sizes, None))

    def distribution(self, params: Params) -> Curve:
        """Return the cumulative distribution of times: time 0 .. 1 -> 0 .. 1, without gradients."""
        params = jax.tree.map(lax.stop_gradient, params)
        along_time, along_loss = self._sizes(params["lt"]), self._sizes(params["lu"])
        if not self.enabled:
            return Curve(_edges(along_time), _edges(along_time))
        if self.temperature != 1.0:
            log_time = jnp.log(along_time)
            log_density = (jnp.log(along_loss) - log_time) / self.temperature
            # Sharpened, densities might vanish.
            along_loss = jnp.maximum(jax.nn.softmax(log_density + log_time), 1e-3 * along_time)
            along_loss = along_loss / along_loss.sum()
        if self.uniformity:
            along_loss = (1 - self.uniformity) * along_loss + self.uniformity * along_time
        return Curve(_edges(along_time), _edges(along_loss))

    def _sizes(self, logits: Array) -> Array:
        sizes = jax.nn.softmax(logits) + self.min_size
        return sizes / sizes.sum()

    # ------------------------------------------------------------------------------- fitting

    def fit_loss(
        self,
        params: Params,
        time: Array,
        nats: Array,
        drawn_by: Curve,
        counted: Array | None = None,
    ) -> Array:
        """Return the loss of the curves: squared errors of the fit, as if times were uniform.

        Args:
          params: of the curves.
          time: [B], drawn, 0 to 1.
          nats: [B], the loss of each.
          drawn_by: the distribution that they were drawn from; errors count by the inverse of its
            density (appendix A).
          counted: bool [B], which have a loss; None for all.

        Returns:
          float32 scalar.
        """
        time, nats = lax.stop_gradient(time), lax.stop_gradient(nats)
        curve = self.loss_curve(params)
        found, whole = curve(time), curve.y[-1]
        if self.beta != (1.0, 1.0):
            # At the very ends slopes may be infinite.
            share = jnp.clip(found / whole, 1e-6, 1.0 - 1e-6)
            found = jax.scipy.special.betainc(*self.beta, share) * whole
        weight = 1.0 / lax.stop_gradient(drawn_by.slope(time))
        counted = jnp.ones(time.shape, bool) if counted is None else counted
        return mean_where(weight * jnp.square(found - nats), counted)

    def average(self, average: Params, params: Params) -> Params:
        """Return the average after one more step."""
        decay = self.ema_decay
        return jax.tree.map(
            lambda a, p: decay * a + (1 - decay) * lax.stop_gradient(p), average, params
        )


def _edges(sizes: Array, last: float | None = 1.0) -> Array:
    """Return edges of adjacent bins from 0 on; `last` replaces the last (rounding may miss it)."""
    edges = jnp.concatenate([jnp.zeros(1), jnp.cumsum(sizes)])
    return edges if last is None else edges.at[-1].set(last)


def time_to_noise(time: Array, noise: NoiseRange) -> Array:
    """Return noise levels [...] of times [...] from 0 to 1."""
    return noise.low + time * (noise.high - noise.low)


def noise_to_time(t: Array, noise: NoiseRange) -> Array:
    """Return times of noise levels, the inverse of `time_to_noise`."""
    return (t - noise.low) / (noise.high - noise.low)


def spaced_levels(
    distribution: Curve,
    num_steps: int,
    noise: NoiseRange,
    rho: Array | float = 1.0,
    start: Array | float | None = None,
) -> Array:
    """Return decreasing noise levels, float32 [num_steps + 1], at equal steps of probability.

    Args:
      distribution: of times, or the identity for no warping.
      num_steps: of a sampler.
      noise: the range.
      rho: above 1, steps are small near the low end, see `musax.diffusion.karras_spacing`; applied
        before the warp.
      start: the first level; None for the highest.
    """
    first = jnp.asarray(noise.high if start is None else start)
    spaced = karras_spacing(jnp.linspace(1.0, 0.0, num_steps + 1), noise.low, noise.high, rho)
    u = noise_to_time(jnp.asarray(spaced), noise)
    u = jnp.clip(u, 0.0, 1.0) * distribution(noise_to_time(first, noise))
    return time_to_noise(distribution.inverse(u), noise)


def evenly() -> Curve:
    """Return the distribution that does not warp."""
    return Curve(jnp.array([0.0, 1.0]), jnp.array([0.0, 1.0]))
