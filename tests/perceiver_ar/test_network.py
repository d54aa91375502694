import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from perceiver_ar import masks
from perceiver_ar.checkpoints import stack_layers
from perceiver_ar.config import PerceiverARConfig
from perceiver_ar.network import PerceiverAR
from t5x.losses import compute_weighted_cross_entropy
from tests.cases import slow_but
from tests.perceiver_ar.reference import (
    ABSOLUTE,
    TINY,
    config_of,
    load,
    logits_of,
    network_files,
    random_tokens,
    tiny,
    tree_of,
)

ONE_LAYER = {"num_transformers_per_block": 1}
IMAGE = {
    "position_encoding_type": "absolute",
    "position_encoding": "random",
    "learnable_position_embeddings": True,
    "input_idx_size": (6, 6, 5),
}
#: Every kind of network; the tests of properties hold for all.
VARIANTS = {
    "rotary": {},
    "absolute": ABSOLUTE,
    "mlp": {"initial_query_embed_style": "mlp"},
    "learned": {"initial_query_embed_style": "learned"},
    "shared": {"initial_query_embed_style": "learned", "share_initial_query": True},
    "two latents": {"num_latents_per_position": 2},
    "more crosses": {"additional_cross_attend_after_layers": (0, 1)},
    "no first cross": {
        "include_initial_cross_attention": False,
        "additional_cross_attend_after_layers": (1,),
    },
    "no residual": {"encoder_use_query_residual": False},
    "wide inputs, q": {"input_embed_dim": 24, "cross_attend_shape_for_attn": "q"},
    "offset": {"initial_query_offsetting": True},
    "fractions": {
        "fraction_to_rotate": 0.25,
        "fraction_heads_to_rotate": 0.5,
        "use_negative_rotary_positions": True,
    },
    "blocks": {"attention_block": 5, "head_group_size": 1},
    "scanned": {"scan_layers": True, "remat_policy": "full"},
}


@functools.partial(jax.jit, static_argnums=0)
def loss_logits_and_grads(config, params, inputs, positions, labels, valid):
    def loss(params):
        logits = PerceiverAR(config).apply({"params": params}, inputs, positions)
        total, _, _ = compute_weighted_cross_entropy(logits, labels, valid, z_loss=1e-4)
        return total, logits

    (total, logits), grads = jax.value_and_grad(loss, has_aux=True)(params)
    return total, logits, grads


@pytest.mark.parametrize(
    "changes",
    slow_but(["whole"], {"whole": {}, "blocks": {"attention_block": 5, "head_group_size": 2}}),
)
@pytest.mark.parametrize("path", network_files())
def test_logits_loss_and_gradients_of_the_reference(path, changes):
    data = load(path)
    config = config_of(data, **changes)
    params = tree_of(data, config)
    arrays = data["inputs"], data["input_idxs"], data["labels"], data["loss_mask"].astype("f4")
    # Always two rows, so that files of the same configuration share a program.
    parts = [
        loss_logits_and_grads(config, params, *(x[first : first + 2] for x in arrays))
        for first in range(0, len(data["inputs"]), 2)
    ]
    losses, logits, grads = zip(*parts)
    real = data["latent_last_steps"] >= 0
    np.testing.assert_allclose(np.concatenate(logits)[real], data["logits"][real], atol=1e-5)
    np.testing.assert_allclose(sum(losses), data["loss_total"], rtol=1e-5)
    grads = jax.tree.map(lambda *parts: sum(np.asarray(x) for x in parts), *grads)
    expected = flatten_dict(tree_of(data, config, "grads/"))
    for name, grad in flatten_dict(grads).items():
        # What is zero but for rounding, such as that of key biases, has no scale of its own.
        scale = max(np.abs(expected[name]).max(), 1e-4 * data["grad_norm"])
        np.testing.assert_allclose(grad / scale, expected[name] / scale, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("path", network_files())
def test_steps_and_masks_of_the_reference(path):
    data = load(path)
    config = config_of(data)

    @jax.jit
    def run(inputs):
        steps = masks.latent_steps(masks.lengths_of(inputs), config.z_index_dim)
        of_inputs = masks.allowed(steps, masks.input_key_steps(inputs))
        of_latents = masks.allowed(steps, masks.latent_key_steps(steps), own_key=True)
        return steps, of_inputs, of_latents

    steps, mask, latent_mask = run(data["inputs"])
    np.testing.assert_array_equal(steps, data["latent_last_steps"])
    if "encoder_mask" in data:
        real = data["latent_last_steps"] >= 0
        found, expected = (np.swapaxes(m, 1, 2)[real] for m in (mask, data["encoder_mask"]))
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(latent_mask, data["processor_mask"])


def positions_for(config, shape):
    if config.rotary or len(config.input_idx_size) == 1:
        return None
    index = np.broadcast_to(np.arange(shape[1]), shape)
    return np.stack([1 + index // 12 % 5, 1 + index // 3 % 4, 1 + index % 3], axis=-1)


@pytest.mark.parametrize("changes", slow_but(["absolute", "blocks"], VARIANTS))
def test_later_tokens_change_nothing(changes):
    config, network, params = tiny(**changes)
    run = functools.partial(logits_of, network, params)
    tokens = random_tokens([24, 17])
    before = run(tokens)
    for row, changed in ((0, 20), (1, 12)):
        other = tokens.copy()
        other[row, changed] = 3 + (other[row, changed] - 2) % 16
        after = run(other)
        latent = changed - (np.count_nonzero(tokens[row]) - config.z_index_dim)
        np.testing.assert_array_equal(before[row, :latent], after[row, :latent])
        assert np.abs(before[row, latent:] - after[row, latent:]).max() > 1e-4


@pytest.mark.parametrize(
    "changes",
    slow_but(
        ["one layer"],
        {
            "one layer": ONE_LAYER,
            **{name: VARIANTS[name] for name in ("rotary", "absolute", "two latents", "blocks")},
        },
    ),
)
def test_padding_changes_nothing_and_latents_may_be_left_out(changes):
    _, network, params = tiny(**changes)
    tokens = random_tokens([13, 9])
    long, short = (logits_of(network, params, t) for t in (tokens, tokens[:, :13]))
    np.testing.assert_allclose(long, short, atol=2e-6)
    few = logits_of(network, params, tokens, num_latents=3)
    counted = logits_of(network, params, tokens, latent_counts=jnp.full(2, 3))
    np.testing.assert_allclose(few, counted[:, -3:], atol=3e-6)


@pytest.mark.parametrize("changes", [{}, {**IMAGE}], ids=["rotary", "image"])
def test_as_many_latents_as_inputs_are_a_plain_decoder(changes):
    """With N = T the latents are all positions: causal layers, the first with keys of its own."""
    config, network, params = tiny(**changes, z_index_dim=24)
    tokens = random_tokens([24])
    positions = positions_for(config, tokens.shape)
    logits = logits_of(network, params, tokens, positions)
    expected = plain_decoder(config, params, tokens[0], positions)
    np.testing.assert_allclose(logits[0], expected, atol=2e-5)


def plain_decoder(config, params, tokens, positions):
    """A decoder written down anew, in float64, for one row."""
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    length = len(tokens)

    def linear(p, x):
        return x @ p["kernel"] + p["bias"]

    def norm(p, x):
        x = x - x.mean(-1, keepdims=True)
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * p["scale"] + p["bias"]

    def turn(x):
        if not config.rotary:
            return x
        pairs = int(x.shape[-1] * config.fraction_to_rotate / 2)
        exponents = np.arange(pairs) / max(pairs - 1, 1)
        angles = np.arange(1, length + 1)[:, None] / config.wavelength**exponents
        z = (x[..., 0 : 2 * pairs : 2] + 1j * x[..., 1 : 2 * pairs : 2]) * np.exp(1j * angles)
        x = x.copy()
        x[..., 0 : 2 * pairs : 2], x[..., 1 : 2 * pairs : 2] = z.real, z.imag
        return x

    def attention(p, x, y, heads):
        def split(z):
            return z.reshape(length, heads, -1).swapaxes(0, 1)

        q, k = turn(split(linear(p["query"], x))), turn(split(linear(p["key"], y)))
        logits = q @ k.swapaxes(1, 2) / np.sqrt(q.shape[-1])
        logits = np.where(np.tri(length, dtype=bool), logits, -np.inf)
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        seen = weights / weights.sum(-1, keepdims=True) @ split(linear(p["value"], y))
        return linear(p["out"], seen.swapaxes(0, 1).reshape(length, -1))

    def mlp(p, x):
        return linear(p["wo"], np.maximum(linear(p["wi"], x), 0) ** 2)

    x = p["token_embed"]["embedding"][tokens]
    for i in range(0 if config.rotary else len(config.input_idx_size)):
        x = x + p["position_embed"][f"embedding_{i}"][positions[0, :, i]]
    z = linear(p["initial_queries"]["linear"], x)
    c = p["cross_attention"]
    seen = attention(
        c["attention"], norm(c["query_norm"], z), norm(c["input_norm"], x),
        config.num_cross_attend_heads,
    )  # fmt: skip
    z = z + seen
    z = z + mlp(c["mlp"], norm(c["mlp_norm"], z))
    for i in range(config.num_transformers_per_block):
        c = p[f"layers_{i}"]
        y = norm(c["attention_norm"], z)
        z = z + attention(c["attention"], y, y, config.num_transformer_heads)
        z = z + mlp(c["mlp"], norm(c["mlp_norm"], z))
    return linear(p["logits"], norm(p["final_norm"], z))


@pytest.mark.parametrize("length", [pytest.param(11, marks=pytest.mark.slow), 23])
def test_blocks_that_do_not_divide_the_length(length):
    config, network, params = tiny(**ONE_LAYER)
    tokens = random_tokens([length, length - 2], length)
    plain = logits_of(network, params, tokens)
    for block in (4, length - 1):
        other = PerceiverAR(dataclasses.replace(config, attention_block=block))
        np.testing.assert_allclose(logits_of(other, params, tokens), plain, atol=1e-5)


@pytest.mark.slow
def test_scanned_layers_are_the_layers():
    config, network, params = tiny(num_transformers_per_block=3)
    tokens = random_tokens([24, 9])
    scanned = dataclasses.replace(config, scan_layers=True, remat_policy="minimal")
    stacked = stack_layers(params, scanned)
    found = logits_of(PerceiverAR(scanned), stacked, tokens)
    np.testing.assert_allclose(found[0], logits_of(network, params, tokens)[0], atol=1e-5)


@pytest.mark.slow
def test_recomputation_keeps_gradients():
    config, _, params = tiny(additional_cross_attend_after_layers=(0,))
    tokens = random_tokens([24])

    def grads(config):
        def loss(params):
            return jnp.square(PerceiverAR(config).apply({"params": params}, tokens)).mean()

        return jax.jit(jax.grad(loss))(params)

    found = grads(dataclasses.replace(config, remat_policy="minimal"))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, grads(config))


def test_positions_from_the_end_do_not_depend_on_where_a_row_begins():
    _, network, params = tiny(**ONE_LAYER, use_positions_from_data=False)
    tokens = random_tokens([24])
    counted = logits_of(network, params, tokens)
    shifted = logits_of(network, params, tokens, np.arange(24)[None] + 7)
    np.testing.assert_array_equal(counted, shifted)


def test_positions_matter_and_only_their_distances_when_rotary():
    _, network, params = tiny(**ONE_LAYER, max_wavelength=100)
    tokens = random_tokens([24])
    counted = logits_of(network, params, tokens)
    shifted = logits_of(network, params, tokens, np.arange(24)[None] + 7)
    spread = logits_of(network, params, tokens, 2 * np.arange(24)[None])
    np.testing.assert_allclose(counted, shifted, atol=1e-4)
    assert np.abs(counted - spread).max() > 1e-2


@pytest.mark.slow
def test_image_positions_are_a_sum_of_three_trained_tables():
    config, _, params = tiny(**IMAGE)
    tokens = random_tokens([24])
    positions = positions_for(config, tokens.shape)

    def loss(params, config):
        return PerceiverAR(config).apply({"params": params}, tokens, positions).std()

    grads = jax.jit(jax.grad(loss), static_argnums=1)(params, config)["position_embed"]
    assert [grads[f"embedding_{i}"].shape[0] for i in range(3)] == [6, 6, 5]
    assert all(np.any(g) for g in grads.values())
    fixed = dataclasses.replace(config, learnable_position_embeddings=False)
    grads = jax.jit(jax.grad(loss), static_argnums=1)(params, fixed)["position_embed"]
    assert not any(np.any(g) for g in grads.values())


KINDS = {
    "dropout": {"dropout_prob": 0.5},
    "latents": {"latent_dropout_prob": 0.5},
    "inputs": {"encoder_dropout_prob": 0.5},
    "subset": {"train_input_positions": 6},
}


@pytest.mark.parametrize("changes", slow_but(["dropout"], KINDS))
def test_dropout_of_every_kind_is_random_and_causal(changes):
    _, without, _ = tiny(**ONE_LAYER)
    _, network, params = tiny(**ONE_LAYER, **changes)
    tokens = random_tokens([24, 15])

    @jax.jit
    def run(seed, tokens):
        rngs = {"dropout": jax.random.PRNGKey(seed)}
        return network.apply({"params": params}, tokens, enable_dropout=True, rngs=rngs)

    first = np.asarray(run(0, tokens))
    assert np.isfinite(first).all()
    np.testing.assert_array_equal(first, run(0, tokens))
    assert np.abs(first - run(1, tokens)).max() > 1e-3
    assert np.abs(first - logits_of(without, params, tokens)).max() > 1e-3
    other = tokens.copy()
    other[0, 20] = 3 + (other[0, 20] - 2) % 16
    np.testing.assert_array_equal(first[0, :4], np.asarray(run(0, other))[0, :4])


def test_a_subset_as_large_as_the_inputs_is_all_of_them():
    _, whole, _ = tiny(**ONE_LAYER)
    _, network, params = tiny(**ONE_LAYER, train_input_positions=24)
    tokens = random_tokens([24, 15])

    def run(params):
        rngs = {"dropout": jax.random.PRNGKey(0)}
        return network.apply({"params": params}, tokens, enable_dropout=True, rngs=rngs)

    found = jax.jit(run)(params)
    np.testing.assert_allclose(found, logits_of(whole, params, tokens), atol=1e-5)


def test_half_precision_has_float32_parameters_and_logits():
    config, network, params = tiny(**ONE_LAYER)
    half = PerceiverAR(dataclasses.replace(config, dtype="bfloat16"))
    tokens = random_tokens([24, 15])
    logits = logits_of(half, params, tokens)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, logits_of(network, params, tokens), atol=0.3)
    init = jax.eval_shape(half.init, jax.random.PRNGKey(0), tokens)
    assert {x.dtype for x in jax.tree.leaves(init["params"])} == {jnp.dtype("float32")}


def test_parameters_have_logical_axes():
    for name in ("absolute", "mlp", "shared", "two latents", "scanned"):
        config = PerceiverARConfig(**{**TINY, **VARIANTS[name]})
        variables = jax.eval_shape(
            PerceiverAR(config).init, jax.random.PRNGKey(0), jnp.ones((1, 24), jnp.int32)
        )
        axes = flatten_dict(dict(variables["params_axes"]))
        for name, value in flatten_dict(dict(variables["params"])).items():
            names = axes[*name[:-1], f"{name[-1]}_axes"].names
            assert len(names) == value.ndim, name


def test_the_number_of_parameters():
    """The ImageNet configuration of the reference has 770.1 million."""
    config = PerceiverARConfig(
        num_classes=259,
        max_context_length=12416,
        num_transformers_per_block=60,
        scan_layers=True,  # traced once
        **{**IMAGE, "input_idx_size": (66, 66, 5)},
    )
    tokens = jnp.ones((1, 1024), jnp.int32)
    positions = jnp.ones((1, 1024, 3), jnp.int32)
    init = jax.eval_shape(PerceiverAR(config).init, jax.random.PRNGKey(0), tokens, positions)
    total = sum(x.size for x in jax.tree.leaves(init["params"]))
    assert total == pytest.approx(770.1e6, abs=0.1e6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"position_encoding_type": "both"}, "position_encoding_type='both'"),
        ({"z_index_dim": 25}, "z_index_dim=25.*max_context_length=24"),
        ({"max_wavelength": 8}, "max_wavelength=8"),
        ({"dropout_prob": 1.5}, "dropout_prob=1.5"),
        ({"num_transformer_heads": 3}, "num_transformer_heads=3"),
        ({"position_encoding_type": "absolute"}, "input_idx_size"),
        ({"additional_cross_attend_after_layers": (2,)}, "additional_cross_attend_after_layers"),
        ({"additional_cross_attend_after_layers": (0,), "scan_layers": True}, "scan_layers"),
    ],
)
def test_configurations_that_do_not_fit_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        PerceiverARConfig(**{**TINY, **changes})


@pytest.mark.parametrize(
    ("length", "positions", "message"),
    [
        (7, None, "inputs of 7 tokens: expected 8"),
        (25, None, "to 24"),
        (9, np.ones((1, 9, 2), np.int32), "rotary positions have one coordinate"),
    ],
)
def test_inputs_that_do_not_fit_are_named(length, positions, message):
    _, network, params = tiny()
    with pytest.raises(ValueError, match=message):
        logits_of(network, params, random_tokens([length], length), positions)


def test_a_table_of_positions_that_is_too_short_is_named():
    _, network, params = tiny(**ONE_LAYER, position_encoding_type="absolute", input_idx_size=(20,))
    with pytest.raises(ValueError, match=r"inputs of 20 tokens.*positions up to 19"):
        logits_of(network, params, random_tokens([20], 20))
    assert np.isfinite(logits_of(network, params, random_tokens([19], 19))).all()
