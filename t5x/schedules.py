"""Learning-rate schedules: products of named factors of the step."""

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array

Schedule = Callable[[Array | int], Array]


def create_learning_rate_scheduler(
    factors: str = "constant * linear_warmup * rsqrt_decay",
    base_learning_rate: float = 0.5,
    warmup_steps: int = 1000,
    decay_factor: float = 0.5,
    steps_per_decay: int = 20000,
    steps_per_cycle: int = 100000,
    step_offset: int = 0,
    min_learning_rate: float = 1e-8,
) -> Schedule:
    """A schedule step -> float32 scalar, the product of `factors` but never below a minimum.

    With s = max(0, step - step_offset) and w = warmup_steps the factors are

    * constant: base_learning_rate
    * linear_warmup: min(1, s / w)
    * linear_decay: base_learning_rate * min(s / w, 1 + decay_factor * (w - s)), warm-up included
    * rsqrt_decay: 1 / sqrt(max(s, w))
    * rsqrt_normalized_decay: sqrt(w) / sqrt(max(s, w))
    * decay_every: decay_factor ^ (s // steps_per_decay)
    * cosine_decay: (1 + cos(pi * (p mod 1))) / 2, p = max(0, (s - w) / steps_per_cycle); it
      restarts at 1 with every cycle

    Args:
      factors: names joined by `*`.
      base_learning_rate: see above.
      warmup_steps: see above.
      decay_factor: see above.
      steps_per_decay: see above.
      steps_per_cycle: see above.
      step_offset: step at which the schedule begins.
      min_learning_rate: lower limit of the result.

    Raises:
      ValueError: an unknown factor.
    """
    table: dict[str, Callable[[Array], Array | float]] = {
        "constant": lambda s: jnp.float32(base_learning_rate),
        "linear_warmup": lambda s: jnp.minimum(1.0, s / warmup_steps),
        "linear_decay": lambda s: (
            base_learning_rate
            * jnp.minimum(s / warmup_steps, 1.0 + decay_factor * (warmup_steps - s))
        ),
        "rsqrt_decay": lambda s: 1.0 / jnp.sqrt(jnp.maximum(s, warmup_steps)),
        "rsqrt_normalized_decay": lambda s: (
            jnp.sqrt(warmup_steps) / jnp.sqrt(jnp.maximum(s, warmup_steps))
        ),
        "decay_every": lambda s: decay_factor ** (s // steps_per_decay),
        "cosine_decay": lambda s: _cosine(jnp.maximum(0.0, (s - warmup_steps) / steps_per_cycle)),
    }
    names = [name.strip() for name in factors.split("*")]
    unknown = sorted(set(names) - table.keys())
    if unknown:
        raise ValueError(
            f"unknown learning-rate factors {unknown} in {factors!r}: know {sorted(table)}"
        )

    def schedule(step: Array | int) -> Array:
        s = jnp.asarray(jnp.maximum(0, step - step_offset), jnp.float32)
        rate = jnp.float32(1.0)
        for name in names:
            rate = rate * table[name](s)
        return jnp.maximum(rate, min_learning_rate).astype(jnp.float32)

    return schedule


def _cosine(progress: Array) -> Array:
    return jnp.maximum(0.0, 0.5 * (1.0 + jnp.cos(jnp.pi * (progress % 1.0))))
