import jax
import numpy as np
import pytest

from perceiver_ar.positions import (
    fourier_features,
    position_table,
    rotary_wavelengths,
    rotate,
    terminal_positions,
)
from t5x.layers.embeddings import sinusoids
from tests.perceiver_ar.reference import golden, load

_rotate = jax.jit(rotate, static_argnums=(2, 3, 4))


@pytest.mark.parametrize("path", golden("functions*.npz"))
def test_rotation_and_tables_of_the_reference(path):
    data = load(path)
    x = np.swapaxes(data["rot_in"], 1, 2)
    cases = [name for name in data if name.startswith("rot_f")]
    assert cases
    for name in cases:
        channels, heads, wavelength = (float(part[1:]) for part in name.split("_")[1:])
        turned = _rotate(x, data["rot_pos"], wavelength, channels, heads)
        # The last bit of an angle near 100 is 7.6e-6, and entries are up to 3.6 long.
        np.testing.assert_allclose(np.swapaxes(turned, 1, 2), data[name], atol=2e-5)
    for name in data:
        kind, _, size = name.partition("_")
        if kind in ("sinusoid", "fourier"):
            features, length = map(int, size.split("x"))
            make = {"sinusoid": lambda n, f: sinusoids(np.arange(n), f)}.get(kind, fourier_features)
            np.testing.assert_allclose(make(length, features), data[name], atol=1e-5)


def test_wavelengths_include_both_ends():
    np.testing.assert_allclose(rotary_wavelengths(3, 100), [1, 10, 100])
    np.testing.assert_allclose(rotary_wavelengths(1, 100), [1])


def test_rotation_keeps_lengths_and_depends_on_distances():
    rng = np.random.default_rng(0)
    q, k = (rng.normal(size=(1, 1, 1, 8)).astype(np.float32) for _ in range(2))

    def product(i, j):
        turned = (_rotate(x, np.array([[p]]), 50, 1.0) for x, p in ((q, i), (k, j)))
        return float(np.sum(next(turned) * next(turned)))

    assert product(3, 10) == pytest.approx(product(23, 30), abs=1e-5)
    assert product(3, 10) != pytest.approx(product(3, 11), abs=1e-3)
    np.testing.assert_allclose(
        np.linalg.norm(_rotate(q, np.array([[7]]), 50)), np.linalg.norm(q), rtol=1e-6
    )


def test_positions_from_the_end():
    np.testing.assert_array_equal(
        jax.jit(terminal_positions, static_argnums=1)(np.array([3, 1]), 3), [[2, 1, 0], [0, -1, -2]]
    )


def test_an_unknown_table_is_named():
    with pytest.raises(ValueError, match=r"position_encoding='spiral'.*sinusoidal"):
        position_table("spiral", 4, 4)
