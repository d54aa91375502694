"""The model as the trainer sees it: what counts, what is told, what has gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdcd import warping
from cdcd.masks import MaskMixture
from cdcd.models import CDCDModel, evaluation_rng, rows_of, valid_positions
from cdcd.network import Denoiser
from cdcd.warping import Warping
from t5x import optimizers
from t5x.data.vocabularies import TokenVocabulary
from t5x.losses import token_nats
from t5x.partitioning import PjitPartitioner
from t5x.train_state import FlaxOptimTrainState
from t5x.trainer import Trainer
from tests.cdcd.tiny import as_batch, random_batch, recorder, tiny_config, tiny_model

KEY = jax.random.key(0)
TOKENS = np.asarray(random_batch()["decoder_target_tokens"])


def recorded(sizes=None, **options):
    """(a model whose network is a recorder, its parameters)."""
    model = tiny_model(sizes, **options)
    model.denoising, params = recorder()
    return model, params


def step(model, params, tokens=TOKENS, key=KEY):
    """(loss, some metrics by name, calls of the recorder) of one step."""

    @jax.jit
    def run(params, batch):
        model.denoising.calls.clear()
        loss, metrics = model.loss_fn(params, batch, key)
        return loss, metrics, list(model.denoising.calls)

    loss, metrics, calls = jax.device_get(run(params, as_batch(tokens)))
    names = ("noisy_nats_per_token", "warp_fit_error")
    return loss, {name: float(metrics[name].compute()) for name in names}, calls


@pytest.fixture(scope="module")
def taken():
    """(model, parameters, *`step`)."""
    model, params = recorded()
    return model, params, *step(model, params)


# ------------------------------------------------------------------------------------- the loss


def fit_errors(model, call, tokens=TOKENS):
    """Of each row with noisy tokens, while the curve is the identity."""
    nats, noisy = np.asarray(token_nats(call["logits"], tokens)), call["task"].noisy
    time = warping.noise_to_time(call["t"], model.noise)
    return [(time[i] - nats[i][noisy[i]].mean()) ** 2 for i in range(4) if noisy[i].any()]


def test_the_loss_is_the_mean_of_noisy_tokens_and_the_error_of_the_fit(taken):
    model, params, loss, metrics, (_, call) = taken
    task, table = call["task"], np.asarray(params["table"])
    cross_entropy = np.asarray(token_nats(call["logits"], TOKENS))[task.noisy].mean()
    assert metrics["noisy_nats_per_token"] == pytest.approx(cross_entropy, rel=1e-5)
    error = np.mean(fit_errors(model, call))
    assert metrics["warp_fit_error"] == pytest.approx(error, rel=1e-4)
    assert loss == pytest.approx(cross_entropy + error, rel=1e-4)
    # What is noisy is its embedding with noise of the level of its row; the rest is given.
    noise = (call["x"] - table[TOKENS]) / call["t"][:, None, None]
    assert abs(noise.std() - 1) < 0.2
    # Of some rows it is known that something is given, but not what.
    hidden = ~task.given.any(axis=(1, 2))
    assert 0 < hidden.sum() < 4
    assert (~task.noisy[hidden]).any()
    seen = ~task.noisy & ~hidden[:, None]
    np.testing.assert_array_equal(task.given[seen], table[TOKENS[seen]])


def test_padding_does_not_count_in_the_loss_and_rows_of_nothing_else_not_in_the_fit():
    tokens = np.full((4, 6), 3)
    tokens[1:, 1:] = 0  # one token each, mostly given
    np.testing.assert_array_equal(valid_positions(as_batch(tokens)), tokens > 0)
    model, params = recorded(masks=MaskMixture(prefix=1.0), self_conditioning=False)
    _, metrics, (call,) = step(model, params, tokens)
    assert not call["previous"].any()
    assert not call["task"].noisy[tokens == 0].any()
    errors = fit_errors(model, call, tokens)
    assert 0 < len(errors) < 4
    assert metrics["warp_fit_error"] == pytest.approx(np.mean(errors), rel=1e-4)
    model.predict_padding = True
    noisy = step(model, params, tokens)[2][0]["task"].noisy
    assert noisy[tokens == 0].any()


@pytest.mark.slow
def test_draws_are_by_the_average_of_the_curves_which_follows():
    model, params = recorded(drop_conditioning=0.25, warping=Warping(num_bins=2, ema_decay=0.5))
    params[warping.PARAMS] = warping.initial_params(2)
    late = {"lt": jnp.zeros(2), "lu": jnp.array([-9.0, 9.0])}  # nearly all above the middle
    draws = jax.jit(functools.partial(model.draw, KEY, (400, 6)))
    middle = (model.noise.low + model.noise.high) / 2
    assert (draws(model.distribution(params, {warping.AVERAGE: late})).t > middle).mean() > 0.93
    draw = draws(model.distribution(params))
    time = np.asarray(warping.noise_to_time(draw.t, model.noise))
    assert len(np.unique(np.floor(time * 400 + 1e-3))) >= 399  # one each, but for rounding
    assert draw.conditioned.mean() == pytest.approx(0.75, abs=0.07)
    assert draw.noise.shape == (400, 6, 8)
    mutables = {warping.AVERAGE: late, "other": 1.0}
    _, (_, found) = jax.jit(model.loss_fn)(params, as_batch(TOKENS), KEY, mutables)
    expected = (late["lu"] + params[warping.PARAMS]["lu"]) / 2
    np.testing.assert_allclose(found[warping.AVERAGE]["lu"], expected, rtol=1e-6)
    assert found["other"] == 1.0


# ---------------------------------------------------------------------------------- gradients


@pytest.fixture(scope="module")
def gradients():
    """(parameters -> gradients of [the error of the fit, the cross-entropy], bool [B, L] noisy)."""
    model, params = recorded()

    def parts(params):
        model.denoising.calls.clear()
        metrics = model.loss_fn(params, as_batch(TOKENS), KEY)[1]
        found = [metrics[n].compute() for n in ("warp_fit_error", "noisy_nats_per_token")]
        return jnp.stack(found), (found[1], model.denoising.calls[-1]["task"].noisy)

    jacobian = jax.jit(jax.jacrev(parts, has_aux=True))
    return lambda **changes: jax.device_get(
        jacobian({**params, "shift": np.zeros((4, 6, 6), np.float32), **changes})
    )


def test_the_fit_and_the_network_have_gradients_of_their_own(gradients):
    found, _ = gradients()
    curves = found.pop(warping.PARAMS)
    for leaves, part in ((jax.tree.leaves(curves), 0), (jax.tree.leaves(found), 1)):
        assert all(np.any(x[part]) for x in leaves)
        assert not any(np.any(x[1 - part]) for x in leaves)


def test_given_tokens_have_no_part_in_gradients(gradients):
    found, (_, noisy) = gradients()
    assert 0 < noisy.sum() < noisy.size
    np.testing.assert_array_equal(np.any(found["shift"][1], axis=-1), noisy)


def test_the_estimate_has_no_gradients(gradients):
    found, (nats, _) = gradients()
    first, second = found["scales"][1]
    assert first == 0 != second
    _, (other, _) = gradients(scales=np.array([2.0, 0.3], np.float32))
    assert abs(other - nats) > 1e-3  # but it does matter


# ----------------------------------------------------------------------------- self-conditioning


def test_every_other_row_sees_an_estimate(taken):
    model, params, _, _, (first, second) = taken
    assert not first["previous"].any()
    for name in ("x", "t"):
        np.testing.assert_array_equal(first[name], second[name][::2])
    np.testing.assert_array_equal(first["task"].noisy, second["task"].noisy[::2])
    estimate = model.denoising.interpolate(first["logits"], params["table"])
    np.testing.assert_allclose(second["previous"][::2], estimate, rtol=1e-4, atol=1e-5)
    assert not second["previous"][1::2].any()


def test_without_self_conditioning_there_is_one_evaluation_of_any_number_of_rows():
    model, params = recorded(self_conditioning=False)
    jax.eval_shape(model.loss_fn, params, as_batch(TOKENS[:3]), KEY)
    assert len(model.denoising.calls) == 1
    model.self_conditioning = True
    with pytest.raises(ValueError, match="this one has 3 rows: expected an even batch_size"):
        jax.eval_shape(model.loss_fn, params, as_batch(TOKENS[:3]), KEY)


# ------------------------------------------------------------------- evaluation and prediction


def test_evaluations_are_the_same_every_time_and_have_no_dropout():
    model, params = recorded({"dropout_rate": 0.5})
    batch = as_batch(TOKENS)
    evaluate = jax.jit(model.eval_fn)
    assert evaluate(params, batch)[0] == evaluate(params, batch)[0]
    keys = [evaluation_rng(as_batch(x)) for x in (TOKENS, TOKENS[::-1])]
    assert keys[0] != keys[1]
    assert model.denoising.calls[-1]["dropout"] is None
    jax.eval_shape(model.loss_fn, params, batch, KEY)
    first, second = model.denoising.calls[-2:]
    assert first["dropout"] is None  # of the estimate
    assert second["dropout"] is not None


def test_predictions_and_scores_may_be_compiled_as_the_evaluator_does():
    model, params = recorded()
    batch = as_batch(TOKENS)
    batch["decoder_causal_attention"] = jnp.zeros((4, 6), jnp.int32).at[:, :2].set(1)
    predict = functools.partial(model.predict_batch_with_aux, decoder_params={"steps": 2})
    plain = predict(params, batch, KEY)[0]
    np.testing.assert_array_equal(jax.jit(predict)(params, batch, KEY)[0], plain)
    np.testing.assert_array_equal(plain[:, :2], TOKENS[:, :2])
    assert (plain >= 3).all()
    scores = jax.jit(model.score_batch)(params, batch)
    assert scores.shape == (4,)
    assert (scores < 0).all()
    with pytest.raises(ValueError, match="leave return_intermediates off"):
        model.score_batch(params, batch, return_intermediates=True)


def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match="the vocabulary has 12 ids, but the network vocab_size=6"):
        CDCDModel(Denoiser(tiny_config()), TokenVocabulary(9), None)
    with pytest.raises(ValueError, match=r"drop_conditioning=1\.5: expected 0 to 1"):
        tiny_model(drop_conditioning=1.5)


@pytest.mark.parametrize("trained", [True, False])
def test_made_with_self_conditioning_as_trained(trained, monkeypatch):
    model, params = recorded(self_conditioning=trained)
    monkeypatch.setattr("cdcd.models.sample", lambda *args: args[4])
    rows = rows_of(as_batch(TOKENS))
    assert model.make(params, rows, KEY, steps=3).self_conditioning is trained
    assert (
        model.make(params, rows, KEY, self_conditioning=not trained).self_conditioning
        is not trained
    )


# ---------------------------------------------------------------------------------- microbatches


def test_microbatches_are_a_mean_of_the_batch():
    model, params = recorded(self_conditioning=False)
    model.optimizer_def = optimizers.sgd(0.1)
    state = FlaxOptimTrainState.create(model.optimizer_def, {"params": params})
    options = {"learning_rate_fn": lambda step: 0.1, "num_microbatches": 2}
    trainer = Trainer(model, state, PjitPartitioner(1), **options)

    @jax.jit
    def run(batch):
        grads, metrics, _ = trainer.gradients(state, batch, KEY)
        keys, parts = jax.random.split(KEY), [TOKENS[::2], TOKENS[1::2]]

        def loss(params):
            losses = [model.loss_fn(params, as_batch(x), k) for x, k in zip(parts, keys)]
            return (losses[0][0] + losses[1][0]) / 2, (losses[0][1], losses[1][1])

        return grads, metrics, *jax.grad(loss, has_aux=True)(params)

    grads, metrics, expected, of_parts = run(as_batch(TOKENS))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-4, 1e-5), grads, expected)
    losses = [float(each["loss"].compute()) for each in of_parts]
    assert float(metrics["loss"].compute()) == pytest.approx(np.mean(losses), rel=1e-5)
