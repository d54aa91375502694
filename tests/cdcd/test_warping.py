"""The time warp: its curves, their fit, and the levels of samplers."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from cdcd import warping
from cdcd.config import NoiseRange
from cdcd.warping import Curve, Warping, evenly, noise_to_time, spaced_levels, time_to_noise
from musax.diffusion import low_discrepancy_uniform

NOISE = NoiseRange(1.0, 300.0)
PLAIN = Warping(num_bins=20)
GRID = np.linspace(0.0, 1.0, 1001, dtype=np.float32)
STEPS = 500


def random_params(seed, num_bins=20):
    lt, lu = np.random.default_rng(seed).normal(size=(2, num_bins)).astype(np.float32)
    return {"lt": lt, "lu": lu}


# Op by op, every operation would be a program.
distribution_of = jax.jit(lambda warp, params: warp.distribution(params), static_argnums=0)
loss_curve_of = jax.jit(lambda warp, params: warp.loss_curve(params), static_argnums=0)
at = jax.jit(Curve.__call__)
slope_at = jax.jit(Curve.slope)


# ------------------------------------------------------------------------------------- curves


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.floats(0.01, 100.0), st.floats(0.0, 1.0))
def test_a_distribution_rises_from_0_to_1_and_has_an_inverse(seed, temperature, uniformity):
    warp = Warping(num_bins=20, temperature=temperature, uniformity=uniformity)
    curve = warp.distribution(random_params(seed))
    found = np.asarray(at(curve, GRID))
    assert (found[0], found[-1]) == (0.0, 1.0)
    assert np.diff(found).min() > 0
    np.testing.assert_allclose(at(curve.inverse, found), GRID, atol=1e-4)
    np.testing.assert_allclose(at(curve, at(curve.inverse, GRID)), GRID, atol=1e-4)


def test_a_curve_is_interpolated_and_ends():
    curve = Curve(jnp.array([0.0, 0.5, 1.0]), jnp.array([0.0, 2.0, 3.0]))
    points = np.array([-1.0, 0.25, 0.5, 0.75, 2.0], np.float32)
    np.testing.assert_allclose(at(curve, points), [0.0, 1.0, 2.0, 2.5, 3.0])
    np.testing.assert_allclose(slope_at(curve, points), [4.0, 4.0, 2.0, 2.0, 2.0])


def test_slopes_are_derivatives():
    curve = distribution_of(PLAIN, random_params(0))
    fine = np.linspace(0.0, 1.0, 100_001, dtype=np.float32)
    slopes = np.asarray(slope_at(curve, fine))
    derivatives = jax.jit(jax.vmap(jax.grad(curve)))(fine)
    np.testing.assert_allclose(slopes[1:-1], derivatives[1:-1], rtol=1e-4)
    mass = np.mean(slopes)
    assert mass == pytest.approx(1.0, abs=1e-3)


def test_at_first_nothing_is_warped():
    params = warping.initial_params(20)
    for curve_of in (distribution_of, loss_curve_of):
        np.testing.assert_allclose(at(curve_of(PLAIN, params), GRID), GRID, atol=1e-6)


def test_the_loss_is_not_normalised_and_of_the_same_shape():
    params = random_params(1)
    warp = Warping(num_bins=20, min_size=0.0)
    whole = np.exp(params["lu"]).sum()
    losses = np.asarray(at(loss_curve_of(warp, params), GRID))
    np.testing.assert_allclose(losses[-1], whole, rtol=1e-6)
    np.testing.assert_allclose(losses / whole, at(warp.distribution(params), GRID), atol=1e-5)


def test_manipulations():
    params = random_params(2)

    def density(**options):
        curve = dataclasses.replace(PLAIN, **options).distribution(params)
        return np.asarray(slope_at(curve, GRID))

    plain = density()
    np.testing.assert_array_equal(density(temperature=1.0, uniformity=0.0), plain)
    for even in ({"uniformity": 1.0}, {"enabled": False}, {"temperature": 1e6}):
        np.testing.assert_allclose(density(**even), 1.0, rtol=1e-4)
    half = density(uniformity=0.5)
    np.testing.assert_allclose(half, (1 + plain) / 2, rtol=1e-4)
    warm = density(temperature=2.0)  # in proportion to the root of the density
    np.testing.assert_allclose(warm / warm[0], np.sqrt(plain / plain[0]), 1e-4)


def test_distributions_have_no_gradients_and_the_loss_has():
    for curve, moves in ((PLAIN.distribution, False), (PLAIN.loss_curve, True)):
        grads = jax.jit(jax.grad(lambda p, curve=curve: curve(p)(0.3)))(random_params(3))
        assert all((np.abs(g).max() > 0) == moves for g in grads.values())


def test_the_average_remembers():
    old, new = random_params(4), random_params(5)
    found = Warping(ema_decay=0.9).average(old, new)
    np.testing.assert_allclose(found["lu"], 0.9 * old["lu"] + 0.1 * new["lu"], rtol=1e-5)
    np.testing.assert_array_equal(Warping(ema_decay=0.0).average(old, new)["lt"], new["lt"])


@pytest.mark.parametrize(
    "options",
    [
        {"num_bins": 1},
        {"min_size": -0.1},
        {"ema_decay": 1.0},
        {"temperature": 0.0},
        {"uniformity": 1.5},
        {"beta": (1.0, 0.0)},
        {"beta": (1.0,)},
    ],
)
def test_options_out_of_range_are_named(options):
    (name,) = options
    with pytest.raises(ValueError, match=rf"warping: {name}=.*: expected"):
        Warping(**options)


# ------------------------------------------------------------------------------------- fitting


def loss_at(time):
    """A loss of 3 nats that rises around a noise of 20."""
    return 3 * jax.nn.sigmoid(2 * jnp.log(time_to_noise(time, NOISE) / 20))


@functools.partial(jax.jit, static_argnums=0)
def fit(warp, drawn_by=None, weighted=True):
    """Curves after fitting `loss_at`, at times drawn by a distribution, or by the curves."""
    rule = optax.adam(optax.cosine_decay_schedule(0.1, STEPS))

    def step(state, key):
        params, slots = state
        drawn = warp.distribution(params) if drawn_by is None else drawn_by
        time = drawn.inverse(low_discrepancy_uniform(key, 128))
        by = Curve(drawn.x, jnp.where(weighted, drawn.y, drawn.x))
        grads = jax.grad(lambda p: warp.fit_loss(p, time, loss_at(time), by))(params)
        updates, slots = rule.update(grads, slots)
        return (optax.apply_updates(params, updates), slots), None

    start = warping.initial_params(warp.num_bins)
    keys = jax.random.split(jax.random.key(0), STEPS)
    (params, _), _ = jax.lax.scan(step, (start, rule.init(start)), keys)
    return params


def error(warp, params, time=GRID):
    """Root of the mean square, nats."""
    return float(jnp.sqrt(jnp.mean(jnp.square(warp.loss_curve(params)(time) - loss_at(time)))))


@pytest.mark.slow
def test_a_loss_is_found_at_the_times_that_its_fit_draws():
    warp = Warping(num_bins=50)
    params = fit(warp)
    assert error(warp, warping.initial_params(50)) > 1.0
    assert error(warp, params) < 0.01 * 3
    # Then the loss grows evenly along what is drawn from, but for the least size of bins.
    losses = loss_at(warp.distribution(params).inverse(GRID))
    assert np.corrcoef(GRID, losses)[0, 1] ** 2 > 0.99
    assert np.corrcoef(GRID, loss_at(GRID))[0, 1] ** 2 < 0.5


def test_times_that_are_rarely_drawn_count_as_much_by_their_weights():
    warp = Warping(num_bins=2)
    biased = Curve(jnp.array([0.0, 0.1, 1.0]), jnp.array([0.0, 0.98, 1.0]))
    rare = jnp.linspace(0.1, 1.0, 500)
    with_weights, without = (error(warp, fit(warp, biased, w), rare) for w in (True, False))
    assert with_weights < 0.6 * without


@pytest.mark.slow
def test_a_loss_may_grow_as_a_beta_distribution():
    beta = (0.5, 1.0)
    warp = Warping(num_bins=50, min_size=1e-5, beta=beta)
    losses = loss_at(warp.distribution(fit(warp)).inverse(GRID)) / loss_at(1.0)
    assert np.abs(losses - scipy.stats.beta.cdf(GRID, *beta)).max() < 0.05
    assert np.abs(losses - GRID).max() > 0.15


def test_a_beta_distribution_whose_slope_is_infinite_at_its_ends_has_gradients_there():
    warp = Warping(num_bins=5, beta=(0.5, 0.5))
    params, time = random_params(6, 5), jnp.array([0.0, 1.0])
    grads = jax.jit(jax.grad(warp.fit_loss))(params, time, jnp.ones(2), evenly())
    assert np.isfinite(list(grads.values())).all()


def test_rows_without_a_loss_do_not_count_and_nothing_else_has_gradients():
    params, drawn = random_params(7), distribution_of(PLAIN, random_params(7))
    time, nats = np.array([[0.2, 0.6, 0.9], [1.0, 2.0, 0.0]], np.float32)

    @jax.jit
    def run(time, nats):
        counted = PLAIN.fit_loss(params, time, nats, drawn, jnp.array([True, True, False]))
        first = PLAIN.fit_loss(params, time[:2], nats[:2], drawn)
        return counted, first, jax.grad(PLAIN.fit_loss, argnums=(1, 2))(params, time, nats, drawn)

    counted, first, grads = run(time, nats)
    np.testing.assert_allclose(counted, first, rtol=1e-6)
    assert not np.any(grads)


# ------------------------------------------------------------------------------------- levels


levels_of = jax.jit(spaced_levels, static_argnums=(1, 2))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 100), st.sampled_from([1, 7, 50]), st.floats(0.5, 9.0), st.floats(0.05, 1.0))
def test_levels_fall_from_the_first_to_the_lowest(seed, steps, rho, share):
    start = time_to_noise(share, NOISE)
    curve = distribution_of(PLAIN, random_params(seed))
    levels = levels_of(curve, steps, NOISE, np.float32(rho), np.float32(start))
    assert levels.shape == (steps + 1,)
    assert np.diff(levels).max() < 0
    np.testing.assert_allclose([levels[0], levels[-1]], [start, NOISE.low], rtol=1e-3)


def test_levels_are_even_in_what_they_are_spaced_by():
    curve = distribution_of(PLAIN, random_params(8))
    even = levels_of(evenly(), 4, NOISE)
    np.testing.assert_allclose(even, [300.0, 225.25, 150.5, 75.75, 1.0], rtol=1e-5)
    warped = at(curve, noise_to_time(np.asarray(levels_of(curve, 4, NOISE)), NOISE))
    np.testing.assert_allclose(warped, [1.0, 0.75, 0.5, 0.25, 0.0], atol=1e-5)
    roots = np.asarray(levels_of(evenly(), 4, NOISE, 7.0)) ** (1 / 7)
    np.testing.assert_allclose(np.diff(roots), (1 - 300 ** (1 / 7)) / 4, rtol=1e-3)
