import jax
import jax.numpy as jnp
import numpy as np
import pytest

from drums import network as n
from tests.tiny_drum_model import random_variables

KEY = jax.random.key(0)


def noise(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def parameters(tree):
    return sum(x.size for x in jax.tree.leaves(tree))


def test_oaf_drums_has_the_references_parameters():
    variables = jax.eval_shape(n.OafDrums().init, KEY, jnp.zeros((1, 4, 250)))
    assert parameters(variables["params"]["onsets"]) == 690_984
    assert parameters(variables["params"]["velocity"]) == 537_896
    assert variables["params"]["onsets"]["fc_end"]["weights"].shape == (1984, 256)
    assert variables["params"]["onsets"]["lstm"]["fw"]["kernel"].shape == (320, 256)
    assert "gamma" not in variables["params"]["onsets"]["conv0"]["BatchNorm"]


def _lstm(x, kernel, bias):
    """TensorFlow's BasicLSTMCell, step by step."""

    def sigmoid(a):
        return 1 / (1 + np.exp(-a))

    units = kernel.shape[1] // 4
    cell = hidden = np.zeros((x.shape[0], units))
    states = []
    for t in range(x.shape[1]):
        gates = np.concatenate([x[:, t], hidden], axis=1) @ kernel + bias
        i, j, f, o = np.split(gates, 4, axis=1)
        cell = cell * sigmoid(f + 1.0) + sigmoid(i) * np.tanh(j)
        hidden = np.tanh(cell) * sigmoid(o)
        states.append(hidden)
    return np.stack(states, axis=1)


@pytest.mark.parametrize("reverse", [False, True])
def test_lstm_is_tensorflows(reverse):
    x = np.random.default_rng(0).normal(size=(2, 7, 5)).astype(np.float32)
    module = n.BasicLstm(3, reverse=reverse)
    shape = jax.eval_shape(module.init, KEY, x)["params"]["kernel"].shape
    kernel = np.random.default_rng(2).normal(0, 0.4, shape).astype(np.float32)
    bias = np.random.default_rng(1).normal(size=12)
    params = {"kernel": kernel, "bias": bias.astype(np.float32)}
    expected = _lstm(x[:, ::-1] if reverse else x, kernel, bias)
    expected = expected[:, ::-1] if reverse else expected
    found = jax.jit(module.apply)({"params": params}, x)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_batch_norm_learns_statistics_and_uses_them():
    x = np.random.default_rng(0).normal(5.0, [1.0, 2.0, 3.0], (64, 10, 3)).astype(np.float32)
    module = n.BatchNorm(decay=0.9)

    @jax.jit
    def run(x):
        variables = module.init(KEY, x, False)
        return variables, module.apply(variables, x, True, mutable=["batch_stats"])

    variables, (y, new) = jax.device_get(run(x))
    np.testing.assert_allclose(y.mean((0, 1)), 0.0, atol=1e-5)
    np.testing.assert_allclose(y.std((0, 1)), 1.0, atol=1e-2)
    np.testing.assert_allclose(new["batch_stats"]["moving_mean"], 0.1 * x.mean((0, 1)), rtol=1e-4)
    seen = {"params": variables["params"], "batch_stats": new["batch_stats"]}
    mean, var = (new["batch_stats"][k] for k in ("moving_mean", "moving_variance"))
    np.testing.assert_allclose(
        jax.jit(module.apply, static_argnums=2)(seen, x, False),
        (x - mean) / np.sqrt(var + 1e-3),
        rtol=1e-4,
        atol=1e-4,
    )


def test_pooling_is_max_pooling():
    from flax import linen as nn

    x = noise(2, 3, 9, 4)
    both = jax.jit(lambda x: (n.halve_bands(x), nn.max_pool(x, (1, 2), strides=(1, 2))))
    np.testing.assert_array_equal(*both(x))


@pytest.mark.parametrize(("output", "before"), [("onset_logits", 9), ("velocities", 9 + 2 * 8)])
def test_outputs_depend_on_the_context_they_say_and_no_more(output, before):
    config = n.DrumNetworkConfig(
        num_classes=3, channels=(4, 4), width=8, dilations=(1, 2, 4), history=(3, 5)
    )
    module = n.DrumNetwork(config)
    variables = random_variables(module)

    def middle(x):
        return module.apply(variables, x)[output][0, 30].sum()

    grad = np.asarray(jax.jit(jax.grad(middle))(noise(1, 60, 16)))
    touched = np.flatnonzero(np.abs(grad[0]).sum(axis=1))
    assert config.context_frames == (9 + 16, 9)
    assert 30 - before <= touched.min() < 30 - before + 4
    assert 30 + 5 < touched.max() <= 30 + 9


def test_output_ranges():
    module = n.DrumNetwork(n.DrumNetworkConfig(num_classes=5, channels=(4,), width=8))
    out = jax.jit(module.apply)(random_variables(module), 100 * noise(1, 20, 16))
    assert {k: v.shape for k, v in out.items()} == dict.fromkeys(
        ("onset_logits", "velocities", "offsets"), (1, 20, 5)
    )
    assert 0 <= out["velocities"].min() <= out["velocities"].max() <= 1
    assert np.abs(out["offsets"]).max() <= 1.5


def test_bfloat16_is_near():
    config = n.DrumNetworkConfig(num_classes=3, channels=(4, 4), width=8)
    x = noise(1, 30, 16)
    variables = random_variables(n.DrumNetwork(config))
    half = n.DrumNetworkConfig(num_classes=3, channels=(4, 4), width=8, dtype="bfloat16")
    a, b = (jax.jit(n.DrumNetwork(c).apply)(variables, x)["onset_logits"] for c in (config, half))
    assert b.dtype == jnp.float32
    np.testing.assert_allclose(a, b, rtol=0.03, atol=0.3)
