"""Networks on eight fake devices, cut in every way, learn what they learn on one."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

SCRIPT = """
import json, sys
import jax, jax.numpy as jnp, numpy as np
from flax.traverse_util import flatten_dict
from t5x import models, optimizers
from t5x.adafactor import Adafactor, standard_logical_factor_rules
from t5x.data import PassThroughVocabulary
from t5x.examples.decoder_only import network as decoder_only
from t5x.examples.scalable_t5 import network as scalable
from t5x.examples.t5 import network
from t5x.partitioning import PjitPartitioner, create_mesh, standard_logical_axis_rules
from t5x.checkpoints.loading import place
from t5x.restoring import TrainStateInitializer
from t5x.trainer import Trainer

sizes = dict(
    vocab_size=32, emb_dim=16, num_heads=8, head_dim=4, mlp_dim=32,
    mlp_activations=("gelu", "linear"), dropout_rate=0.0,
)
both = dict(num_encoder_layers=1, num_decoder_layers=1)
layers = dict(num_encoder_layers=2, num_decoder_layers=2)
vocabulary = PassThroughVocabulary(32)
optimizer = Adafactor(
    min_dim_size_to_factor=16, beta1=0.9, logical_factor_rules=standard_logical_factor_rules()
)
adamw = optimizers.adamw()  # its slots have the parameters' shapes

def encoder_decoder(module, rule):
    return models.EncoderDecoderModel(
        module, vocabulary, vocabulary, rule, loss_normalizing_factor="NUM_REAL_TARGET_TOKENS")

networks = {
    "t5": encoder_decoder(network.Transformer(network.T5Config(**sizes, **both)), optimizer),
    "scanned": encoder_decoder(
        scalable.Transformer(scalable.T5Config(**sizes, **layers)), optimizer),
    "decoder_only": models.DecoderOnlyModel(
        decoder_only.DecoderWrapper(decoder_only.TransformerConfig(**sizes, num_layers=2)),
        vocabulary, adamw, loss_normalizing_factor="NUM_REAL_TARGET_TOKENS"),
}
rng = np.random.default_rng(0)
tokens = {n: rng.integers(1, 32, (8, 6)).astype(np.int32) for n in (
    "encoder_input_tokens", "decoder_input_tokens", "decoder_target_tokens")}
batch = {**tokens, "decoder_loss_weights": rng.integers(2, size=(8, 6)).astype(np.int32)}

def train(partitioner, num_microbatches, name="t5"):
    model = networks[name]
    shapes = {n: x.shape for n, x in batch.items()}
    initializer = TrainStateInitializer(
        model.optimizer_def, model.get_initial_variables, shapes, partitioner,
        input_types=dict.fromkeys(shapes, jnp.int32))
    rng = np.random.default_rng(1)  # the same weights whatever the mesh
    structs = initializer.global_train_state_shape
    start = jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), structs.state_dict())
    start["target"] = jax.tree.map(lambda x: rng.normal(size=x.shape) * 0.2, start["target"])
    state = structs.restore_state(place(start, initializer.expected))
    trainer = Trainer(model, state, partitioner, rng=jax.random.PRNGKey(1),
                      learning_rate_fn=lambda step: jnp.float32(0.01),
                      num_microbatches=num_microbatches)
    losses = [trainer.train(iter([batch]), 1)["loss"] for _ in range(3)]
    flat = flatten_dict(trainer.train_state.state_dict(), sep="/")
    layout = {n: x.sharding.shard_shape(x.shape) for n, x in flat.items()}
    return {"losses": losses, "layout": layout, "arrays": {
        n: np.asarray(x, np.float64).ravel().tolist() for n, x in flat.items()}}

alone = PjitPartitioner(1)
alone.mesh = create_mesh(1, jax.devices()[:1])
results = {"alone": train(alone, 1)}
for parts, num_microbatches in ((1, 1), (2, 2), (4, 1), (8, 1)):
    results[parts] = train(PjitPartitioner(parts), num_microbatches)
    assert dict(PjitPartitioner(parts).mesh.shape) == {"data": 8 // parts, "model": parts}
results["2D"] = train(PjitPartitioner(4, logical_axis_rules=standard_logical_axis_rules(2, 2)), 1)
slices = PjitPartitioner(ici_mesh_shape=(1, 2, 2), dcn_mesh_shape=(2, 1, 1))
assert dict(slices.mesh.shape) == {"replica": 2, "data": 2, "model": 2}
assert {d.id for d in slices.mesh.devices[0].ravel()} == {0, 1, 2, 3}  # one slice
results["slices"] = train(slices, 2)
for name in ("scanned", "decoder_only"):
    results[name] = {"alone": train(alone, 1, name)}
    for parts in (1, 2, 4, 8):
        results[name][parts] = train(PjitPartitioner(parts), 1, name)
json.dump(results, open(sys.argv[1], "w"))
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Mesh -> losses, state and layout after three steps; "alone" is one device."""
    path = tmp_path_factory.mktemp("eight") / "results.json"
    # Optimized programs would take twice as long to compile, and a moment less to run.
    flags = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", SCRIPT, str(path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(path.read_text())


def assert_learns_alike(found, expected):
    np.testing.assert_allclose(found["losses"], expected["losses"], rtol=1e-5)
    assert found["losses"][2] < found["losses"][0]
    assert found["arrays"].keys() == expected["arrays"].keys()
    for name, array in found["arrays"].items():
        other = expected["arrays"][name]
        np.testing.assert_allclose(array, other, rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("parts", [1, 2, 4, 8, "2D", "slices"])
def test_eight_devices_equal_one(results, parts):
    assert_learns_alike(results[str(parts)], results["alone"])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["scanned", "decoder_only"])
@pytest.mark.parametrize("parts", [1, 2, 4, 8])
def test_other_networks_on_eight_devices_equal_one(results, name, parts):
    assert_learns_alike(results[name][str(parts)], results[name]["alone"])


@pytest.mark.slow
@pytest.mark.parametrize("parts", [1, 2, 4, 8])
def test_arrays_lie_where_the_rules_say(results, parts):
    layout = {name: tuple(shape) for name, shape in results[str(parts)]["layout"].items()}
    attention = "encoder/layers_0/attention"
    assert layout["target/token_embedder/embedding"] == (32 // parts, 16)
    assert layout[f"target/{attention}/query/kernel"] == (16, 32 // parts)
    assert layout[f"target/{attention}/out/kernel"] == (32 // parts, 16)
    assert layout["target/encoder/layers_0/mlp/wi_0/kernel"] == (16, 32 // parts)
    assert layout["target/encoder/layers_0/mlp/wo/kernel"] == (32 // parts, 16)
    assert layout["target/encoder/encoder_norm/scale"] == (16,)
    assert layout["target/encoder/relpos_bias/rel_embedding"] == (8 // parts, 32)
    slots = f"state/param_states/{attention}/query/kernel"
    assert layout[f"{slots}/m"] == (16, 32 // parts)
    assert {layout[f"{slots}/v_row"], layout[f"{slots}/v_col"]} == {(16,), (32,)}


@pytest.mark.slow
def test_two_dimensions_split_parameters_and_their_slots_over_data_too(results):
    layout = {name: tuple(shape) for name, shape in results["2D"]["layout"].items()}
    attention = "encoder/layers_0/attention/query/kernel"
    assert layout[f"target/{attention}"] == (16 // 2, 32 // 4)
    assert layout[f"state/param_states/{attention}/m"] == (16 // 2, 32 // 4)
    assert layout["target/token_embedder/embedding"] == (32 // 4, 16 // 2)
    assert layout["target/encoder/encoder_norm/scale"] == (16 // 4,)


@pytest.mark.slow
def test_slices_hold_whole_copies(results):
    layout = {name: tuple(shape) for name, shape in results["slices"]["layout"].items()}
    assert layout["target/encoder/layers_0/attention/query/kernel"] == (16, 32 // 2)


def layout_of(result):
    return {name: tuple(shape) for name, shape in result["layout"].items()}


@pytest.mark.slow
@pytest.mark.parametrize("parts", [1, 2, 4, 8])
def test_scanned_layers_lie_as_single_ones(results, parts):
    layout = layout_of(results["scanned"][str(parts)])
    query, wo = "encoder/encoder/attention/query/kernel", "decoder/decoder/mlp/wo/kernel"
    assert layout[f"target/{query}"] == (16, 2, 32 // parts)
    assert layout[f"target/{wo}"] == (32 // parts, 2, 16)
    assert layout["target/decoder/decoder/pre_mlp_layer_norm/scale"] == (16, 2)
    assert layout["target/decoder/decoder/relpos_bias/rel_embedding"] == (8 // parts, 2, 32)
    assert layout["target/token_embedder/embedding"] == (32 // parts, 16)
    assert layout[f"state/param_states/{query}/m"] == (16, 2, 32 // parts)
    assert layout[f"state/param_states/{query}/v"] == (1,)
    factors = [layout[f"state/param_states/{query}/{slot}"] for slot in ("v_row", "v_col")]
    assert factors == [(16, 2), (2, 32)]  # averages are whole everywhere
    norm = "state/param_states/decoder/decoder/pre_mlp_layer_norm/scale"
    assert layout[f"{norm}/v"] == (16, 2)


@pytest.mark.slow
@pytest.mark.parametrize("parts", [1, 2, 4, 8])
def test_slots_of_optax_lie_where_their_parameters_do(results, parts):
    layout = layout_of(results["decoder_only"][str(parts)])
    targets = {k.removeprefix("target/"): v for k, v in layout.items() if k[:7] == "target/"}
    assert targets["decoder/decoder/self_attention/out/kernel"] == (32 // parts, 2, 16)
    assert targets["decoder/logits_dense/kernel"] == (16, 32 // parts)
    slots = {k: v for k, v in layout.items() if "/mu/" in k or "/nu/" in k}
    assert len(slots) == 2 * len(targets)
    for name, shape in slots.items():
        assert shape == targets[name.split("u/", 1)[1]], name
