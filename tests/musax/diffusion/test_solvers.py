"""Solvers against exact solutions, exact posteriors and steps written in other coordinates."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from musax import diffusion
from musax.diffusion import METHODS, Churn, karras_levels, solve

STD = 2.0  # Of Gaussian data.
POINTS = np.array([-3.0, 0.0, 2.0], np.float32)  # Discrete data, of mean 0.
PRIOR = np.array([0.2, 0.5, 0.3], np.float32)


def gaussian(y, level, carry):
    """The mean of data N(0, STD²) given y."""
    return y * STD**2 / (STD**2 + level**2), carry


def discrete(y, level, carry):
    """The mean of `POINTS` of probabilities `PRIOR` given y."""
    logits = jnp.log(PRIOR) - (y[..., None] - POINTS) ** 2 / (2 * level**2)
    return jax.nn.softmax(logits) @ POINTS, carry


def any_network(y, level, carry):
    """Some function that is no ideal denoiser."""
    return jnp.tanh(y / jnp.sqrt(1 + level**2) + 0.1 * jnp.log(level)), carry


def normal(shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


# ---------------------------------------------------------------------------------------- order


def error(method, num_steps, last):
    """Of the end of the probability flow of Gaussian data, whose solution is known."""
    levels = np.append(np.geomspace(20, 0.2, num_steps + (not last)), [0.0] * last)
    with jax.enable_x64(True):
        y, _ = solve(gaussian, jnp.full([1], 20.0, jnp.float64), levels, method=method)
        assert y.dtype == jnp.float64
        exact = 20 * np.sqrt((STD**2 + levels[-1] ** 2) / (STD**2 + 20**2))
        return abs(float(y[0]) - exact)


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("heun", 2), ("dpmpp_2m", 2)])
def test_order_of_convergence(method, order):
    steps = [32, 64, 128]
    slope = np.polyfit(np.log(steps), np.log([error(method, n, last=False) for n in steps]), 1)[0]
    assert slope == pytest.approx(-order, abs=0.2)


@pytest.mark.parametrize("method", ["heun", "dpmpp_2m"])
def test_the_step_to_0_is_all_that_second_order_misses(method):
    """That step is of the first order in all methods: it ends at the estimate."""
    end = 20 * np.sqrt((STD**2 + 0.2**2) / (STD**2 + 20**2))
    missed = 20 * STD / np.hypot(STD, 20) - end * STD**2 / (STD**2 + 0.2**2)
    assert error(method, 200, last=True) == pytest.approx(missed, rel=0.1)


# -------------------------------------------------------------------------------- distributions


def p_value(method, num_steps, **options):
    """Of the chi-square test that samples of the ideal denoiser have the prior of the data."""
    samples, rng = 10_000, jax.random.key(0)
    levels = karras_levels(num_steps, 0.05, 80.0)
    y = levels[0] * jax.random.normal(rng, [samples])
    run = jax.jit(functools.partial(solve, discrete, method=method, **options))
    y, _ = run(y, levels, rng=jax.random.fold_in(rng, 1))
    nearest = np.abs(np.asarray(y)[:, None] - POINTS).argmin(axis=1)
    return scipy.stats.chisquare(np.bincount(nearest, minlength=3), samples * PRIOR).pvalue


@pytest.mark.parametrize(
    ("method", "num_steps", "options"),
    [
        ("euler", 500, {}),
        ("heun", 100, {}),
        ("dpmpp_2m", 100, {}),
        ("ancestral", 500, {}),
        ("euler", 500, {"churn": Churn(20.0)}),
        ("heun", 100, {"churn": Churn(40.0, low=0.1, high=20.0)}),
    ],
)
def test_samples_of_the_ideal_denoiser_have_the_prior_of_the_data(method, num_steps, options):
    assert p_value(method, num_steps, **options) > 0.01


def test_the_chi_square_sees_coarse_steps_and_wrong_noise():
    assert p_value("euler", 10) < 1e-6
    assert p_value("heun", 100, churn=Churn(40.0, noise=0.9)) < 1e-6


@pytest.mark.parametrize("level", [0.3, 1.0, 5.0])
def test_score_of_the_mean_is_the_gradient_of_the_log_density(level):
    def log_density(y):
        return jax.nn.logsumexp(jnp.log(PRIOR) - (y - POINTS) ** 2 / (2 * level**2))

    @jax.jit
    def both(y):
        return (discrete(y, level, None)[0] - y) / level**2, jax.vmap(jax.grad(log_density))(y)

    score, gradient = both(np.linspace(-5, 5, 41, dtype=np.float32))
    np.testing.assert_allclose(score, gradient, rtol=1e-4, atol=1e-4)


# ------------------------------------------------------------------- the same in x_t coordinates


def in_x_t(schedule, t, x_t):
    """`any_network` as x_t and t see it."""
    return any_network(x_t / schedule.alpha(t), schedule.level(t), None)[0]


SCHEDULES = [diffusion.Cosine(), diffusion.LinearBeta(), diffusion.DDPM()]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_euler_is_ddim(schedule):
    t = np.linspace(0.9, 0.1, 9, dtype=np.float32)
    start = normal([4, 3])

    @jax.jit
    def step(x, now, then):
        x0 = in_x_t(schedule, now, x)
        eps = diffusion.eps_from_x0(x, x0, schedule.alpha(now), schedule.sigma(now))
        return diffusion.add_noise(x0, eps, schedule.alpha(then), schedule.sigma(then))

    x = functools.reduce(lambda x, at: step(x, *at), itertools.pairwise(t), start)
    y, _ = solve(any_network, start / schedule.alpha(t[0]), schedule.level(t))
    np.testing.assert_allclose(schedule.alpha(t[-1]) * y, x, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_dpmpp_2m_is_the_algorithm_of_the_paper(schedule):
    t = np.linspace(0.9, 0.1, 9, dtype=np.float32)
    log_ratio = np.log(schedule.alpha(t) / schedule.sigma(t))
    h = np.diff(log_ratio)
    x = start = normal([4, 3])
    network = jax.jit(functools.partial(in_x_t, schedule))
    before = None
    for i in range(8):
        x0 = np.asarray(network(t[i], x))
        r = h[i - 1] / h[i]
        mixed = x0 if before is None else (1 + 1 / (2 * r)) * x0 - 1 / (2 * r) * before
        shrunk = schedule.sigma(t[i + 1]) / schedule.sigma(t[i]) * x
        x = shrunk - schedule.alpha(t[i + 1]) * np.expm1(-h[i]) * mixed
        before = x0
    y, _ = solve(any_network, start / schedule.alpha(t[0]), schedule.level(t), method="dpmpp_2m")
    np.testing.assert_allclose(schedule.alpha(t[-1]) * y, x, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_variance_preserving_network_of_eps_samples_too(schedule):
    def network(x_t, t):
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        return x_t * sigma / (alpha**2 * STD**2 + sigma**2)

    def denoise(y, level, carry):
        alpha, sigma = diffusion.preserving_scales(level)
        eps = network(alpha * y, schedule.time(level))
        return diffusion.x0_from_eps(alpha * y, eps, alpha, sigma), carry

    levels = diffusion.uniform_levels(schedule, 100)
    y, _ = solve(denoise, levels[:1], levels, method="dpmpp_2m")
    # The noise that is one standard deviation ends as data that are.
    assert float(y[0]) == pytest.approx(STD, rel=0.02)


@pytest.mark.parametrize("step", [2, 300, 1000])
def test_ancestral_has_the_posterior_of_ddpm(step):
    schedule = diffusion.DDPM()
    before, now = schedule.alphas_cumprod[[step - 1, step]]
    beta = 1 - now / before
    x, x0 = 0.7, -0.4
    mean = beta * before**0.5 / (1 - now) * x0 + (1 - before) * (1 - beta) ** 0.5 / (1 - now) * x
    std = np.sqrt(beta * (1 - before) / (1 - now))
    y, _ = solve(
        lambda y, level, carry: (jnp.full_like(y, x0), carry),
        jnp.full([50_000], x / now**0.5),
        schedule.level(np.array([step, step - 1]) / 1000),
        method="ancestral",
        rng=jax.random.key(step),
    )
    found = np.asarray(y, float) * before**0.5
    assert abs(found.mean() - mean) < 5 * std / np.sqrt(len(found))
    assert found.std() == pytest.approx(std, rel=0.02)


def test_heun_is_the_algorithm_of_the_paper():
    levels = karras_levels(6, 0.1, 10.0)
    y = start = normal([4, 3]) * 10
    network = jax.jit(lambda y, level: any_network(y, level, None)[0])
    for now, then in itertools.pairwise(levels):
        slope = (y - network(y, now)) / now
        ahead = y + (then - now) * slope
        if then > 0:
            slope = (slope + (ahead - network(ahead, then)) / then) / 2
        y = y + (then - now) * slope
    found, _ = solve(any_network, start, levels, method="heun")
    np.testing.assert_allclose(found, y, rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------------------------- carry and hooks


def keep_log(y, level, carry):
    """Writes the level, and the first number of y, of each evaluation into the carry."""
    count, log = carry
    return any_network(y, level, None)[0], (count + 1, log.at[count].set([level, y[0, 0]]))


def logged(levels, **options):
    carry = (0, np.zeros([2 * len(levels), 2], np.float32))
    ones = np.ones([2, 3], np.float32)
    y, (count, log) = jax.device_get(solve(keep_log, ones, levels, carry, **options))
    return y, log[:count]


@pytest.mark.parametrize("to_zero", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_carry_goes_through_all_evaluations(method, to_zero):
    levels = karras_levels(5, 0.1, 10.0, to_zero=to_zero)
    _, log = logged(levels, method=method, rng=jax.random.key(0))
    expected = levels[:-1]
    if method == "heun":
        expected = np.stack([levels[:-1], levels[1:]], axis=1).ravel()
        expected = expected[expected > 0]
    np.testing.assert_array_equal(log[:, 0], expected)
    assert len(log) == diffusion.evaluations(method, 5, to_zero=to_zero)


@pytest.mark.parametrize("method", ["euler", "dpmpp_2m", "ancestral"])
def test_project_comes_first_and_after_each_step(method):
    def project(y, level):
        return y.at[0, 0].set(100 + level)

    levels = karras_levels(5, 0.1, 10.0)
    y, log = logged(levels, method=method, rng=jax.random.key(0), project=project)
    np.testing.assert_allclose(log[:, 1], 100 + levels[:-1])
    assert y[0, 0] == 100
    assert np.all(np.abs(y[1]) < 2)


@pytest.mark.parametrize("method", METHODS)
def test_the_step_to_0_ends_at_the_estimate(method):
    estimate = normal([4, 3])
    for levels in ([5.0, 0.0], [5.0, 2.0, 0.0]):
        y, carry = solve(
            lambda y, level, carry: (estimate, level),
            np.full([4, 3], 5.0, np.float32),
            levels,
            jnp.float32(0),
            method=method,
            rng=jax.random.key(0),
        )
        np.testing.assert_array_equal(y, estimate)
        assert carry == levels[-2]


@pytest.mark.parametrize("method", ["euler", "heun"])
def test_no_churn_is_churn_of_amount_0_or_of_other_levels(method):
    levels, rng = karras_levels(5, 0.1, 10.0), jax.random.key(0)
    plain, _ = logged(levels, method=method)
    for none in (Churn(0.0), Churn(9.0, low=11.0), Churn(9.0, high=0.05)):
        same, _ = logged(levels, method=method, churn=none, rng=rng)
        # Another program, which may round otherwise: a few ulps of float32.
        np.testing.assert_allclose(same, plain, rtol=1e-6, atol=1e-6)
    other, log = logged(levels, method=method, churn=Churn(1.0, low=0.5), rng=rng)
    assert np.abs(other - plain).max() > 1e-3
    raised = np.where(levels[:-1] >= 0.5, 1.2 * levels[:-1], levels[:-1])
    np.testing.assert_allclose(np.setdiff1d(log[:, 0], levels), raised[raised > 0.5][::-1], 1e-6)


def test_churn_adds_the_variance_of_its_level_and_no_more_than_sqrt_2():
    seen = solve(
        lambda y, level, carry: (y, (y, level)),
        jnp.zeros([50_000]),
        [3.0, 2.0],
        (jnp.zeros([50_000]), jnp.float32(0)),
        churn=Churn(80.0, noise=1.1),
        rng=jax.random.key(0),
    )[1]
    assert float(seen[1]) == pytest.approx(3 * np.sqrt(2))
    assert float(seen[0].std()) == pytest.approx(1.1 * 3, rel=0.02)


@pytest.mark.parametrize("method", METHODS)
def test_one_program_serves_all_levels_of_a_length(method):
    traces = []

    def denoise(y, level, carry):
        traces.append(level)
        return any_network(y, level, carry)

    run = jax.jit(functools.partial(solve, denoise, method=method, rng=jax.random.key(0)))
    y = jnp.ones([2, 3])
    first, _ = run(y, karras_levels(40, 0.1, 10.0))
    assert len(traces) == (2 if method == "heun" else 1)
    second, _ = run(y, karras_levels(40, 0.2, 20.0))
    assert len(traces) == (2 if method == "heun" else 1)
    assert not np.allclose(first, second)


def test_state_is_float32_whatever_the_network_computes_in():
    def denoise(y, level, carry):
        return any_network(y, level, carry)[0].astype(jnp.bfloat16), carry

    for method in METHODS:
        start = jnp.ones([2], jnp.bfloat16)
        y, _ = solve(denoise, start, [2.0, 1.0, 0.0], method=method, rng=jax.random.key(0))
        assert y.dtype == jnp.float32


@pytest.mark.parametrize("method", METHODS)
def test_gradients_are_finite(method):
    def total(y):
        return solve(gaussian, y, [2.0, 1.0, 0.0], method=method, rng=jax.random.key(0))[0].sum()

    assert np.all(np.isfinite(jax.jit(jax.grad(total))(np.ones([2], np.float32))))


# --------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "heum"}, "did you mean 'heun'.*euler, heun, dpmpp_2m, ancestral"),
        ({"method": "?"}, r"unknown method '\?'\. Known: euler"),
        ({"churn": Churn(1.0)}, "churn draws noise: give rng"),
        ({"method": "ancestral"}, "'ancestral' draws noise: give rng"),
        ({"method": "dpmpp_2m", "churn": Churn(1.0)}, "no churn: use euler or heun"),
        ({"levels": [1.0]}, r"shape \(1,\); expected \[steps \+ 1\]"),
        ({"levels": [1.0, 1.0, 0.0]}, "strictly decrease"),
        ({"levels": [1.0, 0.0, -1.0]}, "strictly decrease"),
        ({"levels": [2.0, np.nan, 0.0]}, "strictly decrease"),
        ({"denoise": lambda y, level, carry: (y[:1], carry)}, r"shape \(1,\); expected .* \(2,\)"),
    ],
)
def test_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        solve(**{"denoise": gaussian, "y": jnp.ones([2]), "levels": [2.0, 0.0]} | options)


def test_evaluations_refuses_unknown_methods():
    with pytest.raises(ValueError, match="did you mean 'euler'"):
        diffusion.evaluations("eular", 3)
