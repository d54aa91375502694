"""The size files build, through gin, the networks of the published sizes."""

import gin
import jax
import jax.numpy as jnp
import pytest

SIZES = {
    "tiny": None,
    "small": 76_961_152,
    "base": 247_577_856,
    "large": 783_150_080,
    "xl": 2_849_757_184,
    "xxl": 11_135_332_352,
}
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


@pytest.mark.parametrize("size", SIZES)
def test_sizes(size, clean_gin):
    with gin.unlock_config():
        gin.parse_config(f"include 't5x/examples/t5/t5_1_1/{size}.gin'\n{PROBE}")
    model = gin.get_configurable(probe)()
    tokens = jnp.ones((1, 2), jnp.int32)
    shapes = jax.eval_shape(
        lambda: model.module.init(jax.random.key(0), tokens, tokens, tokens, enable_dropout=False)
    )
    count = sum(x.size for x in jax.tree.leaves(shapes["params"]))
    assert SIZES[size] is None or count == SIZES[size]
    assert model.module.config.dropout_rate == 0.1
