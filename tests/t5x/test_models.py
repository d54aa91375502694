"""Encoder-decoder models: the reference's training and prediction, and their own contracts."""

import functools
import json
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from t5x import adafactor, decoding, losses, metrics, models
from t5x.examples.t5 import network
from t5x.models.metrics import metrics_of_mean
from tests.t5x import networks


def make_model(module, **kwargs):
    return models.EncoderDecoderModel(module, None, None, None, **kwargs)


@pytest.fixture(scope="module")
def tiny():
    module, params, batch = networks.tiny_t5()
    return make_model(module), params, batch


@pytest.fixture(scope="module")
def shallow():
    module, params, batch = networks.tiny_t5(networks.SHALLOW)
    return make_model(module), params, batch


def predict_cases():
    return json.loads(str(networks.load("predict")[0]["cases_json"]))


@pytest.mark.parametrize("case", predict_cases(), ids=lambda c: f"{c['case']}-{c['decode_fn']}")
def test_predictions_are_the_references(case):
    z, config = networks.load("predict")
    model = make_model(
        network.Transformer(networks.t5_config(config)),
        decode_fn=getattr(decoding, case["decode_fn"]),
    )
    batch = networks.part(z, "batch/")
    if case["prompt_with_targets"]:
        batch["decoder_input_tokens"] = z["prompt_decoder_input_tokens"]
    predict = jax.jit(
        lambda params, batch: model.predict_batch_with_aux(
            params,
            batch,
            decoder_params={
                **networks.REFERENCE_DECODING[case["decode_fn"]],
                **case["decoder_params"],
            },
            num_decodes=case["num_decodes"],
            return_all_decodes=True,
            prompt_with_targets=case["prompt_with_targets"],
        )
    )
    decodes, aux = predict(networks.unflat(networks.part(z, "params/")), batch)
    expected_scores = z[f"case_{case['case']}/scores"]
    used = expected_scores > -1e6
    np.testing.assert_array_equal(decodes[used], z[f"case_{case['case']}/decodes"][used])
    np.testing.assert_allclose(aux["scores"][used], expected_scores[used], rtol=1e-5)


def test_scores_are_the_references():
    z, config = networks.load("predict")
    model = make_model(network.Transformer(networks.t5_config(config)))
    params = networks.unflat(networks.part(z, "params/"))
    scores = jax.jit(model.score_batch)(params, networks.part(z, "batch/"))
    np.testing.assert_allclose(scores, z["score_batch"], rtol=1e-5)


def test_training_steps_are_the_references():
    z, config = networks.load("train")
    rule = adafactor.Adafactor(
        logical_factor_rules=adafactor.standard_logical_factor_rules(), **config["optimizer"]
    )
    model = make_model(network.Transformer(networks.t5_config(config)), **config["model"])
    optimizer = rule.create(networks.unflat(networks.part(z, "init_params/")))

    @jax.jit
    def step(optimizer, batch):
        loss_fn = jax.value_and_grad(model.loss_fn, has_aux=True)
        (loss, step_metrics), grads = loss_fn(optimizer.target, batch, None)
        new = optimizer.apply_gradient(grads, learning_rate=config["learning_rate"])
        return new, loss, step_metrics, grads

    for i in range(len(z["loss"])):
        batch = networks.part(z, f"batch_{i}/")
        optimizer, loss, step_metrics, grads = step(optimizer, batch)
        np.testing.assert_allclose(loss, z["loss"][i], rtol=1e-5)
        for name in ("z_loss", "cross_ent_loss"):
            np.testing.assert_allclose(step_metrics[name].compute(), z[name][i], rtol=1e-5)
        accuracy = step_metrics["accuracy"]
        assert [accuracy.total, accuracy.count] == list(z["accuracy_total_count"][i])
        norm = np.sqrt(sum(float(jnp.sum(g**2)) for g in jax.tree.leaves(grads)))
        np.testing.assert_allclose(norm, z["grad_norm"][i], rtol=1e-4)
        if i == 0:
            for k, grad in networks.flat(grads).items():
                expected = z[f"first_grad/{k}"]
                scale = np.abs(expected).max()
                np.testing.assert_allclose(grad, expected, atol=2e-5 * scale, rtol=0, err_msg=k)
    for k, param in networks.flat(optimizer.target).items():
        np.testing.assert_allclose(param, z[f"final_params/{k}"], atol=2e-5, err_msg=k)
    batch = networks.part(z, "batch_0/")
    loss, _ = jax.jit(model.eval_fn)(optimizer.target, batch)
    np.testing.assert_allclose(loss, z["final_loss_on_batch_0"], rtol=1e-5)
    scores = jax.jit(model.score_batch)(optimizer.target, batch)
    np.testing.assert_allclose(scores, z["final_score_batch_0"], rtol=1e-5)


def test_initial_variables_have_the_shapes_of_the_network(tiny):
    model, params, batch = tiny
    shapes = {k: v.shape for k, v in batch.items() if k.endswith("_tokens")}
    variables = jax.eval_shape(
        lambda: model.get_initial_variables(
            jax.random.key(0), shapes, dict.fromkeys(shapes, jnp.int32)
        )
    )
    assert set(variables) == {"params", "params_axes"}
    expected = jax.tree.map(jnp.shape, params)
    assert jax.tree.map(lambda x: x.shape, variables["params"]) == expected


class Counting(network.Transformer):
    """Counts, while tracing, how often each half of the network is applied."""

    calls: ClassVar[list[str]] = []

    def encode(self, *args, **kwargs):
        self.calls.append("encode")
        return super().encode(*args, **kwargs)

    def decode(self, *args, **kwargs):
        self.calls.append("decode")
        return super().decode(*args, **kwargs)


@pytest.mark.parametrize("decode_fn", [decoding.temperature_sample, decoding.beam_search])
def test_prediction_encodes_once_and_decodes_only_in_the_loop(tiny, decode_fn):
    _, params, batch = tiny
    Counting.calls.clear()
    predict = jax.jit(make_model(Counting(networks.TINY), decode_fn=decode_fn).predict_batch)
    predict.lower(params, batch)
    assert Counting.calls.count("encode") == 1
    assert Counting.calls.count("decode") == 1  # the body of the loop, traced once
    Counting.calls.clear()
    predict.lower(params, batch)
    assert Counting.calls == []  # one compilation a bucket


class WithoutCacheMethod(nn.Module):
    """A network which only allocates its cache while decoding, as upstream's do."""

    config: network.T5Config

    def setup(self):
        self.inner = network.Transformer(self.config)

    def encode(self, *args, **kwargs):
        return self.inner.encode(*args, **kwargs)

    def decode(self, encoded, *args, decode, **kwargs):
        if decode and self.has_variable("cache", "steps"):
            steps = self.get_variable("cache", "steps")
            self.put_variable("cache", "steps", steps + 1)
        elif decode:
            self.put_variable("cache", "steps", jnp.zeros((), jnp.int32))
        # No key or value cache: the decoder sees one token, which suffices here.
        return self.inner.decode(encoded, *args, decode=False, **kwargs)


def test_networks_without_init_cache_get_zeros_of_the_right_shapes(tiny):
    _, params, batch = tiny
    model = make_model(WithoutCacheMethod(networks.TINY), decode_fn=decoding.temperature_sample)
    cache = model._init_cache({"inner": params}, jnp.ones((2, 7, 16)), jnp.ones((2, 7), int), 5)
    assert cache == {"steps": 0}
    decodes = jax.jit(model.predict_batch)({"inner": params}, batch)
    assert decodes.shape == (2, 6)


def test_predictions_do_not_depend_on_the_rest_of_the_batch(tiny):
    model, params, batch = tiny
    greedy = functools.partial(decoding.temperature_sample, temperature=0.0)
    model = make_model(model.module, decode_fn=greedy)
    predict = jax.jit(model.predict_batch)
    decodes = predict(params, batch)
    for row in range(2):
        other = {k: np.concatenate([v[row : row + 1], 0 * v[:1]]) for k, v in batch.items()}
        np.testing.assert_array_equal(predict(params, other)[0], decodes[row])


def test_options_of_prediction(tiny):
    model, params, batch = tiny
    sampler = make_model(
        model.module,
        decode_fn=decoding.temperature_sample,
        default_decoder_params=models.DecoderParams(return_all_decodes=True, num_decodes=3),
    )
    options = {"topk": 0, "temperature": 2.0}

    @functools.partial(jax.jit, static_argnames="return_all_decodes")
    def sample(rng, return_all_decodes=None):
        return sampler.predict_batch_with_aux(params, batch, rng, options, return_all_decodes)

    a, aux = sample(jax.random.key(1))
    assert a.shape == (2, 3, 6)
    assert aux["scores"].shape == (2, 3)
    assert options == {"topk": 0, "temperature": 2.0}
    b, _ = sample(jax.random.key(2))
    assert (a != b).any()
    best, _ = sample(jax.random.key(1), return_all_decodes=False)
    np.testing.assert_array_equal(best, a[:, -1])
    with pytest.raises(ValueError, match="not both"):
        sampler.predict_batch_with_aux(
            params, batch, jax.random.key(1), {"decode_rng": jax.random.key(2)}
        )


def test_prompts_are_the_decoder_inputs_without_eos(tiny):
    model, params, batch = tiny
    prompts = np.zeros_like(batch["decoder_input_tokens"])
    prompts[:, 1:4] = [[7, 1, 0], [9, 8, 0]]
    model = make_model(model.module, decode_fn=decoding.temperature_sample)
    predict = jax.jit(functools.partial(model.predict_batch_with_aux, prompt_with_targets=True))
    decodes, _ = predict(params, {**batch, "decoder_input_tokens": prompts})
    assert decodes[0, 0] == 7
    np.testing.assert_array_equal(decodes[1, :2], [9, 8])


def test_intermediates_of_scoring(shallow):
    model, params, batch = shallow
    score = jax.jit(model.score_batch, static_argnames="return_intermediates")
    scores, intermediates = score(params, batch, return_intermediates=True)
    np.testing.assert_allclose(scores, score(params, batch), rtol=1e-6)
    token_scores = intermediates["decoder"]["token_scores"][0]
    np.testing.assert_allclose(token_scores.sum(-1), scores, rtol=1e-6)
    assert (token_scores[0, -1]) == 0  # padding
    np.testing.assert_array_equal(
        intermediates["decoder"]["target_tokens"][0], batch["decoder_target_tokens"]
    )


def test_dropout_needs_its_key_and_changes_the_loss(shallow):
    model, params, batch = shallow
    plain, _ = jax.jit(model.eval_fn)(params, batch)
    loss_fn = jax.jit(model.loss_fn)
    a, b = (loss_fn(params, batch, jax.random.key(i))[0] for i in range(2))
    assert len({float(plain), float(a), float(b)}) == 3


@pytest.mark.parametrize("factor", [None, 3.0, "NUM_REAL_TARGET_TOKENS", "AVERAGE_PER_SEQUENCE"])
def test_parts_normalised_globally_sum_to_the_whole(shallow, factor):
    model, params, batch = shallow
    model = make_model(model.module, z_loss=1e-3, loss_normalizing_factor=factor)
    whole, whole_metrics = jax.jit(model.eval_fn)(params, batch)
    fixed, batch = model.normalize_globally(batch)
    eval_fn = jax.jit(fixed.eval_fn)
    parts = [eval_fn(params, {k: v[row : row + 1] for k, v in batch.items()}) for row in range(2)]
    np.testing.assert_allclose(sum(loss for loss, _ in parts), whole, rtol=1e-5)
    merged = metrics.merge(parts[0][1], parts[1][1])
    # The denominators of metrics count tokens, whatever weights the loss uses.
    assert merged["accuracy"].count == whole_metrics["accuracy"].count == 11
    assert isinstance(model._loss_normalizing_factor, type(factor))


def test_metrics_carry_upstreams_names(shallow):
    model, params, batch = shallow
    batch = {
        **batch,
        "encoder_segment_ids": (batch["encoder_input_tokens"] > 0).astype(np.int32),
        "decoder_segment_ids": np.array([[1, 1, 1, 2, 2, 0], [1] * 6], np.int32),
    }
    loss, result = jax.jit(model.eval_fn)(params, batch)
    result = metrics.set_duration(result, 2.0)
    values = metrics.compute(result)
    assert values["loss"] == pytest.approx(float(loss), rel=1e-6)
    assert values["loss_per_nonpadding_target_token"] == pytest.approx(float(loss) / 11, rel=1e-5)
    assert values["loss_per_all_target_tokens"] == pytest.approx(float(loss) / 12, rel=1e-5)
    left_out = {"loss_per_nonpadding_target_token", "loss_per_all_target_tokens"}
    left_out |= {"z_loss_per_all_target_tokens", "cross_ent_loss_per_all_target_tokens"}
    assert set(result) - set(metrics_of_mean(result)) == left_out
    assert values["cross_ent_loss"] == pytest.approx(float(loss), rel=1e-6)
    assert values["timing/seqs_per_second"] == 1
    assert values["timing/target_tokens_per_second"] == 6
    assert values["timing/steps_per_second"] == 0.5
    assert values["effective_batch_size/decoder"] == 3
    assert values["non_padding_fraction/loss_weights"] == pytest.approx(11 / 12)
    assert values["non_padding_fraction/decoder"] == pytest.approx(11 / 12)
    assert values["non_padding_fraction/overall"] == pytest.approx((11 + 11) / 26)


def test_prefixes_are_cut_off_rows_of_any_rank():
    rows = jnp.array([[1, 2, 3, 4, 5, 0], [6, 7, 8, 0, 0, 0]])
    assert models.remove_prefix(rows, jnp.array([2, 0])).tolist() == [
        [3, 4, 5, 0, 0, 0],
        [6, 7, 8, 0, 0, 0],
    ]
    decodes = jnp.stack([rows, rows + 10], axis=1)
    assert models.remove_prefix(decodes, jnp.array([5, 1]))[:, 1].tolist() == [
        [10, 0, 0, 0, 0, 0],
        [17, 18, 10, 10, 10, 0],
    ]


def test_special_factor_by_enum(shallow):
    model, params, batch = shallow
    special = losses.SpecialLossNormalizingFactor.NUM_REAL_TARGET_TOKENS
    special_model = make_model(model.module, loss_normalizing_factor=special)
    a, b = (jax.jit(m.eval_fn)(params, batch)[0] for m in (special_model, model))
    assert float(a) == pytest.approx(float(b) / 11, rel=1e-5)
