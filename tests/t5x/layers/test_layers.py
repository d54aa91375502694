"""Relative positions, masks, embeddings, the feed-forward block and attention."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t5x import layers
from tests.vectors import golden_dir


@pytest.fixture(scope="module")
def relpos():
    with np.load(golden_dir("t5x") / "relpos.npz") as z:
        return {k: z[k] for k in z.files}


def test_relative_position_buckets_are_the_references(relpos):
    for i, case in enumerate(json.loads(str(relpos["cases_json"]))):
        case.pop("case", None)
        buckets = layers.relative_position_bucket(relpos["relative_position"], **case)
        np.testing.assert_array_equal(buckets, relpos[f"bucket_{i}"])


def biases(relpos):
    heads, buckets = relpos["rel_embedding"].shape
    module = layers.RelativePositionBiases(buckets, 128, heads)
    return module, {"params": {"rel_embedding": relpos["rel_embedding"]}}


def test_relative_position_biases_are_the_references(relpos):
    module, variables = biases(relpos)
    qlen, klen = map(int, relpos["qlen_klen"])
    for name, bidirectional in (("bidirectional", True), ("causal", False)):
        bias = module.apply(variables, qlen, klen, bidirectional)
        np.testing.assert_allclose(bias, relpos[f"bias_{name}"], atol=1e-6)


def test_gradients_of_relative_position_biases_are_sums_and_no_scatter_of_every_entry(relpos):
    module, variables = biases(relpos)
    weights = np.random.default_rng(0).normal(size=(40, 50)).astype(np.float32)

    def total(variables):
        return jnp.sum(weights * module.apply(variables, 40, 50, False))

    grad = jax.grad(total)(variables)["params"]["rel_embedding"]
    distance = np.arange(50)[None, :] - np.arange(40)[:, None]
    rows = layers.relative_position_bucket(distance, False)
    expected = np.bincount(rows.ravel(), weights.ravel(), minlength=grad.shape[1])
    np.testing.assert_allclose(grad, np.broadcast_to(expected, grad.shape), atol=1e-4)
    assert "40x50x1xi32" not in jax.jit(jax.grad(total)).lower(variables).as_text()


@pytest.mark.parametrize("steps", [1, 5])
def test_decoding_computes_the_rows_of_the_whole_bias(relpos, steps):
    module, variables = biases(relpos)
    length = 300
    whole = module.apply(variables, length, length, False)
    _, cache = module.apply(variables, method="init_cache", mutable=["cache"])
    step = jax.jit(
        lambda cache: module.apply(
            {**variables, **cache}, steps, length, False, decode=True, mutable=["cache"]
        )
    )
    rows = []
    for _ in range(length // steps):
        row, cache = step(cache)
        rows.append(row)
    np.testing.assert_array_equal(jnp.concatenate(rows, axis=2), whole)


def test_decoder_mask_is_causal_within_segments_and_ignores_padding():
    targets = jnp.array([[5, 6, 7, 8, 0]])
    mask = layers.make_decoder_mask(targets, decoder_segment_ids=jnp.array([[1, 1, 2, 2, 0]]))
    expected = [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [0, 0, 1, 0, 0],
        [0, 0, 1, 1, 0],
        [0, 0, 0, 0, 0],
    ]
    np.testing.assert_array_equal(mask[0, 0], expected)


def test_a_prefix_sees_itself():
    targets = jnp.array([[5, 6, 7, 8]])
    mask = layers.make_decoder_mask(targets, decoder_causal_attention=jnp.array([[1, 1, 0, 0]]))
    expected = [[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]
    np.testing.assert_array_equal(mask[0, 0], expected)


def test_masks_and_biases_combine():
    a, b = jnp.array([1, 1, 0, 0]), jnp.array([1, 0, 1, 0])
    np.testing.assert_array_equal(layers.combine_masks(a, None, b), [1, 0, 0, 0])
    np.testing.assert_array_equal(layers.combine_biases(None, a, b), [2, 1, 1, 0])
    assert layers.combine_masks(None) is None
    assert layers.combine_biases() is None
    assert layers.mask_to_bias(None, jnp.float32) is None


def test_rms_norm_is_float32_inside():
    x = jnp.array([[3.0, 4.0], [300.0, 400.0]], jnp.bfloat16)
    module = layers.RMSNorm(dtype=jnp.bfloat16)
    y = module.apply({"params": {"scale": jnp.array([1.0, 2.0])}}, x)
    assert y.dtype == jnp.bfloat16
    norm = np.sqrt(12.5)
    np.testing.assert_allclose(y.astype(jnp.float32), [[3 / norm, 8 / norm]] * 2, rtol=1e-2)


def test_gated_mlp_multiplies_activations():
    module = layers.MlpBlock(6, activations=("gelu", "linear"))
    x = jax.random.normal(jax.random.key(0), (2, 3, 4))
    variables = jax.jit(lambda: module.init(jax.random.key(1), x, deterministic=True))()
    p = {k: v["kernel"] for k, v in variables["params"].items()}
    expected = (jax.nn.gelu(x @ p["wi_0"]) * (x @ p["wi_1"])) @ p["wo"]
    ours = module.apply(variables, x, deterministic=True)
    np.testing.assert_allclose(ours, expected, atol=1e-5)
    with pytest.raises(ValueError, match="swishy"):
        layers.MlpBlock(6, activations=("swishy",)).init(jax.random.key(1), x)


def test_embedding_wants_integers():
    with pytest.raises(ValueError, match="integer"):
        layers.Embed(4, 3).init(jax.random.key(0), jnp.ones((1, 2)))


def test_one_hot_and_gathered_embeddings_agree_with_their_gradients():
    table = jax.random.normal(jax.random.key(0), (5, 3))
    tokens = jnp.array([[0, 4, 4], [2, 0, 1]])

    def loss(table, one_hot):
        module = layers.Embed(5, 3, one_hot=one_hot)
        return (module.apply({"params": {"embedding": table}}, tokens) ** 2).sum()

    (a, grad_a), (b, grad_b) = (jax.value_and_grad(loss)(table, x) for x in (False, True))
    np.testing.assert_allclose(a, b, rtol=1e-6)
    np.testing.assert_allclose(grad_a, grad_b, atol=1e-6)


def test_query_projection_is_initialised_smaller():
    module = layers.MultiHeadDotProductAttention(num_heads=8, head_dim=64)
    x = jnp.ones((1, 2, 256))
    params = jax.jit(lambda: module.init(jax.random.key(0), x, x, deterministic=True))()["params"]
    stddev = {k: float(v["kernel"].std()) for k, v in params.items()}
    assert stddev["query"] == pytest.approx(1 / 16 / 8, rel=0.05)
    assert stddev["key"] == pytest.approx(1 / 16, rel=0.05)
    assert stddev["out"] == pytest.approx(1 / np.sqrt(512), rel=0.05)


def test_attention_dropout_hits_the_same_keys_for_every_query():
    value = jnp.broadcast_to(jnp.eye(6)[None, :, None, :], (1, 6, 2, 6))
    weights = layers.dot_product_attention(
        jnp.zeros((1, 4, 2, 6)),
        jnp.zeros((1, 6, 2, 6)),
        value,
        dropout_rng=jax.random.key(0),
        dropout_rate=0.5,
    )  # [1, Q, H, K]: with one-hot values the result is the weights
    np.testing.assert_array_equal(weights, jnp.broadcast_to(weights[:, :1], weights.shape))
    assert set(np.unique(np.round(np.asarray(weights) * 3, 4))) == {0.0, 1.0}


def test_cross_attention_reads_only_its_cache():
    module = layers.MultiHeadDotProductAttention(2, 4, cross_attention=True)
    q = jax.random.normal(jax.random.key(0), (3, 5, 8))
    kv = jax.random.normal(jax.random.key(1), (3, 7, 6))
    params = jax.jit(lambda: module.init(jax.random.key(2), q, kv, deterministic=True))()["params"]
    _, cache = module.apply({"params": params}, kv, method="init_cache", mutable=["cache"])
    assert cache["cache"]["cross_key"].shape == (3, 2, 4, 7)
    expected = module.apply({"params": params}, q, kv, deterministic=True)
    kept = {k: v for k, v in params.items() if k in ("query", "out")}  # no key, no value kernel
    cached, new = module.apply(
        {"params": kept, **cache}, q, None, decode=True, deterministic=True, mutable=["cache"]
    )
    np.testing.assert_allclose(cached, expected, atol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, new["cache"], cache["cache"])
    with pytest.raises(ValueError, match="inputs_kv"):
        module.apply({"params": params}, q, None)


def test_float32_logits_help_bfloat16():
    rng = np.random.default_rng(0)
    q, k, v = (jnp.asarray(rng.normal(size=(2, 9, 2, 64)), jnp.bfloat16) for _ in range(3))
    q = q * 4
    exact, careful, plain = (
        layers.dot_product_attention(
            *(x.astype(dtype) for x in (q, k, v)), dtype=dtype, float32_logits=float32_logits
        ).astype(jnp.float32)
        for dtype, float32_logits in (
            (jnp.float32, False),
            (jnp.bfloat16, True),
            (jnp.bfloat16, False),
        )
    )
    assert np.abs(careful - exact).mean() < 0.5 * np.abs(plain - exact).mean()
