"""The MT3 network: reference values, cached decoding against teacher forcing, our options."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from mt3 import network
from t5x.layers import sinusoids
from tests.t5x.networks import random_params
from tests.vectors import golden_dir

TINY = network.T5Config(
    vocab_size=32,
    emb_dim=16,
    num_heads=2,
    num_encoder_layers=2,
    num_decoder_layers=2,
    head_dim=4,
    mlp_dim=24,
    mlp_activations=("gelu", "linear"),
)


def flat(tree):
    return traverse_util.flatten_dict(tree, sep="/")


def unflat(tree):
    return traverse_util.unflatten_dict(tree, sep="/")


def init(config, frames=12, features=8, real=False):
    """(module, parameters): random ones of the right shapes, or, with `real`, the initial ones."""
    module = network.Transformer(config)
    tokens = jnp.ones((1, 4), jnp.int32)
    inputs = jnp.ones((1, frames, features))

    def variables():
        return module.init(jax.random.key(0), inputs, tokens, tokens, enable_dropout=False)

    if real:
        return module, jax.jit(variables)()["params"]
    return module, random_params(jax.eval_shape(variables)["params"])


def noise(*shape):
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


@functools.cache
def _compiled(module, **static):
    return jax.jit(lambda p, a: module.apply({"params": p}, *a, enable_dropout=False, **static))


def apply(module, params, *args, **static):
    """`module.apply` without dropout, compiled as a whole, once for a module and shapes."""
    return _compiled(module, **static)(params, args)


def network_cases():
    return sorted(p.stem for p in golden_dir("mt3").glob("network_*.npz"))


@pytest.fixture(params=network_cases())
def golden(request):
    """(module, parameters, arrays) of one reference network."""
    folder = golden_dir("mt3")
    config = json.loads((folder / f"{request.param}.json").read_text())["config"]
    with np.load(folder / f"{request.param}.npz") as z:
        arrays = {k: z[k] for k in z.files}
    params = {k.removeprefix("param:"): v for k, v in arrays.items() if k.startswith("param:")}
    config = {k: tuple(v) if isinstance(v, list) else v for k, v in config.items()}
    return network.Transformer(network.T5Config(**config)), unflat(params), arrays


def loss_sum(module, params, z, z_coefficient=1e-4):
    logits = module.apply(
        {"params": params},
        z["encoder_input_tokens"],
        z["decoder_input_tokens"],
        z["decoder_target_tokens"],
        enable_dropout=False,
    )
    weights = z["decoder_target_tokens"] > 0
    log_z = jax.nn.logsumexp(logits, axis=-1)
    picked = jnp.take_along_axis(logits, z["decoder_target_tokens"][..., None], -1)[..., 0]
    z_loss = (z_coefficient * log_z**2 * weights).sum()
    return ((log_z - picked) * weights).sum() + z_loss, (z_loss, logits)


def test_forward_loss_and_gradients_are_the_references(golden):
    module, params, z = golden
    encoded = apply(module, params, z["encoder_input_tokens"], method="encode")
    np.testing.assert_allclose(encoded, z["encoded"], rtol=1e-4, atol=5e-5)
    grad_fn = jax.jit(jax.value_and_grad(lambda p: loss_sum(module, p, z), has_aux=True))
    (loss, (z_loss, logits)), grads = grad_fn(params)
    seen = z["decoder_target_tokens"] > 0
    np.testing.assert_allclose(logits[seen], z["logits"][seen], rtol=1e-4, atol=5e-5)
    np.testing.assert_allclose(loss, z["loss_sum"], rtol=1e-4)
    np.testing.assert_allclose(z_loss, z["z_loss_sum"], rtol=1e-4)
    grads = flat(grads)
    for name, grad in grads.items():
        np.testing.assert_allclose(
            np.linalg.norm(grad), z[f"gradnorm:{name}"], rtol=1e-3, err_msg=name
        )
    for name in (k for k in z if k.startswith("grad:")):
        np.testing.assert_allclose(
            grads[name.removeprefix("grad:")], z[name], rtol=1e-3, atol=5e-5, err_msg=name
        )


def decode_steps(module, params, inputs, steps, max_length=None):
    """Logits [B, steps, V] and tokens [B, steps] of greedy cached decoding."""
    variables = {"params": params}
    encoded = apply(module, params, inputs, method="encode")
    init_cache = jax.jit(
        lambda encoded: module.apply(
            variables, encoded, inputs, max_length or steps, method="init_cache", mutable=["cache"]
        )[1]
    )
    new = init_cache(encoded)

    @jax.jit
    def step(cache, tokens):
        return module.apply(
            {"params": params, "cache": cache},
            None,
            None,
            tokens,
            tokens,
            enable_dropout=False,
            decode=True,
            method="decode",
            mutable=["cache"],
        )

    tokens = jnp.zeros((len(inputs), 1), jnp.int32)
    all_logits, all_tokens = [], []
    for _ in range(steps):
        logits, new = step(new["cache"], tokens)
        tokens = logits.argmax(-1).astype(jnp.int32)
        all_logits.append(logits[:, 0])
        all_tokens.append(tokens[:, 0])
    return np.stack(all_logits, 1), np.stack(all_tokens, 1)


def test_cached_greedy_decoding_is_the_references(golden):
    module, params, z = golden
    expected = z["greedy_tokens_no_stop"]
    logits, tokens = decode_steps(module, params, z["encoder_input_tokens"], expected.shape[1])
    np.testing.assert_array_equal(tokens, expected)
    reference = z["greedy_step_logits_first4"]
    np.testing.assert_allclose(logits[:, : reference.shape[1]], reference, rtol=1e-4, atol=5e-5)


@pytest.mark.parametrize("max_length", [70, 200], ids=["last-bucket", "several-buckets"])
def test_cached_logits_equal_teacher_forced_logits(max_length):
    # 66 steps cross the edge of the first cache bucket (64).
    module, params = init(TINY)
    inputs = noise(3, 12, 8)
    logits, tokens = decode_steps(module, params, inputs, 66, max_length)
    shifted = np.pad(tokens, ((0, 0), (1, 0)))[:, :-1]
    forced = apply(module, params, inputs, shifted, np.ones_like(shifted))
    np.testing.assert_allclose(logits, forced, atol=2e-5, rtol=1e-5)


def test_cache_holds_projected_encodings_and_allocates_only_what_was_asked():
    module, params = init(TINY)
    inputs = noise(3, 12, 8)
    encoded = apply(module, params, inputs, method="encode")
    _, new = module.apply(
        {"params": params}, encoded, inputs, 20, method="init_cache", mutable=["cache"]
    )
    layer = new["cache"]["decoder"]["layers_1"]
    assert [x.shape for x in layer["self_attention"]["cached_key"]] == [(3, 2, 20, 4)]
    kernel = params["decoder"]["layers_1"]["encoder_decoder_attention"]["value"]["kernel"]
    expected = (encoded @ kernel).reshape(3, 12, 2, 4).transpose(0, 2, 1, 3)
    cross_value = layer["encoder_decoder_attention"]["cross_value"]
    np.testing.assert_allclose(cross_value, expected, atol=1e-5)


def test_cache_made_by_a_first_decode_call_has_the_same_shapes():
    module, params = init(TINY)
    inputs, tokens = jnp.ones((2, 12, 8)), jnp.ones((2, 9), jnp.int32)
    encoded = jnp.ones((2, 12, 16))

    def by_decoding(params):
        return module.apply(
            {"params": params},
            encoded,
            inputs,
            tokens,
            tokens,
            enable_dropout=False,
            decode=True,
            max_decode_length=20,
            method="decode",
            mutable=["cache"],
        )[1]["cache"]

    def by_init_cache(params):
        return module.apply(
            {"params": params}, encoded, inputs, 20, method="init_cache", mutable=["cache"]
        )[1]["cache"]

    a, b = (jax.eval_shape(f, params) for f in (by_decoding, by_init_cache))
    assert jax.tree.structure(a) == jax.tree.structure(b)
    assert jax.tree.leaves(a) == jax.tree.leaves(b)


def test_parameter_trees_are_the_released_ones():
    trees = json.loads((golden_dir("mt3") / "param_trees.json").read_text())
    for name, tree in trees.items():
        module = network.Transformer(network.T5Config(**tree["config"]))
        tokens = jnp.ones((1, 2), jnp.int32)
        inputs = jnp.ones((1, 3, 512))
        shapes = jax.eval_shape(
            lambda m=module, x=inputs, t=tokens: m.init(
                jax.random.key(0), x, t, t, enable_dropout=False
            )
        )
        params = flat(shapes["params"])
        assert {k: list(v.shape) for k, v in params.items()} == tree["params"], name
        assert sum(v.size for v in params.values()) == tree["num_params"], name
        axes = {k: list(v.names) for k, v in flat(shapes["params_axes"]).items()}
        assert axes == tree["axes"], name


def test_position_table_is_the_references():
    with np.load(golden_dir("mt3") / "sinusoidal.npz") as z:
        for name in (k for k in z.files if k.startswith("pe")):
            features = int(name.removeprefix("pe"))
            rows = z["rows"] if features == 512 else np.arange(len(z[name]))
            np.testing.assert_allclose(sinusoids(rows, features), z[name], atol=1e-6)


def test_dropout_shares_its_mask_along_length():
    module, params = init(TINY.replace(dropout_rate=0.5, num_encoder_layers=0))
    inputs = np.tile(noise(1, 1, 8), (1, 6, 1))

    def input_mask(p):
        _, state = module.apply(
            {"params": p},
            inputs,
            method="encode",
            rngs={"dropout": jax.random.key(3)},
            capture_intermediates=lambda m, _: m.name == "input_dropout",
            mutable=["intermediates"],
        )
        return np.asarray(state["intermediates"]["encoder"]["input_dropout"]["__call__"][0]) == 0

    dropped = input_mask(params)
    assert dropped.any()
    assert not dropped.all()
    assert (dropped == dropped[:, :1]).all()


def test_frame_stacking_cuts_windows():
    frames = np.arange(11.0)[None, :, None] * np.ones(2)
    stacked = np.asarray(network.stack_frames(frames, 4, 3))
    assert stacked.shape == (1, 3, 8)  # (11 - 4) // 3 + 1 windows
    np.testing.assert_array_equal(stacked[0, 1, ::2], [3, 4, 5, 6])
    np.testing.assert_array_equal(network.stack_frames(frames, 1, 2)[0, :, 0], [0, 2, 4, 6, 8, 10])
    config = TINY.replace(frame_stack=4, frame_stride=3)
    assert network.num_encoder_positions(11, config) == 3
    module, params = init(config, frames=11)
    assert params["encoder"]["continuous_inputs_projection"]["kernel"].shape == (32, 16)
    encoded = apply(module, params, jnp.ones((2, 11, 8)), method="encode")
    assert encoded.shape == (2, 3, 16)
    with pytest.raises(ValueError, match="frame_stack=4"):
        network.num_encoder_positions(3, config)


def test_encoder_output_positions_add_the_table_once_more():
    module, params = init(TINY)
    with_positions = network.Transformer(TINY.replace(encoder_output_positions=True))
    inputs = noise(2, 12, 8)
    plain, moved = (apply(m, params, inputs, method="encode") for m in (module, with_positions))
    np.testing.assert_allclose(
        moved - plain, np.tile(sinusoids(np.arange(12), 16), (2, 1, 1)), atol=1e-5
    )


def test_shift_tokens_start_as_the_sinusoid_of_their_time():
    shallow = TINY.replace(num_encoder_layers=0, num_decoder_layers=0)
    config = shallow.replace(shift_token_range=(3, 13), shift_step_in_encoder_frames=0.5)
    _, params = init(config, real=True)
    _, plain = init(shallow, real=True)
    table = params["decoder"]["token_embedder"]["embedding"]
    kernel = params["decoder"]["logits_dense"]["kernel"]
    encoder_times = sinusoids(np.arange(5), 16)
    np.testing.assert_allclose(table[3:13:2], np.sqrt(2) * encoder_times, atol=1e-6)
    assert np.mean(np.square(table[3:13])) == pytest.approx(1.0, abs=1e-5)
    np.testing.assert_allclose(kernel[:, 3:13], table[3:13].T / 4, atol=1e-6)
    others = np.r_[0:3, 13:32]
    np.testing.assert_array_equal(
        table[others], plain["decoder"]["token_embedder"]["embedding"][others]
    )
    with pytest.raises(ValueError, match="shift_token_range"):
        init(TINY.replace(shift_token_range=(3, 40)))


def test_conv_stem_pools_frequency_and_sees_neighbouring_frames():
    config = TINY.replace(conv_channels=(3, 5), conv_pool=True, num_encoder_layers=0)
    module, params = init(config)
    assert params["encoder"]["conv_stem"]["conv_1_kernel"].shape == (3, 3, 3, 5)
    assert params["encoder"]["continuous_inputs_projection"]["kernel"].shape == (2 * 5, 16)
    inputs = noise(1, 12, 8)

    def encode(x):
        return apply(module, params, x, method="encode")

    louder = inputs.copy()
    louder[0, 6] += 1.0
    changed = np.abs(encode(inputs) - encode(louder)).max(-1)[0] > 1e-6
    np.testing.assert_array_equal(np.flatnonzero(changed), [4, 5, 6, 7, 8])


def test_tied_logits_use_the_embedding():
    module, params = init(TINY.replace(logits_via_embedding=True))
    assert "logits_dense" not in params["decoder"]
    tokens = jnp.ones((1, 4), jnp.int32)
    logits = apply(module, params, jnp.ones((1, 12, 8)), tokens, tokens)
    assert logits.shape == (1, 4, 32)


def test_bfloat16_activations_give_float32_logits_near_the_float32_ones():
    module, params = init(TINY)
    half = network.Transformer(TINY.replace(dtype=jnp.bfloat16))
    inputs = noise(2, 12, 8)
    tokens = jnp.arange(1, 9).reshape(2, 4)
    full, low = (apply(m, params, inputs, tokens, tokens) for m in (module, half))
    assert low.dtype == jnp.float32
    np.testing.assert_allclose(low, full, atol=0.15)
    assert np.abs(low - full).max() > 1e-5  # it did compute in bfloat16
