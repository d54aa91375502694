"""The cost formula against counting by hand."""

import jax
import jax.numpy as jnp
import pytest

from t5x.examples.scalable_t5 import network as scalable_network
from t5x.examples.t5 import network
from t5x.training.flops import train_step_flops

B, T, L, V, E, H, D, M = 2, 7, 5, 32, 8, 2, 4, 16


@pytest.mark.parametrize("tied", [False, True])
def test_t5_counted_by_hand(tied):
    config = network.T5Config(
        V, emb_dim=E, num_heads=H, head_dim=D, mlp_dim=M, num_encoder_layers=3,
        num_decoder_layers=2, mlp_activations=("gelu", "linear"), logits_via_embedding=tied,
    )  # fmt: skip
    shapes = {
        "encoder_input_tokens": jax.ShapeDtypeStruct((B, T), jnp.int32),
        "decoder_input_tokens": jax.ShapeDtypeStruct((B, L), jnp.int32),
        "decoder_target_tokens": jax.ShapeDtypeStruct((B, L), jnp.int32),
    }
    init = network.Transformer(config).init
    keys = {"params": jax.random.PRNGKey(0), "dropout": jax.random.PRNGKey(0)}
    params = jax.eval_shape(init, keys, *shapes.values())["params"]
    attention, mlp, logits = E * H * D, 3 * E * M, E * V
    encoder = 3 * (4 * attention + mlp) * T
    decoder = 2 * ((4 + 2) * attention + mlp) * L + 2 * 2 * attention * T + logits * L
    pairs = 3 * T * T + 2 * (L * L + L * T)
    expected = 6 * B * (encoder + decoder) + 12 * B * H * D * pairs
    assert train_step_flops(params, config, shapes) == expected


def test_scanned_layers_cost_what_unscanned_ones_do():
    sizes = {"emb_dim": E, "num_heads": H, "head_dim": D, "mlp_dim": M, "num_encoder_layers": 3}
    shapes = {
        name: jax.ShapeDtypeStruct((B, length), jnp.int32)
        for name, length in (
            ("encoder_input_tokens", T), ("decoder_input_tokens", L), ("decoder_target_tokens", L),
        )
    }  # fmt: skip
    keys = {"params": jax.random.PRNGKey(0), "dropout": jax.random.PRNGKey(0)}
    costs = []
    for module in (network, scalable_network):
        config = module.T5Config(V, num_decoder_layers=2, **sizes)
        init = module.Transformer(config).init
        params = jax.eval_shape(init, keys, *shapes.values())["params"]
        costs.append(train_step_flops(params, config, shapes))
    assert costs[0] == costs[1] > 0


def test_other_models_have_no_formula():
    batch = {"decoder_input_tokens": jnp.zeros((B, L))}
    assert train_step_flops({}, None, batch) is None
    config = network.T5Config(V)
    audio = {**batch, "encoder_input_tokens": jnp.zeros((B, T, 80))}
    assert train_step_flops({}, config, audio) is None
