"""Rotary position embedding (Su et al. 2021, "RoFormer", section 3.2).

Letters in shapes: B batch, L length, H heads, D head dimension.
"""

import jax.numpy as jnp
from jax import Array


def rotate(x: Array, positions: Array, base: float = 10_000.0) -> Array:
    """Turn pairs of channels by angles proportional to positions.

    Channel i and channel i + D / 2 become (a cos - b sin, b cos + a sin), with the angle
    position * base^(-2 i / D). Products of rotated queries and keys depend on differences of
    positions alone.

    Args:
      x: [B, L, H, D], queries or keys, D even.
      positions: int [L] or [B, L].
      base: the slowest pair turns by about 1 / base radians per position.

    Returns:
      [B, L, H, D] in the type of `x`; angles are float32.

    Raises:
      ValueError: D is odd.
    """
    half, odd = divmod(x.shape[-1], 2)
    if odd:
        raise ValueError(f"rotary positions need an even width of heads, not {x.shape[-1]}")
    frequencies = jnp.asarray(base, jnp.float32) ** (-jnp.arange(half) / half)
    angles = positions.astype(jnp.float32)[..., None, None] * frequencies  # [(B,) L, 1, D / 2]
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    a, b = x[..., :half].astype(jnp.float32), x[..., half:].astype(jnp.float32)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x.dtype)
