import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from drums.features import DrumFeatures
from drums.models import DrumModel, OafDrumsModel, binary_cross_entropy, group_log_none
from drums.network import DrumNetwork, OafDrums
from drums.vocabularies import get_level
from t5x.optimizers import adamw
from t5x.partitioning import PjitPartitioner
from t5x.train_state import FlaxOptimTrainState
from t5x.trainer import Trainer
from tests.tiny_drum_model import FEATURES, NETWORK, OAF, random_variables

NO_DROPOUT = dataclasses.replace(NETWORK, dropout=0.0)


def make_batch(rows=4, frames=20, classes=18, seed=0):
    rng = np.random.default_rng(seed)
    onsets = (rng.random((rows, frames, classes)) < 0.1).astype(np.float32)
    audio = rng.normal(0, 0.1, (rows, 1, FEATURES.samples_of(frames))).astype(np.float32)
    return {
        "audio": audio,
        "onsets": onsets,
        "velocities": onsets * rng.random(onsets.shape, np.float32),
        "offsets": onsets * (rng.random(onsets.shape, np.float32) - 0.5),
        "weights": onsets,
    }


def make_model(**options):
    return DrumModel(DrumNetwork(NO_DROPOUT), FEATURES, adamw(), **options)


def variables_of(model):
    """Random parameters, and the statistics as further variables."""
    variables = random_variables(model.module)
    return variables["params"], {"batch_stats": variables["batch_stats"]}


def make_trainer(model, **options):
    state = FlaxOptimTrainState.create(model.optimizer_def, random_variables(model.module))
    return Trainer(
        model, state, PjitPartitioner(num_partitions=1), rng=jax.random.PRNGKey(0),
        learning_rate_fn=lambda step: jnp.float32(1e-2), **options,
    )  # fmt: skip


def test_loss_is_what_it_says():
    model, batch = make_model(velocity_weight=2.0, offset_weight=3.0), make_batch()
    params, stats = variables_of(model)

    @jax.jit
    def run(params):
        outputs, _ = model.apply(params, model.spectrogram(batch), stats)
        return *model.eval_fn(params, batch, stats), outputs

    loss, metrics, outputs = run(params)
    p = 1 / (1 + np.exp(-np.asarray(outputs["onset_logits"], np.float64)))
    t, w = batch["onsets"], batch["weights"]
    entropy = -(t * np.log(p) + (1 - t) * np.log(1 - p)).sum() / (4 * 20)
    velocity = (w * (outputs["velocities"] - batch["velocities"]) ** 2).sum() / w.sum()
    offset = (w * np.abs(outputs["offsets"] - batch["offsets"])).sum() / w.sum()
    np.testing.assert_allclose(loss, entropy + 2 * velocity + 3 * offset, rtol=1e-5)
    np.testing.assert_allclose(metrics["loss/velocities"].compute(), velocity, rtol=1e-5)


def test_groups_are_struck_when_any_member_is():
    members = get_level("9").members
    logits = np.random.default_rng(0).normal(size=(5, 18)).astype(np.float32)
    absent = 1 / (1 + np.exp(logits))
    expected = np.stack([np.prod(absent[:, members[:, g] == 1], axis=1) for g in range(9)], axis=1)
    found = jax.jit(lambda x: group_log_none(x, members))(logits)
    np.testing.assert_allclose(np.exp(found), expected, rtol=1e-5)


@pytest.mark.slow
def test_group_levels_add_a_term_and_gradients_stay_finite():
    batch = make_batch()
    batch["onsets"][:] = 0
    batch["onsets"][0, 3, 0] = 1
    model = make_model(group_levels=("9", "3-hit"))
    variables = random_variables(model.module)

    def loss(params, scale):
        params = jax.tree.map(lambda x: x * scale, params)
        return model.loss_fn(
            params, batch, jax.random.key(1), {"batch_stats": variables["batch_stats"]}
        )[0]

    for scale in (1.0, 100.0):  # also where probabilities are 0 and 1 in float32
        grads = jax.grad(loss)(variables["params"], scale)
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(grads))
    with pytest.raises(ValueError, match="need level='18'"):
        make_model(level="9", group_levels=("3-hit",))


def test_cross_entropy_is_stable():
    x = jnp.array([-1e4, -1.0, 0.0, 1.0, 1e4])
    found = jax.jit(binary_cross_entropy)(x, jnp.array([0.0, 0.5, 1.0, 0.0, 1.0]))
    np.testing.assert_allclose(found, [0, 0.8132617, np.log(2), 1.3132617, 0], rtol=1e-5)


def test_training_updates_statistics_and_lowers_the_loss():
    batch = make_batch()
    trainer = make_trainer(make_model())
    before = jax.device_get(trainer.train_state.flax_mutables)
    losses = [trainer.train(iter([batch] * 10), 10)["loss"] for _ in range(4)]
    after = trainer.train_state.flax_mutables
    changed = jax.tree.map(lambda a, b: not np.array_equal(a, b), before, after)
    assert all(jax.tree.leaves(changed))
    assert losses[-1] < 0.9 * losses[0]
    assert trainer.eval({"x": iter([batch])})["x"]["loss"] > 0


def test_microbatches_are_normalised_by_the_whole_batch():
    """Sums over microbatches are those of the batch where no statistics of parts come in."""
    batch = make_batch()
    batch["weights"][0] = 0  # parts with different counts
    model = make_model()
    params, stats = variables_of(model)

    @jax.jit
    def run(params):
        fixed, _ = model.normalize_globally(batch)
        parts = [
            fixed.eval_fn(params, {k: v[rows] for k, v in batch.items()}, stats)[0]
            for rows in (slice(0, 1), slice(1, 4))
        ]
        return model.eval_fn(params, batch, stats)[0], parts

    whole, parts = run(params)
    np.testing.assert_allclose(sum(parts), whole, rtol=1e-5)
    trainer = make_trainer(make_model(), num_microbatches=2)
    assert np.isfinite(trainer.train(iter([make_batch()]), 1)["loss"])


def test_oaf_drums_joins_chunks_and_masks_padding():
    features = DrumFeatures(sample_rate=11025, hop_width=128, num_mel_bins=16, fft_size=256)
    model = OafDrumsModel(OafDrums(OAF), features, adamw())
    rng = np.random.default_rng(0)
    frames = 12
    onsets = (rng.random((2, 3 * frames, 88)) < 0.05).astype(np.float32)
    batch = {
        "audio": rng.normal(0, 0.1, (2, 3, 128 * frames)).astype(np.float32),
        "onsets": onsets,
        "velocities": onsets * 0.5,
        "lengths": np.array([36, 24], np.int32),
    }
    params, stats = variables_of(model)

    @jax.jit
    def run(params):
        spectrogram = model.spectrogram(batch)
        assert spectrogram.shape == (2, 36, 16)
        outputs, _ = model.apply(params, spectrogram, stats)
        entropy = binary_cross_entropy(outputs["onset_logits"], onsets)
        scores = model.score_batch(params, batch, mutables=stats)
        predicted, aux = model.predict_batch_with_aux(params, batch, mutables=stats)
        loss, _ = model.eval_fn(params, batch, stats)
        return loss, outputs, entropy, scores, predicted, aux

    loss, outputs, entropy, scores, predicted, aux = jax.device_get(run(params))
    mean = (entropy[0].sum() + entropy[1, :24].sum()) / (60 * 88)
    error = np.square(outputs["velocities"] - batch["velocities"])[onsets > 0].mean()
    np.testing.assert_allclose(loss, mean + 0.5 * error, rtol=1e-5)
    np.testing.assert_allclose(scores, -entropy.sum((1, 2)), rtol=1e-5)
    assert predicted.shape == (2, 36, 88)
    assert set(aux) == {"onset_logits", "velocities"}
