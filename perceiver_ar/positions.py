"""Positions: rotations of queries and keys, and tables that are added to embeddings.

Letters in shapes: B batch, L length, H heads, D head dimension, E embed, C coordinates.
"""

import jax.numpy as jnp
import numpy as np
from jax import Array

from t5x.layers.embeddings import sinusoids

#: Initial values of a table of absolute positions.
TABLES = ("sinusoidal", "fourier", "random")


def rotary_wavelengths(bands: int, max_wavelength: float) -> np.ndarray:
    """Return positions per radian of each band, float64 [bands], 1 to `max_wavelength` inclusive.

    The usual spacing leaves out the last one (Su et al. 2021, "RoFormer", section 3.2.2); Perceiver
    AR's does not.
    """
    exponents = np.linspace(0.0, 1.0, bands) if bands > 1 else np.zeros(bands)
    return np.power(float(max_wavelength), exponents)


def rotate(
    x: Array,
    positions: Array,
    max_wavelength: float,
    fraction_channels: float = 0.5,
    fraction_heads: float = 1.0,
) -> Array:
    """Rotate pairs of channels by angles proportional to positions.

    The leading `2 * floor(D * fraction_channels / 2)` channels of the first
    `floor(H * fraction_heads)` heads are taken as neighbouring pairs (a, b), which become
    (a cos - b sin, b cos + a sin). All else is unchanged.

    Args:
      x: [B, H, L, D], queries or keys.
      positions: integers or floats [B, L].
      max_wavelength: positions per radian of the slowest band.
      fraction_channels: see above.
      fraction_heads: see above.

    Returns:
      [B, H, L, D] in the type of `x`; angles are float32.
    """
    heads = int(np.floor(x.shape[1] * fraction_heads))
    bands = int(np.floor(x.shape[3] * fraction_channels / 2))
    if not heads or not bands:
        return x
    frequencies = jnp.asarray(1.0 / rotary_wavelengths(bands, max_wavelength), jnp.float32)
    angles = positions.astype(jnp.float32)[:, None, :, None] * frequencies  # [B, 1, L, bands]
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    pairs = x[:, :heads, :, : 2 * bands].astype(jnp.float32)
    pairs = pairs.reshape(*pairs.shape[:-1], bands, 2)
    a, b = pairs[..., 0], pairs[..., 1]
    turned = jnp.stack([a * cos - b * sin, b * cos + a * sin], axis=-1)
    turned = turned.reshape(*turned.shape[:-2], 2 * bands).astype(x.dtype)
    turned = jnp.concatenate([turned, x[:, :heads, :, 2 * bands :]], axis=-1)
    return jnp.concatenate([turned, x[:, heads:]], axis=1)


def terminal_positions(lengths: Array, size: int) -> Array:
    """Return the number of tokens after each one, int32 [B, size], of rows of `lengths` [B]."""
    return (lengths[:, None] - 1 - jnp.arange(size)).astype(jnp.int32)


def fourier_features(size: int, features: int) -> np.ndarray:
    """Return Fourier features of the positions of one axis, float32 [size, features].

    Sines, then cosines, of pi f p, for p from -1 to 1 and features / 2 frequencies f from 1 to
    size / 2, all equally spaced (Jaegle et al. 2021, "Perceiver", section 3.2).
    """
    frequencies = np.linspace(1.0, size / 2, features // 2)
    angles = np.pi * np.linspace(-1.0, 1.0, size)[:, None] * frequencies
    table = np.zeros((size, features), np.float32)
    table[:, : 2 * (features // 2)] = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    return table


def position_table(kind: str, size: int, features: int) -> np.ndarray | None:
    """Return initial values float32 [size, features] of a table; None for the random one.

    Raises:
      ValueError: an unknown kind.
    """
    if kind == "sinusoidal":
        return sinusoids(np.arange(size), features)
    if kind == "fourier":
        return fourier_features(size, features)
    if kind == "random":
        return None
    raise ValueError(f"position_encoding={kind!r}: expected one of {', '.join(TABLES)}")
