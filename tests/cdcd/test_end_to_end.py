"""Models that are trained: samples like the data, gaps that are filled in, runs that go on."""

import functools
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from cdcd.models import CDCDModel
from cdcd.sampler import Rows, rows_from_nothing
from cdcd.warping import Warping, evenly, initial_params, time_to_noise
from t5x import checkpoints, train
from tests.cdcd.tiny import (
    AFTER,
    FIRST,
    as_batch,
    bigram_divergence,
    clear_gin,
    markov_rows,
    tiny_model,
)

LENGTH, STEPS = 6, 250
KEY = jax.random.key(0)


def model_of(num_layers):
    sizes = {"width": 32, "num_layers": num_layers, "mlp_dim": 64, "num_fourier": 16}
    warping = Warping(num_bins=50, min_size=1e-4)
    return tiny_model({**sizes, "time_width": 16}, warping=warping)


SMALL, LARGE = model_of(1), model_of(2)


@functools.partial(jax.jit, static_argnums=0)
def start(model):
    variables = model.get_initial_variables(KEY, {"decoder_target_tokens": (2, LENGTH)})
    return model.optimizer_def.create(variables["params"]), {"warp_ema": variables["warp_ema"]}


@functools.partial(jax.jit, static_argnums=0)
def go_on(model, optimizer, mutables, rows, rates):
    """A step for each of rows [S, B, L] with learning rates [S]."""

    def step(state, xs):
        optimizer, mutables = state
        tokens, rate = xs

        def loss(params):
            key = jax.random.fold_in(KEY, optimizer.state.step)
            value, (_, new) = model.loss_fn(params, as_batch(tokens), key, mutables)
            return value, new

        grads, mutables = jax.grad(loss, has_aux=True)(optimizer.target)
        return (optimizer.apply_gradient(grads, learning_rate=rate), mutables), None

    return jax.lax.scan(step, (optimizer, mutables), (rows, rates))[0]


def trained(model, rows, rounds, batch_size):
    """(parameters, mutables) after `rounds` times 250 steps."""
    rates = 0.005 * np.minimum(1, (1 + np.arange(rounds * STEPS)) / 50)
    rates *= (1 + np.cos(np.pi * np.arange(rounds * STEPS) / (rounds * STEPS))) / 2
    rows = rows.reshape(rounds, STEPS, batch_size, LENGTH)
    optimizer, mutables = start(model)
    for part, of_part in zip(rows, rates.reshape(rounds, STEPS)):
        optimizer, mutables = go_on(model, optimizer, mutables, part, of_part)
    return optimizer.target, mutables


def ring_rows(seed, count):
    """Rows that count round in a ring: any given token tells all others."""
    first = np.random.default_rng(seed).integers(0, 3, (count, 1))
    return (3 + (first + np.arange(LENGTH)) % 3).astype(np.int32)


@pytest.fixture(scope="module")
def ring():
    """Trained on rings."""
    return trained(SMALL, ring_rows(0, 3 * STEPS * 32), 3, 32)


@pytest.fixture(scope="module")
def chain():
    """Trained on a Markov chain."""
    return trained(LARGE, markov_rows(0, 8 * STEPS * 64, LENGTH), 8, 64)


def test_at_first_every_token_is_as_likely_and_the_warp_is_even():
    optimizer, mutables = start(SMALL)
    params = optimizer.target
    assert not any(np.any(x) for x in jax.tree.leaves(params["trunk"]["logits"]))
    assert np.std(params["token_embed"]["embedding"]) == pytest.approx(1e-3, rel=0.3)
    for curves in (params["warp"], mutables["warp_ema"]):
        jax.tree.map(np.testing.assert_array_equal, curves, initial_params(50))


def test_samples_and_gaps_follow_a_rule_that_was_learnt(ring):
    truth = ring_rows(1, 400)
    noisy = np.broadcast_to(np.arange(LENGTH) < 4, truth.shape)
    noisy = np.random.default_rng(0).permuted(noisy, axis=1)

    def made(rows, params, mutables):
        distribution = SMALL.distribution(params, mutables)
        return np.asarray(SMALL.make(params, rows, KEY, distribution, steps=16))

    assert (made(Rows(truth, noisy), *ring) == truth)[noisy].mean() > 0.8
    optimizer, mutables = start(SMALL)
    assert (made(Rows(truth, noisy), optimizer.target, mutables) == truth)[noisy].mean() < 0.5
    from_nothing = made(rows_from_nothing(400, LENGTH), *ring)
    assert np.mean(np.diff(from_nothing) % 3 == 1) > 0.6
    assert min(np.bincount(from_nothing[:, 0], minlength=6)[3:]) > 20


@pytest.mark.slow
def test_samples_have_the_bigrams_of_the_data(chain):
    params, mutables = chain
    make = functools.partial(LARGE.make, rows=rows_from_nothing(3000, LENGTH), rng=KEY, steps=32)
    divergence = bigram_divergence(make(params, distribution=LARGE.distribution(params, mutables)))
    assert divergence < 0.05
    assert 10 * divergence < bigram_divergence(make(start(LARGE)[0].target))
    pairs = FIRST[:, None] * AFTER
    assert 8 * divergence < scipy.stats.entropy(np.outer(FIRST, FIRST).ravel(), pairs.ravel())


class AtOneTime(CDCDModel):
    """Every row at the noise level of one place of the distribution."""

    def draw(self, rng, shape, distribution):
        t = time_to_noise(distribution.inverse(self.place), self.noise)
        return super().draw(rng, shape, distribution)._replace(t=jnp.full(shape[0], t))


def straightness_of(trained_model, params, rows):
    """A function from mutables to the share of the loss that a straight line along places has."""
    model = AtOneTime(trained_model.module, None, None, trained_model.noise, trained_model.warping)
    places = np.linspace(0.01, 0.99, 15)

    @jax.jit
    def nats(mutables):
        def at(place):
            model.place = place
            metrics = model.loss_fn(params, as_batch(rows), KEY, mutables)[1][0]
            return metrics["noisy_nats_per_token"].compute()

        return jax.lax.map(at, places)

    return lambda mutables: np.corrcoef(places, nats(mutables))[0, 1] ** 2


def unwarped(mutables):
    return {"warp_ema": {name: np.zeros_like(x) for name, x in mutables["warp_ema"].items()}}


def test_the_loss_grows_evenly_along_what_is_drawn(ring):
    params, mutables = ring
    straightness = straightness_of(SMALL, params, ring_rows(1, 1000))
    assert straightness(mutables) > 0.85
    even = unwarped(mutables)
    np.testing.assert_allclose(SMALL.distribution(params, even)(0.3), evenly()(0.3), atol=1e-5)
    assert straightness(even) < 0.7


@pytest.mark.slow
def test_the_loss_grows_the_more_evenly_the_longer_the_warp_is_fit(chain):
    params, mutables = chain
    straightness = straightness_of(LARGE, params, markov_rows(1, 2000, LENGTH))
    assert straightness(mutables) > 0.99
    assert straightness(unwarped(mutables)) < 0.7


@pytest.mark.slow
def test_gaps_are_filled_in_nearly_always():
    rows = ring_rows(0, 2 * STEPS * 64)
    params, mutables = trained(LARGE, rows, 2, 64)
    truth = rows[:1000]
    noisy = np.broadcast_to(np.arange(LENGTH) < 4, truth.shape)
    noisy = np.random.default_rng(0).permuted(noisy, axis=1)
    distribution = LARGE.distribution(params, mutables)
    made = LARGE.make(params, Rows(truth, noisy), KEY, distribution, steps=32)
    assert (np.asarray(made) == truth)[noisy].mean() > 0.95


# --------------------------------------------------------------------------------- whole runs


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A function that trains on letters, and returns all that a checkpoint has."""
    monkeypatch.setenv("MUSAX_CACHE_DIR", str(tmp_path / "cache"))
    for split in ("train", "validation"):
        (tmp_path / "data" / split).mkdir(parents=True)
        text = "it was the best of times it was the worst of times " * 40
        (tmp_path / "data" / split / "a.txt").write_text(text)
    sizes = ["WIDTH=16", "EMBED_DIM=8", "LAYERS=1", "HEADS=2", "MLP_DIM=24", "LENGTH=16"]
    sizes += ["BATCH_SIZE=4", "TRAIN_STEPS=6", "TASK_FEATURE_LENGTHS={'targets': 16}"]
    sizes += ["EVAL_STEPS=1", "DROPOUT=0.1", "AVERAGE_DECAY=0.9"]

    def train_for(name, evaluate_every=0):
        flags = [f"DATA_DIR={tmp_path / 'data'}", f"MODEL_DIR={tmp_path / name}", *sizes]
        flags += ["SAVE_PERIOD=3", "utils.SaveCheckpointConfig.keep=2"]
        flags.append(f"EVAL_PERIOD={evaluate_every}")
        flags = [f"--gin.{flag}" for flag in flags]
        assert train.main(["--gin_file=configs/cdcd/letters.gin", *flags]) == 0
        return checkpoints.load_state(tmp_path / name)

    yield train_for
    clear_gin()


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on_bit_for_bit(run, tmp_path):
    whole = run("whole", evaluate_every=3)
    assert whole["state"]["step"] == 6
    shutil.copytree(tmp_path / "whole", tmp_path / "killed")
    shutil.rmtree(tmp_path / "killed" / "checkpoint_6")
    half = checkpoints.load_state(tmp_path / "killed")
    averages = [state["flax_mutables"]["warp_ema"]["lu"] for state in (half, whole)]
    assert np.any(averages[0] != averages[1])
    jax.tree.map(np.testing.assert_array_equal, run("killed"), whole)
