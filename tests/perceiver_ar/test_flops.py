"""The cost formula against the published one and against XLA's count."""

import jax
import jax.numpy as jnp
import pytest

from perceiver_ar.config import PerceiverARConfig
from perceiver_ar.flops import train_step_flops
from perceiver_ar.models import PerceiverARModel
from perceiver_ar.network import PerceiverAR
from tests.perceiver_ar.reference import ABSOLUTE, random_tokens, tiny


def params_of(config):
    tokens = jnp.ones((1, config.z_index_dim), jnp.int32)
    return jax.eval_shape(PerceiverAR(config).init, jax.random.PRNGKey(0), tokens)["params"]


@pytest.mark.parametrize("layers", [1, 6])
@pytest.mark.parametrize("length", [2048, 131_072])
def test_a_layer_costs_28_and_cross_attention_8_for_1024_inputs_and_20(layers, length):
    """In units of 2^30 FLOPs of a forward pass, at 1,024 latents and channels."""
    config = PerceiverARConfig(8, max_context_length=length, num_transformers_per_block=layers)
    queries_and_logits = 2 * (1024 * 1024 + 1024 * 8) * 1024
    forward = (28 * layers + 8 * length / 1024 + 20) * 2**30 + queries_and_logits
    assert train_step_flops(params_of(config), config, 3, length) == 3 * 3 * forward


@pytest.mark.slow
@pytest.mark.parametrize("scan", [False, True])
def test_depth_in_one_program_costs_the_same(scan):
    config, _, _ = tiny(scan_layers=scan, num_transformers_per_block=3)
    plain, _, params = tiny(num_transformers_per_block=3)
    expected = train_step_flops(params, plain, 2, 24)
    assert train_step_flops(params_of(config), config, 2, 24) == expected


WIDE = {"input_embed_dim": 64, "num_z_channels": 64, "max_context_length": 512}


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"num_latents_per_position": 2},
        {"additional_cross_attend_after_layers": (0,), "cross_attend_shape_for_attn": "q"},
        {"initial_query_embed_style": "mlp", "z_index_dim": 48},
    ],
)
def test_xla_counts_little_more(changes):
    """XLA also counts softmax, norms and rotations."""
    config, network, params = tiny(**{**WIDE, "z_index_dim": 128, **changes})
    tokens = jax.ShapeDtypeStruct((2, 512), jnp.int32)

    def loss(params, tokens):
        return jnp.square(network.apply({"params": params}, tokens)).mean()

    compiled = jax.jit(jax.grad(loss)).lower(params, tokens).compile()
    counted = compiled.cost_analysis()["flops"]
    assert 1.0 < counted / train_step_flops(params, config, 2, 512) < 1.35


def test_the_trainer_is_told_and_a_subset_of_inputs_is_cheaper():
    config, network, params = tiny(**ABSOLUTE)
    batch = {"decoder_input_tokens": random_tokens([24, 9])}
    told = PerceiverARModel(network, None, None).train_step_flops(params, batch)
    assert told == train_step_flops(params, config, 2, 24)
    subset, _, params = tiny(**ABSOLUTE, train_input_positions=10)
    assert train_step_flops(params, subset, 2, 24) < told
