"""The scanned T5 against the same function with one set of parameters for each layer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t5x import adafactor, decoding, models
from t5x.checkpoints import CheckpointError, scan_params, unscan_params
from t5x.examples.scalable_t5 import network
from t5x.train_state import FlaxOptimTrainState
from tests.cases import slow_but
from tests.t5x import networks

CONFIG = network.T5Config(
    vocab_size=24,
    emb_dim=16,
    num_heads=2,
    num_encoder_layers=1,
    num_decoder_layers=2,
    head_dim=8,
    mlp_dim=24,
    mlp_activations=("gelu", "linear"),
    dropout_rate=0.1,
)


def make_model(config, **kwargs):
    rule = adafactor.Adafactor(logical_factor_rules=adafactor.standard_logical_factor_rules())
    return models.EncoderDecoderModel(network.Transformer(config), None, None, rule, **kwargs)


@pytest.fixture(scope="module")
def plain():
    """(parameters of a plain T5, a batch)."""
    sizes = {k: getattr(CONFIG, k) for k in networks.TINY.__dataclass_fields__}
    module, params, batch = networks.tiny_t5(networks.TINY.replace(**sizes))
    return module, params, batch


def variables_of(model, batch):
    shapes = {k: v.shape for k, v in batch.items() if k.endswith("_tokens")}
    types = dict.fromkeys(shapes, jnp.int32)
    return jax.eval_shape(lambda: model.get_initial_variables(jax.random.key(0), shapes, types))


def call(module, params, batch):
    names = ("encoder_input_tokens", "decoder_input_tokens", "decoder_target_tokens")
    return networks.apply(module, params, **{k: batch[k] for k in names})


def test_parameter_names_shapes_and_axes(plain):
    variables = variables_of(make_model(CONFIG), plain[2])
    shapes = {k: v.shape for k, v in networks.flat(variables["params"]).items()}
    assert shapes["encoder/encoder/mlp/wi_0/kernel"] == (16, 1, 24)
    assert shapes["encoder/encoder/relpos_bias/rel_embedding"] == (2, 1, 32)
    assert shapes["decoder/decoder/pre_cross_attention_layer_norm/scale"] == (16, 2)
    assert shapes["decoder/decoder_norm/scale"] == (16,)
    axes = {k: tuple(v.names) for k, v in networks.flat(variables["params_axes"]).items()}
    assert set(axes) == {f"{k}_axes" for k in shapes}
    assert axes["encoder/encoder/mlp/wi_0/kernel_axes"] == ("embed", "layers", "mlp")
    assert axes["decoder/decoder/pre_mlp_layer_norm/scale_axes"] == ("embed", "layers")
    assert axes["token_embedder/embedding_axes"] == ("vocab", "embed")


def test_layers_are_initialised_independently(plain):
    model, tokens = network.Transformer(CONFIG), jnp.ones((1, 2), jnp.int32)
    init = jax.jit(lambda: model.init(jax.random.key(0), *[tokens] * 3, enable_dropout=False))
    kernel = init()["params"]["decoder"]["decoder"]["mlp"]["wo"]["kernel"]
    assert not np.allclose(kernel[:, 0], kernel[:, 1])
    assert kernel.std() == pytest.approx(1 / np.sqrt(24), rel=0.2)


def test_logits_are_those_of_the_plain_network(plain):
    module, params, batch = plain
    expected = call(module, params, batch)
    ours = call(network.Transformer(CONFIG), scan_params(params), batch)
    np.testing.assert_allclose(ours, expected, atol=1e-5)
    first = CONFIG.replace(param_scan_axis=0)
    ours = call(network.Transformer(first), scan_params(params, axis=0), batch)
    np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_conversion_there_and_back(plain):
    _, params, _ = plain
    back = unscan_params(scan_params(params))
    jax.tree.map(np.testing.assert_array_equal, back, params)
    scanned = scan_params(params)
    table = scanned["decoder"]["decoder"]["relpos_bias"]["rel_embedding"]
    table[0, 1, 5] += 1
    with pytest.raises(CheckpointError, match="different tables"):
        unscan_params(scanned)
    layers = unscan_params(scanned, shared_positions=False)["decoder"]
    np.testing.assert_array_equal(layers["layers_1"]["relpos_bias"]["rel_embedding"], table[:, 1])
    with pytest.raises(CheckpointError, match="layers_0"):
        scan_params(scanned)
    with pytest.raises(CheckpointError, match="no scanned layers"):
        unscan_params(params)
    params = jax.tree.map(lambda x: x, params)  # a tree of its own
    del params["decoder"]["layers_1"]["mlp"]["wo"]
    with pytest.raises(CheckpointError, match="mlp/wo/kernel"):
        scan_params(params)


@pytest.mark.parametrize("policy", slow_but(["full"], {"full": "full", "minimal": "minimal"}))
def test_rematerialised_gradients_are_the_same(plain, policy):
    """Those of the decoder: the encoder's layers are scanned by the same function."""
    batch, params = plain[2], scan_params(plain[1])
    tokens = [batch[f"{name}_tokens"] for name in ("encoder_input", "decoder_input")]
    encoded = np.random.default_rng(0).normal(size=(*tokens[0].shape, CONFIG.emb_dim))

    def grads(policy):
        module = network.Transformer(CONFIG.replace(remat_policy=policy))
        key = jax.random.key(1)  # dropout must drop the same when computed again

        def loss(params):
            logits = module.apply(
                {"params": params},
                encoded.astype(np.float32),
                *tokens,
                tokens[1],
                enable_dropout=True,
                rngs={"dropout": key},
                method="decode",
            )
            return jnp.mean(jax.nn.log_softmax(logits)[..., 3])

        return jax.jit(jax.grad(loss))(params)

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), grads(policy), grads("none")
    )


def test_unknown_remat_policies_are_named(plain):
    batch, params = plain[2], scan_params(plain[1])
    with pytest.raises(ValueError, match="remat_policy='some'"):
        call(network.Transformer(CONFIG.replace(remat_policy="some")), params, batch)


def test_adafactor_updates_scanned_layers_as_it_updates_single_ones(plain):
    # Large enough that every kernel is factored, as it is by its axes when scanned.
    config = CONFIG.replace(emb_dim=128, head_dim=64, mlp_dim=130, vocab_size=128)
    batch, rng = plain[2], np.random.default_rng(0)
    single_model = make_model(config.replace(scan_layers=False))
    shapes = variables_of(single_model, batch)
    params = networks.random_params(shapes["params"])
    grads = [jax.tree.map(lambda x: rng.normal(size=x.shape), params) for _ in range(3)]
    grads = [jax.tree.map(np.float32, g) for g in grads]
    results = []
    for model, convert in ((single_model, lambda x: x), (make_model(config), scan_params)):
        variables = {
            **variables_of(model, batch),
            "params": jax.tree.map(jnp.asarray, convert(params)),
        }
        state = FlaxOptimTrainState.create(model.optimizer_def, variables)
        step = jax.jit(lambda state, g: state.apply_gradient(g, learning_rate=0.1))
        for g in grads:
            state = step(state, convert(g))
        results.append(state.params)
    single = networks.flat(results[0])
    ours = networks.flat(unscan_params(results[1], shared_positions=False))
    for name, before in networks.flat(params).items():
        np.testing.assert_allclose(ours[name], single[name], atol=1e-5, err_msg=name)
        assert not np.allclose(ours[name], before, atol=1e-3), name


@pytest.mark.parametrize(
    "decode_fn",
    slow_but(["beams"], {"samples": decoding.temperature_sample, "beams": decoding.beam_search}),
)
def test_decoding_is_that_of_the_plain_network(plain, decode_fn):
    module, params, batch = plain
    options = {"temperature": 0.0} if decode_fn is decoding.temperature_sample else {}
    results = []
    for model, p in (
        (models.EncoderDecoderModel(module, None, None, None, decode_fn=decode_fn), params),
        (make_model(CONFIG, decode_fn=decode_fn), scan_params(params)),
    ):
        predict = jax.jit(
            lambda p, model=model: model.predict_batch_with_aux(
                p, batch, num_decodes=3, return_all_decodes=True, decoder_params=options
            )
        )
        results.append(predict(p))
    (expected, expected_aux), (ours, aux) = results
    np.testing.assert_array_equal(ours, expected)
    np.testing.assert_allclose(aux["scores"], expected_aux["scores"], atol=1e-4)
