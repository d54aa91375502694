"""The size files build, through gin, the networks of the published sizes."""

import gin
import jax
import jax.numpy as jnp
import pytest

#: Parameters of the released models; each file says its own number in its first line as well.
SIZES = {
    "t5/t5_1_1/small": 76_961_152,
    "t5/t5_1_1/base": 247_577_856,
    "t5/t5_1_1/large": 783_150_080,
    "t5/t5_1_1/xl": 2_849_757_184,
    "t5/t5_1_1/xxl": 11_135_332_352,
    "t5/t5_1_0/small": 60_506_624,
    "t5/t5_1_0/base": 222_903_552,
    "t5/t5_1_0/large": 737_668_096,
    "t5/t5_1_0/3B": 2_851_598_336,
    "t5/t5_1_0/11B": 11_307_321_344,
    "t5/mt5/small": 300_176_768,
    "t5/mt5/base": 582_401_280,
    "t5/mt5/large": 1_229_581_312,
    "t5/mt5/xl": 3_742_619_648,
    "t5/mt5/xxl": 12_921_057_280,
    "t5/byt5/small": 299_637_760,
    "t5/byt5/base": 581_653_248,
    "t5/byt5/large": 1_228_183_552,
    "t5/byt5/xl": 3_737_801_728,
    "t5/byt5/xxl": 12_906_899_328,
    # Those of T5 1.1 with a table of 32 positions for each head of each layer.
    "scalable_t5/t5_1_1/small": 76_961_152 + 32 * 6 * 14,
    "scalable_t5/t5_1_1/xxl": 11_135_332_352 + 32 * 64 * 46,
    "decoder_only/models/base": 134_307_072,
    "decoder_only/models/xxl": 4_893_954_048,
}
TINY = ["t5/t5_1_1/tiny", "scalable_t5/t5_1_1/tiny", "decoder_only/models/tiny"]
PROBE = """
from __gin__ import dynamic_registration
from tests.t5x.examples import test_t5_sizes
from t5x.data import vocabularies
test_t5_sizes.probe.model = %MODEL
VOCABULARY = @vocabularies.ByteVocabulary()
DROPOUT_RATE = 0.1
"""


def probe(model=gin.REQUIRED):
    """Hands a configured model to the test."""
    return model


@pytest.fixture
def clean_gin():
    gin.clear_config()
    yield
    gin.clear_config()


def configured(size):
    with gin.unlock_config():
        gin.parse_config(f"include 't5x/examples/{size}.gin'\n{PROBE}")
    return gin.get_configurable(probe)()


def analytic_size(config):
    """Parameters by the sizes alone."""
    width, heads = config.emb_dim, config.num_heads
    attention = 4 * width * heads * config.head_dim + width
    mlp = (1 + len(config.mlp_activations)) * width * config.mlp_dim + width
    embeddings = config.vocab_size * width * (1 if config.logits_via_embedding else 2)
    table = 32 * heads
    if hasattr(config, "num_layers"):
        layers = config.num_layers
        return embeddings + layers * (attention + mlp + table) + width
    encoder, decoder = config.num_encoder_layers, config.num_decoder_layers
    tables = encoder + decoder if hasattr(config, "scan_layers") else 2
    layers = encoder * (attention + mlp) + decoder * (2 * attention + mlp)
    return embeddings + layers + tables * table + 2 * width


@pytest.mark.parametrize("size", [*SIZES, *TINY])
def test_sizes(size, clean_gin):
    config = configured(size).module.config
    assert config.dropout_rate == 0.1
    if size in SIZES:
        assert analytic_size(config) == SIZES[size]


@pytest.mark.parametrize("size", ["t5/t5_1_0/small", "t5/byt5/small", *TINY])
def test_networks_have_that_many_parameters(size, clean_gin):
    model = configured(size)
    shapes = {
        f"{name}_tokens": (1, 2) for name in ("encoder_input", "decoder_input", "decoder_target")
    }
    types = dict.fromkeys(shapes, jnp.int32)
    variables = jax.eval_shape(
        lambda: model.get_initial_variables(jax.random.key(0), shapes, types)
    )
    count = sum(x.size for x in jax.tree.leaves(variables["params"]))
    assert count == analytic_size(model.module.config)
