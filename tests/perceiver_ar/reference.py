"""The reference's vectors, and tiny networks of random parameters."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perceiver_ar.checkpoints import from_haiku
from perceiver_ar.config import PerceiverARConfig
from perceiver_ar.network import PerceiverAR
from tests.vectors import golden_dir

TINY = {
    "num_classes": 19,
    "max_context_length": 24,
    "z_index_dim": 8,
    "input_embed_dim": 16,
    "num_z_channels": 16,
    "num_transformers_per_block": 2,
    "num_cross_attend_heads": 2,
    "num_transformer_heads": 4,
    "dropout_prob": 0.0,
    "final_layer_init_zeros": False,
}
ABSOLUTE = {"position_encoding_type": "absolute", "input_idx_size": (25,)}


def golden(pattern):
    """The files whose names match, as parameters of a test; one that skips if there are none."""
    paths = sorted(golden_dir("perceiver_ar").glob(pattern))
    missing = pytest.param(None, marks=pytest.mark.skip(f"no vectors {pattern}"))
    return [pytest.param(path, id=path.stem) for path in paths] or [missing]


def is_network(path):
    with np.load(path) as file:
        return "loss_total" in file.files


def network_files():
    """Files with the outputs and gradients of the network."""
    files = [p for p in golden("*.npz") if p.values[0] is None or is_network(p.values[0])]
    return files or golden("no-network-vectors")


def load(path):
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def config_of(data, **changes):
    return PerceiverARConfig(**{**json.loads(str(data["config"])), **changes})


def tree_of(data, config, prefix="params/"):
    """The parameters (or gradients) of a file by our names."""
    params = {k[len(prefix) :]: v for k, v in data.items() if k.startswith(prefix)}
    return from_haiku(params, config)


def tiny(seed=0, **changes):
    """(config, network, random parameters); nothing is compiled."""
    return _tiny(PerceiverARConfig(**{**TINY, **changes}), seed)


@functools.cache
def _tiny(config, seed):
    network = PerceiverAR(config)
    shape = (1, config.max_context_length)
    coordinates = 1 if config.rotary else len(config.input_idx_size)
    ones = jnp.ones((*shape, coordinates), jnp.int32)
    init = jax.eval_shape(network.init, jax.random.PRNGKey(seed), jnp.ones(shape, jnp.int32), ones)
    rng = np.random.default_rng(seed)

    def draw(path, x):
        value = rng.normal(size=x.shape)
        if path[-1].key == "kernel":
            value /= np.sqrt(config.num_z_channels)
        elif path[-1].key in ("scale", "bias"):
            value = 0.1 * value + (path[-1].key == "scale")
        return value.astype(np.float32)

    return config, network, jax.tree_util.tree_map_with_path(draw, dict(init["params"]))


def random_tokens(lengths, size=24, classes=19, seed=0):
    """int32 [B, size], rows of these lengths, without special tokens but SOS first."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(3, classes, (len(lengths), size)).astype(np.int32)
    tokens[:, 0] = 2
    return np.where(np.arange(size) < np.asarray(lengths)[:, None], tokens, 0).astype(np.int32)


@functools.cache
def _apply(network, num_latents):
    return jax.jit(
        lambda params, tokens, positions, options: network.apply(
            {"params": params}, tokens, positions, num_latents=num_latents, **options
        )
    )


def logits_of(network, params, tokens, positions=None, num_latents=None, **options):
    """Logits as an array; compiled once for a network and shapes."""
    return np.asarray(_apply(network, num_latents)(params, tokens, positions, options))
