"""T5 1.1 against the reference's forward pass, and cached decoding against teacher forcing."""

import glob

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t5x.examples.t5 import network
from tests.t5x import networks
from tests.vectors import golden_dir


def reference_files():
    return sorted(glob.glob("network_*.npz", root_dir=golden_dir("t5x")))


@pytest.mark.parametrize("file", reference_files())
def test_forward_pass_is_the_references(file):
    z, config = networks.load(file.removesuffix(".npz"))
    module = network.Transformer(networks.t5_config(config))
    params = networks.unflat(networks.part(z, "params/"))
    shared = {"atol": 2e-5, "rtol": 1e-5}
    for group in ("padded", "packed"):
        batch = networks.part(z, f"{group}/")
        if not batch:
            continue
        logits, encoded = batch.pop("logits"), batch.pop("encoded")
        ours = networks.apply(
            module,
            params,
            batch["encoder_input_tokens"],
            batch.get("encoder_segment_ids"),
            method="encode",
        )
        seen = batch["encoder_input_tokens"] > 0
        np.testing.assert_allclose(ours[seen], encoded[seen], **shared)
        ours = networks.apply(module, params, **batch)
        seen = batch["decoder_target_tokens"] > 0
        np.testing.assert_allclose(ours[seen], logits[seen], **shared)


def test_parameter_names_and_axes():
    module, params, _ = networks.tiny_t5(networks.TINY.replace(num_decoder_layers=2))
    names = networks.flat(params)
    assert names["token_embedder/embedding"].shape == (24, 16)
    assert names["encoder/relpos_bias/rel_embedding"].shape == (2, 32)
    assert names["decoder/layers_1/encoder_decoder_attention/out/kernel"].shape == (16, 16)
    assert names["decoder/logits_dense/kernel"].shape == (16, 24)
    tokens = jnp.ones((1, 2), jnp.int32)
    axes = jax.eval_shape(
        lambda: module.init(jax.random.key(0), tokens, tokens, tokens, enable_dropout=False)
    )
    axes = {k: tuple(v.names) for k, v in networks.flat(axes["params_axes"]).items()}
    assert set(axes) == {f"{k}_axes" for k in names}
    assert axes["decoder/relpos_bias/rel_embedding_axes"] == ("heads", "relpos_buckets")
    assert axes["encoder/layers_0/mlp/wi_0/kernel_axes"] == ("embed", "mlp")
    assert axes["encoder/encoder_norm/scale_axes"] == ("embed",)


@pytest.mark.parametrize("tied", [False, True])
def test_cached_logits_equal_teacher_forced_logits(tied):
    # 70 steps: beyond the exact relative positions and the first bucket of the cache.
    config = networks.TINY.replace(logits_via_embedding=tied, num_decoder_layers=1)
    module, params, batch = networks.tiny_t5(config)
    inputs = batch["encoder_input_tokens"]
    rng = np.random.default_rng(1)
    tokens = rng.integers(2, 24, (2, 70)).astype(np.int32)
    tokens[:, 0] = 0
    forced = networks.apply(module, params, inputs, tokens, np.ones_like(tokens))
    variables = {"params": params}
    encoded = networks.apply(module, params, inputs, method="encode")
    _, new = module.apply(variables, encoded, inputs, 80, method="init_cache", mutable=["cache"])

    @jax.jit
    def step(cache, token):
        return module.apply(
            {"params": params, "cache": cache},
            None,
            inputs,
            token,
            token,
            enable_dropout=False,
            decode=True,
            max_decode_length=80,
            method="decode",
            mutable=["cache"],
        )

    # First several tokens at once, then one by one.
    logits, new = step(new["cache"], tokens[:, :3])
    pieces = [logits]
    for t in range(3, 70):
        logits, new = step(new["cache"], tokens[:, t : t + 1])
        pieces.append(logits)
    np.testing.assert_allclose(jnp.concatenate(pieces, 1), forced, atol=3e-5, rtol=1e-5)


def test_packed_examples_have_the_logits_they_have_alone():
    module, params, _ = networks.tiny_t5()
    rng = np.random.default_rng(2)
    enc, dec = (rng.integers(2, 24, (2, 4)).astype(np.int32) for _ in range(2))
    inputs = np.pad(dec, ((0, 0), (1, 0)))[:, :-1]
    alone = networks.apply(module, params, enc, inputs, dec)
    segments = np.repeat([[1, 2]], 4, axis=1)
    positions = np.tile(np.arange(4), 2)[None]
    packed = networks.apply(
        module,
        params,
        enc.reshape(1, 8),
        inputs.reshape(1, 8),
        dec.reshape(1, 8),
        encoder_segment_ids=segments,
        decoder_segment_ids=segments,
        encoder_positions=positions,
        decoder_positions=positions,
    )
    np.testing.assert_allclose(packed.reshape(2, 4, -1), alone, atol=1e-5)


def test_padding_changes_nothing():
    module, params, batch = networks.tiny_t5()
    short = {k: batch[f"{k}_tokens"] for k in ("encoder_input", "decoder_input", "decoder_target")}
    long = {k: np.pad(v, ((0, 0), (0, 3))) for k, v in short.items()}
    a, b = (networks.apply(module, params, *x.values()) for x in (short, long))
    seen = batch["decoder_target_tokens"] > 0
    np.testing.assert_allclose(a[seen], b[:, : a.shape[1]][seen], atol=1e-5)
