import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import meta

from perceiver_ar.feature_converter import PerceiverARFeatureConverter
from perceiver_ar.likelihood import score_sequences
from perceiver_ar.optimizers import optimizer
from perceiver_ar.plain_decoder import PlainDecoderModel
from perceiver_ar.preprocessors import evaluation_windows, number_positions
from t5x import metrics
from t5x.examples.decoder_only.network import DecoderWrapper, TransformerConfig
from tests.perceiver_ar.reference import random_tokens
from tests.t5x.networks import apply, random_params

LENGTHS = {"inputs": 12, "targets": 12}


@pytest.fixture(scope="module")
def model():
    sizes = {"emb_dim": 16, "num_heads": 2, "head_dim": 8, "num_layers": 1, "mlp_dim": 32}
    config = TransformerConfig(vocab_size=19, dropout_rate=0.0, scan_layers=False, **sizes)
    return PlainDecoderModel(DecoderWrapper(config), None, optimizer(), z_loss=0.1)


@pytest.fixture(scope="module")
def params(model):
    shapes = {"decoder_input_tokens": (2, 12), "decoder_latent_counts": (2,)}
    types = dict.fromkeys(shapes, jnp.int32)
    init = functools.partial(model.get_initial_variables, jax.random.key(0), shapes, types)
    return random_params(meta.unbox(jax.eval_shape(init)["params"]))


def windows(*lengths, stride):
    """Windows of sequences of so many targets, as a batch."""
    rows = []
    for n in lengths:
        example = number_positions({"tokens": random_tokens([n + 1], n + 1, seed=n)[0]})
        rows += evaluation_windows(example, LENGTHS, num_latents=12, stride=stride)
    converter = PerceiverARFeatureConverter()
    return converter.convert(converter.collate(rows, LENGTHS))


def test_loss_and_metrics_are_of_the_targets_that_count(model, params):
    batch = windows(20, 7, stride=8)
    targets = batch["decoder_target_tokens"]
    logits = apply(model.module, params, batch["decoder_input_tokens"], targets)
    logits = np.asarray(logits, np.float64)
    nats = np.logaddexp.reduce(logits, axis=-1)
    nats -= np.take_along_axis(logits, targets[..., None], -1)[..., 0]
    counted = (batch["decoder_loss_weights"] > 0) & (targets > 0)
    assert counted.sum() == 27

    @jax.jit
    def run(params):
        trained, _ = model.loss_fn(params, batch, None)
        return *model.eval_fn(params, batch), trained, model.score_batch(params, batch)

    loss, found, trained, scores = run(params)
    assert float(loss) == pytest.approx(nats[counted].mean(), rel=1e-5)
    found = metrics.compute(metrics.set_duration(found, 1.0))
    assert found["nats_per_token"] == pytest.approx(nats[counted].mean(), rel=1e-5)
    assert float(trained) > float(loss) + 0.1  # with z-loss
    np.testing.assert_allclose(scores, -(nats * counted).sum(axis=1), rtol=1e-5)


def test_it_is_scored_as_perceiver_ar_is(model, params):
    """All inputs of a block are latents; its context is any."""
    rows = [{"tokens": random_tokens([n + 1], n + 1, seed=n)[0]} for n in (20, 7)]
    found = score_sequences(model, params, rows, context=12, stride=8)
    batch = windows(20, 7, stride=8)
    expected_scores = np.asarray(jax.jit(model.score_batch)(params, batch))
    for scores, total in zip(found, (slice(0, 3), slice(3, 4))):
        expected = -expected_scores[total].sum()
        assert scores.nats.sum() == pytest.approx(float(expected), rel=1e-5)
        np.testing.assert_array_equal(scores.inputs, scores.latents)
    assert found[0].inputs.max() == 12
    whole, parts = (score_sequences(model, params, rows, context=24, stride=s) for s in (24, 5))
    for a, b in zip(whole, parts):
        np.testing.assert_allclose(a.nats, b.nats, atol=1e-5)
        np.testing.assert_array_equal(a.inputs, 1 + np.arange(len(a.inputs)))
