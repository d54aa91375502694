"""On eight fake devices the network learns what it learns on one."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

SCRIPT = """
import json, sys
import jax, jax.numpy as jnp, numpy as np
from cdcd.models import CDCDModel
from cdcd.network import Denoiser
from cdcd.optimizers import grouped_adam
from t5x.partitioning import PjitPartitioner, create_mesh
from t5x.restoring import TrainStateInitializer
from t5x.trainer import Trainer
from tests.cdcd.tiny import NOISE, random_batch, tiny_config

config = tiny_config(num_layers=2, vocab_size=8, scan_layers=True, remat_policy="full")
optimizer = grouped_adam(weight_decay=0.01, average_decay=0.9)
model = CDCDModel(Denoiser(config), None, optimizer, noise=NOISE)
batch = jax.device_get(random_batch(rows=16, vocab_size=8))
shapes = {n: x.shape for n, x in batch.items()}

def train(partitioner):
    make = TrainStateInitializer(
        optimizer, model.get_initial_variables, shapes, partitioner,
        input_types=dict.fromkeys(shapes, jnp.int32))
    state = make.from_scratch(jax.random.PRNGKey(0))
    trainer = Trainer(model, state, partitioner, learning_rate_fn=lambda step: jnp.float32(0.01))
    losses = [trainer.train(iter([batch]), 1)["loss"] for _ in range(4)]
    state = trainer.train_state
    cut = [x.sharding.shard_shape(x.shape) != x.shape for x in jax.tree.leaves(state.params)]
    average = np.asarray(state.flax_mutables["warp_ema"]["lu"]).tolist()
    return {"losses": losses, "cut": sum(cut), "average": average}

alone = PjitPartitioner(1)
alone.mesh = create_mesh(1, jax.devices()[:1])
json.dump({"alone": train(alone), "cut": train(PjitPartitioner(2))}, open(sys.argv[1], "w"))
"""


@pytest.mark.slow
def test_every_mesh_learns_the_same(tmp_path):
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    out = tmp_path / "results.json"
    subprocess.run([sys.executable, "-c", SCRIPT, str(out)], check=True, env=environment)
    results = json.loads(out.read_text())
    alone, cut = results["alone"], results["cut"]
    assert len(set(alone["losses"])) == 4
    np.testing.assert_allclose(cut["losses"], alone["losses"], rtol=1e-4)
    np.testing.assert_allclose(cut["average"], alone["average"], rtol=1e-4)
    assert alone["cut"] == 0
    assert cut["cut"] > 5  # four data times two model: heads, hidden units and the vocabulary
