"""On eight fake devices the network learns what it learns on one."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

SCRIPT = """
import dataclasses, json, sys
import jax, jax.numpy as jnp, numpy as np
from flax.traverse_util import flatten_dict
from perceiver_ar.config import PerceiverARConfig
from perceiver_ar.models import PerceiverARModel
from perceiver_ar.network import PerceiverAR
from perceiver_ar.optimizers import optimizer
from t5x.partitioning import PjitPartitioner, create_mesh, standard_logical_axis_rules
from t5x.restoring import TrainStateInitializer, place
from t5x.trainer import Trainer

config = PerceiverARConfig(
    num_classes=32, max_context_length=14, z_index_dim=6, input_embed_dim=16, num_z_channels=16,
    num_transformers_per_block=2, num_cross_attend_heads=4, num_transformer_heads=4,
    dropout_prob=0.0, attention_block=5, remat_policy="full", scan_layers=True,
    position_encoding_type="absolute", input_idx_size=(15,), learnable_position_embeddings=True,
)
def model_of(**changes):
    network = PerceiverAR(dataclasses.replace(config, **changes))
    return PerceiverARModel(network, None, optimizer())
model = model_of()
rng = np.random.default_rng(0)
batch = {n: rng.integers(1, 32, (8, 14)).astype(np.int32) for n in (
    "decoder_input_tokens", "decoder_target_tokens")}
shapes = {n: x.shape for n, x in batch.items()}

def train(partitioner, model=model):
    initializer = TrainStateInitializer(
        model.optimizer_def, model.get_initial_variables, shapes, partitioner,
        input_types=dict.fromkeys(shapes, jnp.int32))
    rng = np.random.default_rng(1)  # the same weights whatever the mesh
    structs = initializer.global_train_state_shape
    start = jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), structs.state_dict())
    start["target"] = jax.tree.map(lambda x: rng.normal(size=x.shape) * 0.2, start["target"])
    state = structs.restore_state(place(start, initializer.expected))
    trainer = Trainer(model, state, partitioner, learning_rate_fn=lambda step: jnp.float32(0.01))
    losses = [trainer.train(iter([batch]), 1)["loss"] for _ in range(3)]
    params = flatten_dict(trainer.train_state.params, sep="/")
    cut = sum(x.sharding.shard_shape(x.shape) != x.shape for x in params.values())
    return {"losses": losses, "cut": cut}

alone = PjitPartitioner(1)
alone.mesh = create_mesh(1, jax.devices()[:1])
rules = standard_logical_axis_rules(2, 2)
meshes = {
    "alone": lambda: train(alone),
    "data": lambda: train(PjitPartitioner(1)),
    "model": lambda: train(PjitPartitioner(2)),
    "both": lambda: train(PjitPartitioner(4, logical_axis_rules=rules)),
    "kernel": lambda: train(PjitPartitioner(2), model_of(attention_kernel="fused")),
}
json.dump({name: meshes[name]() for name in sys.argv[2:]}, open(sys.argv[1], "w"))
"""


def train(tmp_path, *meshes):
    """Losses and the number of parameters that are cut, by mesh."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    out = tmp_path / "results.json"
    command = [sys.executable, "-c", SCRIPT, str(out), *meshes]
    subprocess.run(command, check=True, env=environment)
    return json.loads(out.read_text())


def check_losses(results):
    expected = results["alone"]["losses"]
    assert expected[2] < expected[0]
    for name, found in results.items():
        np.testing.assert_allclose(found["losses"], expected, rtol=1e-4, err_msg=name)
    assert results["alone"]["cut"] == 0


@pytest.mark.slow
def test_every_mesh_learns_the_same(tmp_path):
    results = train(tmp_path, "alone", "data", "model", "both", "kernel")
    check_losses(results)
    assert results["data"]["cut"] == 0
    assert results["model"]["cut"] > 10  # heads and hidden units are shared out
    assert results["both"]["cut"] > results["model"]["cut"]
