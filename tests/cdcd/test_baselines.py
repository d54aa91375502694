"""The autoregressive model's exact likelihood, and the bound of masked diffusion."""

import functools

import jax
import numpy as np
import pytest
from scipy.special import log_softmax

from cdcd.baselines import AutoregressiveModel, MaskedDiffusionModel
from cdcd.models import evaluation_rng
from cdcd.network import TokenNetwork
from cdcd.sampler import NotFiniteError, Rows
from t5x.data.vocabularies import TokenVocabulary
from tests.cdcd.tiny import (
    MaskedOracle,
    as_batch,
    markov_joint,
    markov_rows,
    masked_network,
    params_of,
    random_batch,
    tiny_config,
)

KEY = jax.random.key(0)
BATCH = random_batch()
TOKENS = np.asarray(BATCH["decoder_target_tokens"])
JOINT = markov_joint(4)


@pytest.fixture(scope="module")
def causal():
    model = AutoregressiveModel(TokenNetwork(tiny_config()), None, None)
    return model, params_of(model)


@pytest.fixture(scope="module")
def masked():
    model = MaskedDiffusionModel(masked_network(), None, None)
    return model, params_of(model)


# ----------------------------------------------------------------------------- autoregressive


def test_the_likelihood_is_that_of_decoding_step_by_step(causal):
    model, params = causal
    nats, counted = jax.jit(model.target_nats)(params, BATCH)
    assert counted.all()
    scores = jax.jit(model.score_batch)(params, {**BATCH, "decoder_loss_weights": counted})
    np.testing.assert_allclose(-nats.sum(axis=1), scores, rtol=1e-5)
    apply = functools.partial(model.module.apply, decode=True, max_decode_length=6)

    def step(cache, token):
        token = token[:, None]
        logits, state = apply({"params": params, **cache}, token, token, mutable=["cache"])
        return state, jax.nn.log_softmax(logits[:, 0])

    @jax.jit
    def steps(tokens):
        _, cache = apply({"params": params}, tokens, tokens, mutable=["cache"])  # allocates
        return jax.lax.scan(step, cache, tokens.T)[1].transpose(1, 0, 2)

    logits = np.asarray(steps(BATCH["decoder_input_tokens"]))
    found = -np.take_along_axis(logits, TOKENS[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(found, nats, rtol=1e-4, atol=1e-5)


def test_the_loss_is_the_mean_of_targets_that_are_no_padding(causal):
    model, params = causal
    tokens = TOKENS.copy()
    tokens[1, 2:] = 0
    batch = as_batch(tokens)
    nats, counted = jax.jit(model.target_nats)(params, batch)
    np.testing.assert_array_equal(counted, tokens > 0)
    loss, metrics = jax.jit(model.loss_fn, static_argnums=2)(params, batch, None)
    expected = np.asarray(nats)[tokens > 0].mean()
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    for name in ("loss", "nats_per_token"):
        assert float(metrics[name].compute()) == pytest.approx(expected, rel=1e-5)


def test_rows_are_filled_in_from_left_to_right(causal):
    model, params = causal
    noisy = np.broadcast_to([False, True, False, True, True, False], TOKENS.shape)
    made = np.asarray(model.make(params, Rows(TOKENS, noisy), KEY, temperature=0.0))
    np.testing.assert_array_equal(made[~noisy], TOKENS[~noisy])
    assert (made >= 3).all()
    # The likeliest after what is before it, whatever comes after.
    inputs = as_batch(made)
    logits = np.array(jax.jit(model._compute_logits)(params, inputs))
    logits[..., :3] = -np.inf
    np.testing.assert_array_equal(made[noisy], logits.argmax(axis=-1)[noisy])
    drawn = [model.make(params, Rows(TOKENS, noisy), jax.random.key(i)) for i in range(2)]
    assert (drawn[0] != drawn[1]).any()


def test_what_can_not_be_filled_in_is_named(causal):
    model, params = causal
    noisy = np.ones(TOKENS.shape, bool)
    noisy[0, 0] = False
    with pytest.raises(ValueError, match=r"temperature=-1\.0"):
        model.make(params, Rows(TOKENS, noisy), KEY, temperature=-1.0)
    with pytest.raises(ValueError, match="given token 0 is padding"):
        model.make(params, Rows(np.zeros_like(TOKENS), noisy), KEY)
    with pytest.raises(ValueError, match="given token 6 is outside"):
        model.make(params, Rows(np.full_like(TOKENS, 6), noisy), KEY)
    broken = jax.tree.map(lambda x: np.full_like(x, np.nan), params)
    with pytest.raises(NotFiniteError):
        model.make(broken, Rows(TOKENS, noisy), KEY)


# ---------------------------------------------------------------------------- masked diffusion


def test_the_bound_of_the_ideal_network_is_the_entropy_and_no_less():
    model = MaskedOracle(JOINT)
    rows = markov_rows(0, 2000, 4) - 3
    # Symbol 0 is padding to the model, so that symbols are counted from 1.
    batch = as_batch(rows + 1)

    @jax.jit
    def bounds(joint):
        model.joint = joint
        return model.variational_bound({}, batch, KEY, levels=64)

    def bound_of(joint):
        return np.asarray(bounds(np.pad(joint, ((1, 0),) * 4).astype(np.float32) + 1e-30))

    bound = bound_of(JOINT)
    exact = -np.log(JOINT[tuple(rows.T)])
    difference = bound - exact
    error = difference.std() / np.sqrt(len(rows))
    assert abs(difference.mean()) < 4 * error < 0.1
    assert np.mean(bound_of(np.full(JOINT.shape, 1 / 81)) - exact) > 0.3


def test_masks_are_as_frequent_as_the_time_and_count_its_inverse(masked):
    model, params = masked
    many = {name: np.tile(x, (50, 1)) for name, x in BATCH.items()}
    many["decoder_target_tokens"][0, 3:] = 0
    run = jax.jit(
        lambda batch: (model.bound(params, batch, KEY), model.loss_fn(params, batch, KEY))
    )
    (nats, logits, hidden), (loss, metrics) = jax.device_get(run(many))
    tokens = many["decoder_target_tokens"]
    assert hidden.mean() == pytest.approx(0.5, abs=0.05)
    assert not hidden[tokens == 0].any()
    assert not nats[~hidden].any()
    costs = -np.take_along_axis(log_softmax(logits, axis=-1), tokens[..., None], axis=-1)[..., 0]
    ratio = np.where(hidden, nats / costs, 0).max(axis=1)  # 1 / t of each row
    seen = hidden.any(axis=1)
    times = 1 / ratio[seen]
    assert times.min() > 0
    assert times.max() < 1 + 1e-6
    shares = hidden.mean(axis=1)[seen]
    assert np.corrcoef(times, shares)[0, 1] > 0.6
    assert float(loss) == pytest.approx(nats.sum() / (tokens > 0).sum(), rel=1e-4)
    assert float(metrics["nats_per_token_bound"].compute()) == pytest.approx(float(loss), rel=1e-5)


def test_masked_tokens_are_not_seen_and_evaluations_the_same_every_time(masked):
    model, params = masked
    hidden = np.broadcast_to(np.arange(6) % 2 == 0, TOKENS.shape)
    logits = jax.jit(model.logits)
    other = np.where(hidden, 5, TOKENS)
    np.testing.assert_array_equal(logits(params, other, hidden), logits(params, TOKENS, hidden))
    assert np.abs(logits(params, TOKENS, ~hidden) - logits(params, TOKENS, hidden)).max() > 1e-3
    evaluate = jax.jit(model.eval_fn)
    assert evaluate(params, BATCH)[0] == evaluate(params, BATCH)[0]
    scores = jax.jit(model.score_batch)(params, BATCH)
    assert scores.shape == (4,)
    assert (scores < 0).all()
    assert evaluation_rng(BATCH) == evaluation_rng(as_batch(TOKENS))
    with pytest.raises(ValueError, match="leave return_intermediates off"):
        model.score_batch(params, BATCH, return_intermediates=True)


def test_predictions_may_be_compiled_as_the_evaluator_does(masked):
    model, params = masked
    given = np.broadcast_to(np.arange(6) >= 4, TOKENS.shape).astype(np.int32)
    batch = {**BATCH, "decoder_causal_attention": given}
    predict = functools.partial(model.predict_batch_with_aux, decoder_params={"steps": 3})
    made = jax.jit(predict)(params, batch)[0]
    np.testing.assert_array_equal(predict(params, batch)[0], made)
    np.testing.assert_array_equal(made[:, 4:], TOKENS[:, 4:])
    assert (made[:, :4] >= 3).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AutoregressiveModel(masked_network(), None, None), "needs TokenNetwork.causal"),
        (
            lambda: MaskedDiffusionModel(TokenNetwork(tiny_config()), None, None),
            "extra_inputs=1, the mask",
        ),
        (
            lambda: MaskedDiffusionModel(masked_network(), None, None, lowest_time=1.0),
            r"lowest_time=1\.0: expected a number between 0 and 1",
        ),
        (
            lambda: MaskedDiffusionModel(masked_network(), TokenVocabulary(4), None),
            "the vocabulary has 7 ids, but the network vocab_size=6",
        ),
    ],
)
def test_what_does_not_fit_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
