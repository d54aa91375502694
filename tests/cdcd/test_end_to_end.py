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
MODEL = tiny_model(
    {"width": 32, "num_layers": 2, "mlp_dim": 64, "num_fourier": 16, "time_width": 16},
    warping=Warping(num_bins=50, min_size=1e-4),
)


@jax.jit
def start():
    variables = MODEL.get_initial_variables(KEY, {"decoder_target_tokens": (2, LENGTH)})
    return MODEL.optimizer_def.create(variables["params"]), {"warp_ema": variables["warp_ema"]}


@jax.jit
def go_on(optimizer, mutables, rows, rates):
    """A step for each of rows [S, B, L] with learning rates [S]."""

    def step(state, xs):
        optimizer, mutables = state
        tokens, rate = xs

        def loss(params):
            key = jax.random.fold_in(KEY, optimizer.state.step)
            value, (_, new) = MODEL.loss_fn(params, as_batch(tokens), key, mutables)
            return value, new

        grads, mutables = jax.grad(loss, has_aux=True)(optimizer.target)
        return (optimizer.apply_gradient(grads, learning_rate=rate), mutables), None

    return jax.lax.scan(step, (optimizer, mutables), (rows, rates))[0]


def trained(rows, rounds):
    """(parameters, mutables) after `rounds` times 250 steps of 64 rows."""
    rates = 0.005 * np.minimum(1, (1 + np.arange(rounds * STEPS)) / 50)
    rates *= (1 + np.cos(np.pi * np.arange(rounds * STEPS) / (rounds * STEPS))) / 2
    rows = rows.reshape(rounds, STEPS, 64, LENGTH)
    optimizer, mutables = start()
    for part, of_part in zip(rows, rates.reshape(rounds, STEPS)):
        optimizer, mutables = go_on(optimizer, mutables, part, of_part)
    return optimizer.target, mutables


@pytest.fixture(scope="module")
def chain():
    """Trained on a Markov chain."""
    return trained(markov_rows(0, 8 * STEPS * 64, LENGTH), 8)


def test_at_first_every_token_is_as_likely_and_the_warp_is_even():
    optimizer, mutables = start()
    params = optimizer.target
    assert not any(np.any(x) for x in jax.tree.leaves(params["trunk"]["logits"]))
    assert np.std(params["token_embed"]["embedding"]) == pytest.approx(1e-3, rel=0.3)
    for curves in (params["warp"], mutables["warp_ema"]):
        jax.tree.map(np.testing.assert_array_equal, curves, initial_params(50))


def test_samples_have_the_bigrams_of_the_data(chain):
    params, mutables = chain
    make = functools.partial(MODEL.make, rows=rows_from_nothing(3000, LENGTH), rng=KEY, steps=32)
    divergence = bigram_divergence(make(params, distribution=MODEL.distribution(params, mutables)))
    assert divergence < 0.05
    assert 10 * divergence < bigram_divergence(make(start()[0].target))
    pairs = FIRST[:, None] * AFTER
    assert 8 * divergence < scipy.stats.entropy(np.outer(FIRST, FIRST).ravel(), pairs.ravel())


class AtOneTime(CDCDModel):
    """Every row at the noise level of one place of the distribution."""

    def draw(self, rng, shape, distribution):
        t = time_to_noise(distribution.inverse(self.place), self.noise)
        return super().draw(rng, shape, distribution)._replace(t=jnp.full(shape[0], t))


def test_the_loss_grows_evenly_along_what_is_drawn(chain):
    params, mutables = chain
    model = AtOneTime(MODEL.module, None, None, MODEL.noise, MODEL.warping)
    batch = as_batch(markov_rows(1, 2000, LENGTH))

    @jax.jit
    def nats(place, mutables):
        model.place = place
        return model.loss_fn(params, batch, KEY, mutables)[1][0]["noisy_nats_per_token"].compute()

    def straightness(mutables):
        places = np.linspace(0.01, 0.99, 15)
        return np.corrcoef(places, [nats(place, mutables) for place in places])[0, 1] ** 2

    assert straightness(mutables) > 0.99
    even = {"warp_ema": {name: 0 * x for name, x in mutables["warp_ema"].items()}}
    np.testing.assert_allclose(MODEL.distribution(params, even)(0.3), evenly()(0.3), atol=1e-5)
    assert straightness(even) < 0.7


@pytest.mark.slow
def test_gaps_are_filled_in_by_a_rule_that_was_learnt():
    """Rows that count round in a ring: any given token tells all others."""
    rng = np.random.default_rng(0)
    rows = 3 + (rng.integers(0, 3, (STEPS * 64 * 2, 1)) + np.arange(LENGTH)) % 3
    params, mutables = trained(rows[: 2 * STEPS * 64], 2)
    truth = jnp.asarray(rows[:1000], jnp.int32)
    noisy = jnp.broadcast_to(jnp.arange(LENGTH) < 4, truth.shape)
    noisy = jax.random.permutation(KEY, noisy, axis=1, independent=True)
    distribution = MODEL.distribution(params, mutables)
    made = MODEL.make(params, Rows(truth, noisy), KEY, distribution, steps=32)
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
