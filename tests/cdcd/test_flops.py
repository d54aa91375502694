"""The cost formula against XLA's count."""

import jax
import jax.numpy as jnp
import pytest

from cdcd.flops import train_step_flops
from cdcd.network import Denoiser, TokenNetwork
from tests.cdcd.tiny import tiny_config, tiny_model

ROWS, LENGTH = 2, 64
WIDE = {
    "embed_dim": 64,
    "width": 128,
    "mlp_dim": 256,
    "num_layers": 2,
    "vocab_size": 40,
    "time_width": 16,
}


def arguments(network):
    """Shapes of what a network is called with."""
    if isinstance(network, TokenNetwork):
        return [jax.ShapeDtypeStruct((ROWS, LENGTH), jnp.int32)] * 2
    x = jax.ShapeDtypeStruct((ROWS, LENGTH, network.config.embed_dim), jnp.float32)
    noisy = jax.ShapeDtypeStruct((ROWS, LENGTH), bool)
    return [x, x, x, noisy, jax.ShapeDtypeStruct((ROWS,), jnp.float32)]


def params_of(network):
    return jax.eval_shape(network.init, jax.random.key(0), *arguments(network))["params"]


@pytest.mark.parametrize("kind", [Denoiser, TokenNetwork])
def test_xla_counts_little_more(kind):
    """It also counts softmax, norms and rotations."""
    network = kind(tiny_config(**(WIDE | {"num_layers": 1})))
    params = params_of(network)

    def loss(params, *args):
        return jnp.square(network.apply({"params": params}, *args)).mean()

    gradient = jax.jit(jax.grad(loss))
    compiled = gradient.lower(params, *arguments(network)).compile()
    formula = train_step_flops(params, network.config, (ROWS, LENGTH))
    assert 0.95 < compiled.cost_analysis()["flops"] / formula < 1.35


def test_depth_in_one_program_costs_the_same():
    configs = [tiny_config(**WIDE, scan_layers=scan) for scan in (False, True)]
    costs = [train_step_flops(params_of(Denoiser(c)), c, (ROWS, LENGTH)) for c in configs]
    assert costs[0] == costs[1]


def test_the_estimate_before_costs_half_a_forward_pass_and_interpolation():
    batch = {"decoder_target_tokens": jax.ShapeDtypeStruct((ROWS, LENGTH), jnp.int32)}
    with_estimate, without = (tiny_model(WIDE, self_conditioning=s) for s in (True, False))
    params = params_of(with_estimate.module)
    plain = without.train_step_flops(params, batch)
    assert plain == train_step_flops(params, without.module.config, (ROWS, LENGTH))
    found = with_estimate.train_step_flops(params, batch)
    interpolation = 2 * 40 * 64 * ROWS * LENGTH
    assert found == pytest.approx(plain * 3.5 / 3 + interpolation / 2)
