"""The MT3 model around its network."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mt3 import models, network
from t5x import decoding
from t5x.data.converters import ContinuousInputsEncDecFeatureConverter
from tests.t5x.networks import random_params

CONFIG = network.T5Config(
    vocab_size=16,
    emb_dim=8,
    num_heads=2,
    num_encoder_layers=1,
    num_decoder_layers=1,
    head_dim=4,
    mlp_dim=12,
    frame_stack=2,
    frame_stride=2,
)
SHAPES = {
    "encoder_input_tokens": (3, 10),
    "decoder_input_tokens": (3, 6),
    "decoder_target_tokens": (3, 6),
}


def make_model(**kwargs):
    return models.ContinuousInputsEncoderDecoderModel(
        network.Transformer(CONFIG), None, None, None, input_depth=5, **kwargs
    )


def initial_shapes(model, shapes=SHAPES):
    return jax.eval_shape(lambda: model.get_initial_variables(jax.random.key(0), shapes))


@pytest.fixture
def batch():
    tokens = np.array([[3, 4, 5, 6, 1, 0]] * 3, np.int32)
    return {
        "encoder_input_tokens": np.random.default_rng(0).normal(size=(3, 10, 5)).astype(np.float32),
        "decoder_target_tokens": tokens,
        "decoder_input_tokens": np.pad(tokens, ((0, 0), (1, 0)))[:, :-1],
        "decoder_loss_weights": (tokens > 0).astype(np.int32),
    }


def test_the_depth_of_the_inputs_may_be_left_out_but_not_wrong():
    model = make_model()
    kernel = initial_shapes(model)["params"]["encoder"]["continuous_inputs_projection"]["kernel"]
    assert kernel.shape == (2 * 5, 8)
    with_depth = {**SHAPES, "encoder_input_tokens": (3, 10, 5)}
    assert initial_shapes(model, with_depth) == initial_shapes(model)
    with pytest.raises(ValueError, match="input_depth=5"):
        initial_shapes(model, {**SHAPES, "encoder_input_tokens": (3, 10, 4)})
    assert model.FEATURE_CONVERTER_CLS is ContinuousInputsEncDecFeatureConverter


def test_training_and_scoring_agree(batch):
    model = make_model(z_loss=0.0)
    params = random_params(initial_shapes(model)["params"])
    loss, metrics = jax.jit(model.eval_fn)(params, batch)
    assert metrics["accuracy"].count == 15
    scores = jax.jit(model.score_batch)(params, batch)
    np.testing.assert_allclose(-scores.sum(), loss, rtol=1e-5)


def test_greedy_decoding_follows_the_largest_teacher_forced_logit(batch):
    greedy = functools.partial(decoding.temperature_sample, temperature=0.0)
    model = make_model(decode_fn=greedy)
    params = random_params(initial_shapes(model)["params"])
    predicted = np.asarray(jax.jit(model.predict_batch)(params, batch))
    inputs = np.pad(predicted, ((0, 0), (1, 0)))[:, :-1]
    logits = jax.jit(
        lambda p, x, t: model.module.apply(
            {"params": p}, x, t, jnp.ones_like(t), enable_dropout=False
        )
    )(params, batch["encoder_input_tokens"], inputs)
    best = np.asarray(logits.argmax(-1))
    ended = np.cumsum(predicted == 1, axis=1) - (predicted == 1) > 0
    np.testing.assert_array_equal(predicted, np.where(ended, 0, best))
