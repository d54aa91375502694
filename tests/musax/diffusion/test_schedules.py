"""Schedules, conversions and lists of levels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musax import diffusion

PRESERVING = {
    "cosine": diffusion.Cosine(),
    "plain_cosine": diffusion.Cosine(shift=0.0),
    "linear_beta": diffusion.LinearBeta(),
    "constant_beta": diffusion.LinearBeta(5.0, 5.0),
    "ddpm": diffusion.DDPM(),
    "short_ddpm": diffusion.DDPM(num_steps=100, beta_1=1e-6, beta_T=0.1),
}
SCHEDULES = PRESERVING | {"exploding": diffusion.VarianceExploding()}
T = np.linspace(0, 1, 101, dtype=np.float32)


@pytest.mark.parametrize("name", PRESERVING)
def test_variance_is_preserved(name):
    schedule = PRESERVING[name]
    scales = schedule.alpha(T), schedule.sigma(T)
    np.testing.assert_allclose(scales[0] ** 2 + scales[1] ** 2, 1, atol=1e-6)
    np.testing.assert_allclose(diffusion.preserving_scales(schedule.level(T)), scales, rtol=1e-5)


@pytest.mark.parametrize("name", SCHEDULES)
def test_level_grows_and_is_the_ratio_of_sigma_and_alpha(name):
    schedule = SCHEDULES[name]
    level, alpha, sigma = schedule.level(T), schedule.alpha(T), schedule.sigma(T)
    assert all(x.dtype == jnp.float32 for x in (level, alpha, sigma))
    assert np.all(np.diff(level) > 0)
    assert np.all(np.isfinite(level))
    np.testing.assert_allclose(level, sigma / alpha, rtol=1e-5)
    np.testing.assert_allclose(schedule.log_snr(T[1:]), -2 * np.log(level[1:]), atol=1e-4)


@pytest.mark.parametrize("name", SCHEDULES)
def test_time_is_the_inverse_of_level(name):
    schedule = SCHEDULES[name]
    np.testing.assert_allclose(schedule.time(schedule.level(T)), T, atol=1e-4)


@pytest.mark.parametrize("shift", [0.0, 0.008, 0.1])
def test_cosine_is_that_of_the_paper(shift):
    def f(t):
        return np.cos((t + shift) / (1 + shift) * np.pi / 2) ** 2

    t = np.linspace(0.01, 0.99, 50)
    alphas_cumprod = f(t) / f(0)
    schedule = diffusion.Cosine(shift)
    np.testing.assert_allclose(schedule.alpha(t) ** 2, alphas_cumprod, rtol=1e-5)
    np.testing.assert_allclose(schedule.sigma(t) ** 2, 1 - alphas_cumprod, rtol=1e-5)


@pytest.mark.parametrize("schedule", [diffusion.Cosine(), diffusion.LinearBeta()])
def test_ends_are_finite(schedule):
    ends = jnp.array([0.0, 1.0])
    for f in (schedule.log_snr, schedule.level, schedule.alpha, schedule.sigma):
        assert np.all(np.isfinite(f(ends)))
    assert schedule.log_snr(0.0) == 20
    np.testing.assert_allclose(schedule.level(0.0), np.exp(-10), rtol=1e-6)
    assert diffusion.Cosine(max_log_snr=6.0).log_snr(1.0) == -6


def test_ddpm_approaches_the_continuous_process():
    """A step adds beta / N, beta from beta_min to beta_max (Song et al. 2021, appendix B)."""
    n = 10_000
    discrete, t = diffusion.DDPM(n, 0.1 / n, 20 / n), np.linspace(0.01, 1, 34)
    np.testing.assert_allclose(discrete.level(t), diffusion.LinearBeta().level(t), rtol=0.02)


def test_ddpm_table_is_the_product_of_a_loop():
    schedule = diffusion.DDPM(num_steps=1000, beta_1=1e-6, beta_T=0.01)
    product = 1.0
    for i in range(1, 1001):
        product *= 1 - (1e-6 + (0.01 - 1e-6) * (i - 1) / 999)
        if i in (1, 2, 500, 1000):
            np.testing.assert_allclose(schedule.alphas_cumprod[i], product, rtol=1e-12)
            assert schedule.alpha(i / 1000) == np.float32(np.sqrt(product))
            np.testing.assert_allclose(schedule.sigma(i / 1000), (1 - product) ** 0.5, rtol=1e-6)
    np.testing.assert_allclose(schedule.alphas_cumprod[-1], 0.00662, atol=5e-6)
    assert schedule.alpha(0.0) == 1
    assert schedule.sigma(0.0) == 0


def test_ddpm_takes_the_nearest_step():
    schedule = diffusion.DDPM(num_steps=10)
    for i in (-0.4, 0.4):
        np.testing.assert_array_equal(
            schedule.alpha((np.arange(1, 10) + i) / 10), schedule.alpha(np.arange(1, 10) / 10)
        )
    between = schedule.level(np.array([0.3, 0.4])) @ np.array([0.6, 0.4])
    assert schedule.time(between) == np.float32(0.3)


@settings(deadline=None, max_examples=30)
@given(st.sampled_from(sorted(PRESERVING)), st.floats(0.02, 0.98), st.integers(0, 2**31 - 1))
def test_predictions_convert_into_each_other(name, t, seed):
    x0, eps = np.random.default_rng(seed).normal(size=(2, 3, 4, 2)).astype(np.float32)
    times = np.array([t, t / 2, 1 - t / 2], np.float32)
    scales = PRESERVING[name].alpha(times), PRESERVING[name].sigma(times)
    x_t = diffusion.add_noise(x0, eps, *scales)
    v = diffusion.v_from_x0(x0, eps, *scales)
    # In units of what a float32 of x_t resolves of each.
    resolved = 1e-5 / np.min(np.concatenate(scales))
    for found, expected in [
        (diffusion.x0_from_eps(x_t, eps, *scales), x0),
        (diffusion.eps_from_x0(x_t, x0, *scales), eps),
        (diffusion.x0_from_v(x_t, v, *scales), x0),
        (diffusion.eps_from_v(x_t, v, *scales), eps),
    ]:
        np.testing.assert_allclose(found, expected, atol=resolved)
    np.testing.assert_array_equal(x_t[1], scales[0][1] * x0[1] + scales[1][1] * eps[1])


def test_karras_levels_have_the_ends_and_spacing_of_the_paper():
    levels = diffusion.karras_levels(18, 0.002, 80.0)
    assert levels.dtype == np.float32
    assert levels.shape == (19,)
    assert list(levels[[0, -2, -1]]) == [np.float32(80), np.float32(0.002), 0]
    i = np.arange(18)
    expected = (80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    np.testing.assert_allclose(levels[:-1], expected, rtol=1e-6)


def test_karras_levels_of_rho_1_are_linear():
    levels = diffusion.karras_levels(10, 1.0, 300.0, rho=1.0, to_zero=False)
    np.testing.assert_allclose(levels, np.linspace(300, 1, 11), rtol=1e-6)
    assert list(diffusion.karras_levels(1, 1.0, 300.0)) == [300, 0]


@pytest.mark.parametrize("bad", [(0, 1.0, 2.0), (5, 2.0, 1.0), (5, 0.0, 1.0), (5, 1.0, 1.0)])
def test_karras_levels_refuses(bad):
    with pytest.raises(ValueError, match="0 < low < high"):
        diffusion.karras_levels(*bad)


@pytest.mark.parametrize("name", SCHEDULES)
def test_uniform_levels_go_from_time_1_to_0(name):
    levels = diffusion.uniform_levels(SCHEDULES[name], 20)
    assert np.all(np.diff(levels) < 0)
    assert levels[-1] == 0
    np.testing.assert_allclose(SCHEDULES[name].time(levels)[:-1], np.arange(20, 0, -1) / 20, 1e-4)


@pytest.mark.parametrize("count", [1, 2, 7, 64, 100])
def test_low_discrepancy_uniform_has_one_value_a_stratum(count):
    u = np.asarray(diffusion.low_discrepancy_uniform(jax.random.key(count), count))
    assert u.dtype == np.float32
    assert np.all((u >= 0) & (u < 1))
    assert sorted(np.floor(u.astype(float) * count)) == list(range(count))


def test_each_low_discrepancy_uniform_is_uniform():
    keys = jax.random.split(jax.random.key(0), 4000)
    u = np.asarray(jax.vmap(lambda key: diffusion.low_discrepancy_uniform(key, 3))(keys))
    # Standard errors of the mean 1/2 and of the second moment 1/3 are below 0.005.
    np.testing.assert_allclose(u.mean(axis=0), 1 / 2, atol=0.025)
    np.testing.assert_allclose((u**2).mean(axis=0), 1 / 3, atol=0.025)
