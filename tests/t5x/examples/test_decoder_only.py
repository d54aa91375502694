"""The decoder-only network and its model: caches, prompts, prefixes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t5x import decoding, models
from t5x.data.converters import DecoderFeatureConverter
from t5x.examples.decoder_only import network
from tests.t5x import networks

CONFIG = network.TransformerConfig(
    vocab_size=24,
    emb_dim=16,
    num_heads=2,
    num_layers=2,
    head_dim=8,
    mlp_dim=24,
    mlp_activations=("gelu", "linear"),
)
SINGLE = CONFIG.replace(scan_layers=False)
LENGTHS = {"inputs": 5, "targets": 6}


def make_model(config=CONFIG, **kwargs):
    return models.DecoderOnlyModel(network.DecoderWrapper(config), None, None, **kwargs)


def params_of(config):
    model = make_model(config)
    shapes = {"decoder_input_tokens": (1, 4), "decoder_target_tokens": (1, 4)}
    types = dict.fromkeys(shapes, jnp.int32)
    init = functools.partial(model.get_initial_variables, input_shapes=shapes, input_types=types)
    return networks.random_params(jax.eval_shape(init, jax.random.key(0))["params"])


@pytest.fixture(scope="module")
def params():
    return params_of(CONFIG)


def batch_of(*examples):
    """Examples (inputs, targets) through the converter, as a batch."""
    converter = DecoderFeatureConverter(pack=False)
    dicts = [
        {"inputs": np.array(i, np.int32), "targets": np.array(t, np.int32)} for i, t in examples
    ]
    rows = list(converter(dicts, LENGTHS))
    return {k: np.stack([row[k] for row in rows]) for k in rows[0]}


PROMPTS = [[5, 9, 7, 4, 8], [6], [3, 11]]


def test_parameter_names_and_shapes(params):
    shapes = {k: v.shape for k, v in networks.flat(params).items()}
    assert shapes["decoder/token_embedder/embedding"] == (24, 16)
    assert shapes["decoder/decoder/self_attention/query/kernel"] == (16, 2, 16)
    assert shapes["decoder/decoder/relpos_bias/rel_embedding"] == (2, 2, 32)
    assert shapes["decoder/decoder_norm/scale"] == (16,)
    assert shapes["decoder/logits_dense/kernel"] == (16, 24)
    single = {k: v.shape for k, v in networks.flat(params_of(SINGLE)).items()}
    assert single["decoder/layers_1/pre_self_attention_layer_norm/scale"] == (16,)
    assert not any("cross" in name or "encoder" in name for name in shapes)


@pytest.mark.parametrize("config", [CONFIG, SINGLE], ids=["scanned", "single"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_prefilled_decoding_equals_teacher_forcing(config, bidirectional):
    """Whatever the length of a row's prompt, at every position after it."""
    params = params_of(config)
    model = make_model(config, inputs_bidirectional_attention=bidirectional)
    rng = np.random.default_rng(1)
    targets = [rng.integers(2, 24, 6) for _ in PROMPTS]
    batch = batch_of(*zip(PROMPTS, targets))
    forced = jax.jit(model._compute_logits)(params, batch)
    lengths = np.array([len(p) for p in PROMPTS])
    cache = jax.jit(model._prefilled_cache)(params, batch, lengths)

    @jax.jit
    def step(cache, tokens):
        logits, new = model.module.apply(
            {"params": params, "cache": cache},
            tokens,
            tokens,
            enable_dropout=False,
            decode=True,
            max_decode_length=11,
            mutable=["cache"],
        )
        return logits[:, 0], new["cache"]

    rows = np.arange(3)
    for t in range(6):
        tokens = batch["decoder_input_tokens"][rows, lengths + t]
        logits, cache = step(cache, tokens[:, None])
        np.testing.assert_allclose(logits, forced[rows, lengths + t], atol=3e-5)


def test_a_bidirectional_prefix_sees_itself_and_nothing_of_the_targets(params):
    model = make_model(inputs_bidirectional_attention=True)
    logits = jax.jit(model._compute_logits)
    a = logits(params, batch_of(([5, 9, 7], [4, 8])))
    b = logits(params, batch_of(([5, 9, 10], [4, 8])))
    assert np.abs(a[0, 0] - b[0, 0]).max() > 1e-3  # BOS sees the end of the inputs
    c = logits(params, batch_of(([5, 9, 7], [4, 2])))
    np.testing.assert_allclose(a[0, :5], c[0, :5], atol=1e-6)
    causal = jax.jit(make_model()._compute_logits)
    d, e = (causal(params, batch_of((x, [4, 8]))) for x in ([5, 9, 7], [5, 9, 10]))
    np.testing.assert_allclose(d[0, :3], e[0, :3], atol=1e-6)


def greedily(model, params, prompt, length):
    """Greedy continuation by teacher forcing, one token after the other."""
    tokens, logits = [], jax.jit(model._compute_logits)
    while len(prompt) + len(tokens) < length and (not tokens or tokens[-1] != 1):
        row = np.zeros((1, length + 1), np.int32)
        row[0, 1 : 1 + len(prompt) + len(tokens)] = [*prompt, *tokens]
        causal = (np.arange(length + 1) <= len(prompt)).astype(np.int32)[None]
        seen = (np.arange(length + 1) <= len(prompt) + len(tokens)).astype(np.int32)[None]
        batch = {
            "decoder_input_tokens": row,
            "decoder_target_tokens": seen,
            "decoder_causal_attention": causal,
        }
        tokens.append(int(logits(params, batch)[0, len(prompt) + len(tokens)].argmax()))
    return tokens + [0] * (length - len(tokens))


@pytest.mark.parametrize("bidirectional", [False, True])
def test_prompts_of_unequal_lengths_are_continued_as_if_alone(params, bidirectional):
    model = make_model(inputs_bidirectional_attention=bidirectional)
    batch = batch_of(*((p, []) for p in PROMPTS))
    options = {"temperature": 0.0}
    predict = jax.jit(functools.partial(model.predict_batch_with_aux, decoder_params=options))
    decodes, aux = predict(params, batch)
    assert aux["scores"].shape == (3,)
    for row, prompt in enumerate(PROMPTS):
        assert list(decodes[row]) == greedily(model, params, prompt, 11)


def test_beams_score_what_the_model_scores(params):
    model = make_model(decode_fn=decoding.beam_search)
    batch = batch_of(*((p, []) for p in PROMPTS))
    decodes, aux = jax.jit(
        lambda: model.predict_batch_with_aux(
            params, batch, num_decodes=3, return_all_decodes=True, decoder_params={"alpha": 0.0}
        )
    )()
    assert decodes.shape == (3, 3, 11)
    assert (np.diff(aux["scores"]) >= 0).all()
    score = jax.jit(model.score_batch)
    for row, prompt in enumerate(PROMPTS):
        tokens = np.concatenate([prompt, decodes[row, -1]])[:11].astype(np.int32)
        scored = {
            "decoder_target_tokens": tokens[None],
            "decoder_input_tokens": np.pad(tokens, (1, 0))[None, :-1],
            "decoder_loss_weights": ((np.arange(11) >= len(prompt)) & (tokens > 0))[None],
        }
        np.testing.assert_allclose(score(params, scored)[0], aux["scores"][row, -1], atol=1e-3)


def test_prediction_needs_prompts(params):
    with pytest.raises(ValueError, match="'inputs' and 'targets'"):
        make_model().predict_batch(params, {"decoder_input_tokens": np.zeros((1, 4), int)})
    tokens = jnp.ones((1, 4), jnp.int32)
    with pytest.raises(ValueError, match="prefill_lengths"):
        network.DecoderWrapper(CONFIG).apply({"params": params}, tokens, tokens, prefill=True)


def test_loss_is_on_targets_only(params):
    batch = batch_of(([5, 9, 7], [4, 8, 1]))
    loss, metrics = jax.jit(make_model().eval_fn)(params, batch)
    scores = jax.jit(make_model().score_batch)(params, batch)
    np.testing.assert_allclose(loss, -scores[0], rtol=1e-5)
    assert metrics["accuracy"].count == 3
