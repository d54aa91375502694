"""The networks: what they see and what not, and that options do not change what they compute."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from cdcd.config import DenoiserConfig, NoiseRange
from cdcd.network import Denoiser, TokenNetwork, TokenTable
from t5x.checkpoints import scan_params
from tests.cdcd.tiny import params_of, tiny_config, tiny_model
from tests.t5x.networks import random_params

ROWS, LENGTH, WIDTH = 3, 5, 8
NOISY = jnp.array([[1, 0, 1, 1, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 1]], bool)


def inputs(seed=0, t=2.0):
    """Arguments of a denoiser by name."""
    given, noise, previous = np.random.default_rng(seed).normal(size=(3, ROWS, LENGTH, WIDTH))
    x = given + t * noise
    found = {"x": x, "given": given, "previous": previous}
    found = {name: jnp.asarray(value, jnp.float32) for name, value in found.items()}
    return {**found, "noisy": NOISY, "t": jnp.full(ROWS, t)}


def run(config, params, arguments):
    return np.asarray(_run(config, params, arguments))


@jax.jit(static_argnums=0)
def _run(config, params, arguments):
    return Denoiser(config).apply({"params": params}, **arguments)


@pytest.fixture(scope="module")
def params():
    return params_of(tiny_model())


# -------------------------------------------------------------------------------- embeddings


@pytest.mark.parametrize("scale", [1e-3, 7.0])
def test_embeddings_have_the_norm_of_noise_and_a_direction_alone(scale):
    raw = np.random.default_rng(0).normal(size=(11, 256)).astype(np.float32)
    table = TokenTable(11, 256).apply({"params": {"embedding": scale * raw}})
    np.testing.assert_allclose(np.linalg.norm(table, axis=1), 16.0, rtol=1e-5)
    expected = 16 * raw / np.linalg.norm(raw, axis=1, keepdims=True)
    np.testing.assert_allclose(table, expected, rtol=1e-4, atol=1e-5)


def test_longer_parameters_of_embeddings_change_nothing(params):
    longer = {**params, "token_embed": jax.tree.map(lambda x: 7 * x, params["token_embed"])}
    config = tiny_config(output_prior=True)
    found, expected = (run(config, p, inputs()) for p in (longer, params))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


# ------------------------------------------------------------------------- what denoisers see


@jax.jit
def entering(x, noisy, t):
    """What the network of a width of 64 makes of embeddings, given ones and estimates alike."""
    seen = []

    def keep(call, args, kwargs, context):
        if context.module.name == "in_proj":
            seen.append(args[0])
        return call(*args, **kwargs)

    with nn.intercept_methods(keep):
        module = Denoiser(tiny_config(embed_dim=64))
        module.init(jax.random.key(0), x, x, x, noisy, t)
    return seen[0][0]


@pytest.mark.parametrize("t", [1.0, 10.0, 300.0])
def test_what_enters_has_variance_1(t):
    """Of normalised embeddings, with noise of any level, where a position is noisy."""
    rng = np.random.default_rng(0)
    clean = rng.normal(size=(64, 64))
    clean *= 8 / np.linalg.norm(clean, axis=-1, keepdims=True)
    x = (clean + t * rng.normal(size=clean.shape)).astype(np.float32)
    noisy = np.arange(64) % 2 == 0
    entered = np.asarray(entering(x[None], noisy[None], jnp.array([t])))
    noise, given, previous = np.split(entered[:, :-1], 3, axis=1)
    assert noise[noisy].var() == pytest.approx(1.0, abs=0.06)
    assert not noise[~noisy].any()
    np.testing.assert_array_equal(given, np.where(noisy[:, None], 0, x))
    np.testing.assert_array_equal(previous, np.where(noisy[:, None], x, 0))
    np.testing.assert_array_equal(entered[:, -1], noisy)


def test_noise_is_read_where_it_is_and_clean_embeddings_where_they_are(params):
    plain = inputs()
    expected = run(tiny_config(), params, plain)
    for name, unread in (("x", ~NOISY), ("previous", ~NOISY), ("given", NOISY)):
        other = jnp.where(unread[..., None], 1e3, plain[name])
        found = run(tiny_config(), params, {**plain, name: other})
        np.testing.assert_array_equal(found, expected)
        found = run(tiny_config(), params, {**plain, name: 2 * plain[name]})
        assert np.abs(found - expected).max() > 1e-3


def test_the_level_of_noise_is_known(params):
    plain = inputs()
    silent = {**plain, "x": jnp.zeros_like(plain["x"])}
    levels = [run(tiny_config(), params, {**silent, "t": jnp.full(ROWS, t)}) for t in (1.0, 3.0)]
    assert np.abs(levels[0] - levels[1]).max() > 1e-3


def test_positions_that_are_not_there_are_not_seen(params):
    valid = jnp.arange(LENGTH) < 3
    plain = {**inputs(), "valid": jnp.broadcast_to(valid, NOISY.shape)}
    other = {name: jnp.where(valid[:, None], plain[name], 9.0) for name in ("x", "given")}
    found = run(tiny_config(), params, {**plain, **other})
    np.testing.assert_allclose(found[:, :3], run(tiny_config(), params, plain)[:, :3], rtol=1e-5)


def test_all_see_each_other_and_only_differences_of_positions_matter(params):
    """Rows moved by two places, behind places that are not there, are what they were."""
    plain = inputs()
    expected = run(tiny_config(), params, plain)
    changed = {**plain, "x": plain["x"].at[1, 4].add(1.0)}
    assert np.abs(run(tiny_config(), params, changed)[1, :4] - expected[1, :4]).min(axis=1).any()

    def moved(x):
        return jnp.pad(x, ((0, 0), (2, 0), (0, 0))[: x.ndim])

    arguments = {name: x if name == "t" else moved(x) for name, x in plain.items()}
    valid = moved(jnp.ones_like(NOISY))
    found = run(tiny_config(), params, {**arguments, "valid": valid})
    np.testing.assert_allclose(found[:, 2:], expected, rtol=1e-3, atol=1e-4)
    swapped = {name: x if name == "t" else x[:, ::-1] for name, x in plain.items()}
    found = run(tiny_config(), params, swapped)[:, ::-1]
    assert np.abs(found - expected).max() > 1e-2  # order does matter


def test_the_output_prior_is_the_posterior_of_tokens_by_themselves(params):
    config = tiny_config(output_prior=True)
    table = TokenTable(6, 8).apply({"params": params["token_embed"]})
    plain = inputs()
    added = run(config, params, plain) - run(tiny_config(), params, plain)
    squares = np.sum((np.asarray(plain["x"])[:, :, None] - table) ** 2, axis=-1)
    expected = jax.nn.log_softmax(-squares / (2 * 2.0**2))
    np.testing.assert_allclose(
        jax.nn.log_softmax(added)[NOISY], expected[NOISY], rtol=1e-3, atol=1e-3
    )
    assert not added[~NOISY].any()


# ------------------------------------------------------------------------------------ options


@functools.partial(jax.jit, static_argnums=0)
@functools.partial(jax.value_and_grad, argnums=1)
def loss_and_gradients(config, params):
    return jnp.mean(jnp.square(_run(config, params, inputs())))


@pytest.mark.slow
@pytest.mark.parametrize("scan", [False, True])
def test_one_program_for_all_layers_and_recomputation_change_no_gradients(scan):
    params = params_of(tiny_model({"num_layers": 2}))
    config = tiny_config(num_layers=2)
    expected, gradients = jax.device_get(loss_and_gradients(config, params))
    policy = "full" if scan else "minimal"
    changed = dataclasses.replace(config, scan_layers=scan, remat_policy=policy)
    if scan:
        params, gradients = scan_params(jax.device_get(params)), scan_params(gradients)
    loss, found = loss_and_gradients(changed, params)
    assert loss == pytest.approx(expected, rel=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), found, gradients
    )


def test_bfloat16_is_near_and_ends_in_float32(params):
    near, exact = (run(tiny_config(dtype=d), params, inputs()) for d in ("bfloat16", "float32"))
    assert near.dtype == np.float32
    assert 0 < np.abs(near - exact).max() < 0.1 * np.abs(exact).max()


def test_dropout_drops():
    config = tiny_config(dropout_rate=0.5)
    module, params = Denoiser(config), params_of(tiny_model())

    @jax.jit
    def logits(key):
        rngs = {"dropout": key}
        return module.apply({"params": params}, **inputs(), deterministic=False, rngs=rngs)

    a, b = (logits(jax.random.key(i)) for i in range(2))
    assert np.abs(a - b).max() > 1e-3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocab_size": 0}, "vocab_size=0: expected a positive number"),
        ({"num_layers": 0}, "num_layers=0"),
        ({"width": 18, "num_heads": 6}, "num_heads=6 does not divide width=18"),
        ({"dropout_rate": 1.0}, r"dropout_rate=1\.0: expected 0 or more, below 1"),
    ],
)
def test_sizes_that_do_not_fit_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        DenoiserConfig(**{"vocab_size": 6, **changes})


def test_noise_has_an_order():
    with pytest.raises(ValueError, match=r"low=2\.0 to high=1\.0: expected 0 < low < high"):
        NoiseRange(2.0, 1.0)


# ------------------------------------------------------------------------------------- tokens


def tokens_and_network(**options):
    """(int [1, 5], a function from tokens and which are valid to logits [5, V])."""
    module = TokenNetwork(tiny_config(), **options)
    tokens = jnp.array([[3, 4, 5, 3, 4]])
    shapes = jax.eval_shape(module.init, jax.random.key(0), tokens, tokens)["params"]
    params = random_params(shapes)
    return tokens, jax.jit(lambda x, valid: module.apply({"params": params}, x, valid)[0])


@pytest.mark.parametrize("causal", [True, False])
def test_causal_networks_see_only_what_is_before(causal):
    tokens, logits = tokens_and_network(causal=causal)
    everywhere = jnp.ones_like(tokens)
    difference = logits(tokens.at[0, 3].set(5), everywhere) - logits(tokens, everywhere)
    changed = np.abs(difference).max(axis=-1) > 1e-4
    assert changed.tolist() == [not causal] * 3 + [True, True]


def test_a_network_that_sees_all_does_not_see_padding():
    tokens, logits = tokens_and_network(causal=False, extra_inputs=1)
    valid = jnp.array([[1, 1, 1, 0, 1]])
    difference = np.abs(logits(tokens.at[0, 3].set(6), valid) - logits(tokens, valid))
    assert difference[3].max() > 1e-4  # 6 is the mask, of which there is an embedding
    assert np.delete(difference, 3, axis=0).max() < 1e-6
