"""Masks of given positions and positions to predict (section 4.3).

Letters in shapes: B batch, L length. In masks, True is noisy: to be predicted.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array


def prefix_masks(rng: Array, shape: tuple[int, ...]) -> Array:
    """Return masks with a given prefix of random length, 0 to L - 1, in each row; bool [B, L]."""
    rows, length = shape
    given = jax.random.randint(rng, (rows, 1), 0, length)
    return jnp.arange(length) >= given


def random_masks(rng: Array, shape: tuple[int, ...]) -> Array:
    """Return masks with 0 to L - 1 given positions anywhere in each row; bool [B, L]."""
    rows, length = shape
    count_rng, order_rng = jax.random.split(rng)
    given = jax.random.randint(count_rng, (rows, 1), 0, length)
    rank = jnp.argsort(jax.random.uniform(order_rng, shape), axis=-1)
    return rank >= given


@dataclasses.dataclass(frozen=True)
class MaskMixture:
    """Masks of training: prefixes with a probability, else random ones.

    At least one position of a row is noisy, so that every row has a loss.

    Attributes:
      prefix: probability of a prefix.
      conditioned: probability that a row has given tokens; otherwise all of it is noisy. 1 in the
        paper.

    Raises:
      ValueError: a probability is out of range.
    """

    prefix: float = 0.5
    conditioned: float = 1.0

    def __post_init__(self):
        for name in ("prefix", "conditioned"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(
                    f"masks: {name}={getattr(self, name)}: expected a probability, 0 to 1"
                )

    def sample(self, rng: Array, shape: tuple[int, ...]) -> Array:
        """Return masks, bool [B, L]."""
        keys = jax.random.split(rng, 4)
        prefix = jax.random.bernoulli(keys[0], self.prefix, (shape[0], 1))
        noisy = jnp.where(prefix, prefix_masks(keys[1], shape), random_masks(keys[2], shape))
        if self.conditioned == 1.0:
            return noisy
        return noisy | ~jax.random.bernoulli(keys[3], self.conditioned, (shape[0], 1))
