"""T5 networks and reference arrays shared by several tests."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from t5x.examples.t5 import network
from tests.vectors import golden_dir

TINY = network.T5Config(
    vocab_size=24,
    emb_dim=16,
    num_heads=2,
    num_encoder_layers=1,
    num_decoder_layers=1,
    head_dim=8,
    mlp_dim=24,
    mlp_activations=("gelu", "linear"),
    dropout_rate=0.1,
)
#: Without layers: for what does not depend on the network, and compiles in no time.
SHALLOW = TINY.replace(num_encoder_layers=0, num_decoder_layers=0)


def random_params(shapes, seed=0):
    """Normal values of the usual scale for every parameter, without compiling anything."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        fan_in = 1 if "embedding" in str(path[-1]) else leaf.shape[0]
        values = rng.normal(size=leaf.shape) / np.sqrt(fan_in)
        return jnp.asarray(1 + values if "scale" in str(path[-1]) else values, jnp.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def apply(module, params, *args, **kwargs):
    """`module.apply` without dropout, compiled: op by op it would compile every operation."""
    static = {k: kwargs.pop(k) for k in ("method", "mutable") if k in kwargs}

    def run(params, args, kwargs):
        return module.apply({"params": params}, *args, enable_dropout=False, **kwargs, **static)

    return jax.jit(run)(params, args, kwargs)


def flat(tree):
    return traverse_util.flatten_dict(tree, sep="/")


def unflat(tree):
    return traverse_util.unflatten_dict(tree, sep="/")


def load(name):
    """Arrays of a reference file, its `config_json` parsed."""
    with np.load(golden_dir("t5x") / f"{name}.npz") as data:
        z = {k: data[k] for k in data.files}
    return z, json.loads(str(z["config_json"]))


def part(z, prefix):
    """Arrays whose key begins with `prefix`, without it."""
    return {k.removeprefix(prefix): v for k, v in z.items() if k.startswith(prefix)}


#: Where our defaults of decoding differ from the reference's.
REFERENCE_DECODING = {
    "temperature_sample": {"topk": 1},
    "beam_search": {"normalize_unfinished": False},
}


def t5_config(config):
    """The fields of a reference configuration which describe the network."""
    fields = {f.name for f in dataclasses.fields(network.T5Config)}
    return network.T5Config(**{k: v for k, v in config.items() if k in fields})


def tiny_t5(config=TINY, batch=2, inputs=7, targets=6):
    """(module, parameters, a batch with padding)."""
    module = network.Transformer(config)
    rng = np.random.default_rng(0)
    tokens = rng.integers(2, config.vocab_size, (batch, targets)).astype(np.int32)
    tokens[0, -2:] = [1, 0]
    batch = {
        "encoder_input_tokens": rng.integers(2, config.vocab_size, (batch, inputs)).astype(
            np.int32
        ),
        "decoder_target_tokens": tokens,
        "decoder_input_tokens": np.pad(tokens, ((0, 0), (1, 0)))[:, :-1],
        "decoder_loss_weights": (tokens > 0).astype(np.int32),
    }
    batch["encoder_input_tokens"][1, -3:] = 0
    names = ("encoder_input_tokens", "decoder_input_tokens", "decoder_target_tokens")
    inputs = {k: jnp.asarray(batch[k]) for k in names}
    shapes = jax.eval_shape(
        lambda: module.init(jax.random.key(0), **inputs, enable_dropout=False)["params"]
    )
    params = random_params(shapes)
    return module, params, batch
