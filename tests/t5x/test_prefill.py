"""Prompts of encoder-decoders: filling the caches in one pass changes nothing but the time."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mt3 import network as mt3_network
from t5x import decoding, models
from t5x.examples.scalable_t5 import network as scalable
from t5x.examples.t5 import network
from tests.cases import slow_but
from tests.t5x import networks

SIZES = {
    "vocab_size": 24,
    "emb_dim": 16,
    "num_heads": 2,
    "num_encoder_layers": 1,
    "num_decoder_layers": 1,
    "head_dim": 8,
    "mlp_dim": 24,
    "mlp_activations": ("gelu", "linear"),
}
LENGTH = 9
# BOS, then prompts of 3, 0, 1, 8 and 2 tokens; the last goes on after a free token.
PROMPTS = np.zeros((5, LENGTH), np.int32)
PROMPTS[0, 1:4] = [7, 12, 5]
PROMPTS[2, 1] = 9
PROMPTS[3, 1:] = [3, 4, 5, 6, 7, 8, 9, 10]
PROMPTS[4, 1:6] = [6, 5, 0, 17, 18]


@functools.cache
def make_network(kind):
    """(module, parameters, encoder inputs of five rows)."""
    rng = np.random.default_rng(1)
    tokens = rng.integers(2, 24, (5, 7)).astype(np.int32)
    tokens[1, 4:] = 0
    two_layers = SIZES | {"num_decoder_layers": 2}
    module, inputs = {
        "t5": (network.Transformer(network.T5Config(**SIZES)), tokens),
        "scanned": (scalable.Transformer(scalable.T5Config(**two_layers)), tokens),
        "mt3": (
            mt3_network.Transformer(mt3_network.T5Config(**SIZES)),
            rng.normal(size=(5, 7, 6)).astype(np.float32),
        ),
    }[kind]
    targets = jnp.ones((5, LENGTH), jnp.int32)
    shapes = jax.eval_shape(
        lambda: module.init(jax.random.key(0), inputs, targets, targets, enable_dropout=False)
    )
    return module, networks.random_params(shapes["params"]), inputs


class TokenByToken(models.EncoderDecoderModel):
    """Forces prompts one token after the other."""

    def _can_prefill(self):
        return False


@functools.cache
def predictor(model_cls, kind, decode_fn, num_decodes):
    """A compiled program; options of sampling are its arguments, so that tests share it."""
    model = model_cls(make_network(kind)[0], None, None, None, decode_fn=decode_fn)
    fixed = {"rescale_log_probs": False} if decode_fn is decoding.temperature_sample else {}

    @jax.jit
    def run(params, batch, rng, options):
        return model.predict_batch_with_aux(
            params,
            batch,
            rng,
            decoder_params={**fixed, **options},
            num_decodes=num_decodes,
            return_all_decodes=True,
            prompt_with_targets=True,
        )

    return run


def sample(model_cls, kind, prompts, rng=None, temperature=1.0, max_decode_steps=LENGTH):
    """(decodes, scores) of two samples a row."""
    run = predictor(model_cls, kind, decoding.temperature_sample, 2)
    _, params, inputs = make_network(kind)
    batch = {"encoder_input_tokens": inputs, "decoder_input_tokens": prompts}
    options = {"temperature": jnp.float32(temperature), "max_decode_steps": max_decode_steps}
    rng = jax.random.PRNGKey(0) if rng is None else rng
    decodes, aux = run(params, batch, rng, options)
    return np.asarray(decodes), np.asarray(aux["scores"])


def assert_same(ours, theirs):
    np.testing.assert_array_equal(ours[0], theirs[0])
    np.testing.assert_allclose(ours[1], theirs[1], rtol=1e-5, atol=1e-5)


def greedy_of_both(kind, **options):
    """The decodes of greedy decoding, with and without prefilling."""
    ours, theirs = (
        sample(model_cls, kind, PROMPTS, temperature=0.0, **options)
        for model_cls in (models.EncoderDecoderModel, TokenByToken)
    )
    assert_same(ours, theirs)
    return ours[0]


@pytest.mark.parametrize("kind", ["t5", "scanned", "mt3"])
def test_greedy_decoding_is_that_of_forced_prompts(kind):
    decodes = greedy_of_both(kind)
    assert decodes[0, 0, :3].tolist() == [7, 12, 5]
    assert decodes[3, 0, :8].tolist() == list(range(3, 11))
    assert decodes[4, 0, 3:5].tolist() == [17, 18]


def test_steps_after_the_prompt_are_counted_alike():
    decodes = greedy_of_both("t5", max_decode_steps=2)
    assert not decodes[0, 0, 5:].any()


@pytest.mark.parametrize("kind", slow_but(["t5"], {k: k for k in ("t5", "scanned", "mt3")}))
def test_beams_are_those_of_forced_prompts(kind):
    _, params, inputs = make_network(kind)
    batch = {"encoder_input_tokens": inputs, "decoder_input_tokens": PROMPTS}
    found = [
        predictor(model_cls, kind, decoding.beam_search, 3)(params, batch, None, {})
        for model_cls in (models.EncoderDecoderModel, TokenByToken)
    ]
    assert_same(*[(decodes, aux["scores"]) for decodes, aux in found])


def test_samples_are_those_of_forced_prompts():
    """The steps that are left draw the same random numbers if the others' are skipped."""
    prompts = np.zeros((5, LENGTH), np.int32)
    prompts[:, 1:4] = np.random.default_rng(2).integers(2, 24, (5, 3))
    rng = later = jax.random.PRNGKey(3)
    for _ in range(3):
        later, _ = jax.random.split(later)
    ours = sample(models.EncoderDecoderModel, "t5", prompts, later)
    assert_same(ours, sample(TokenByToken, "t5", prompts, rng))


def test_samples_after_unequal_prompts_have_the_scores_of_the_model():
    module, params, inputs = make_network("t5")
    decodes, scores = sample(models.EncoderDecoderModel, "t5", PROMPTS, jax.random.PRNGKey(4))
    targets = decodes[:, 0].astype(np.int32)
    given = np.pad(PROMPTS[:, 1:], ((0, 0), (0, 1)))
    batch = {
        "encoder_input_tokens": inputs,
        "decoder_target_tokens": targets,
        "decoder_input_tokens": np.pad(targets, ((0, 0), (1, 0)))[:, :-1],
        "decoder_loss_weights": ((given == 0) & (targets > 0)).astype(np.int32),
    }
    # A sampled 0 (padding, of a network that never learnt what it means) has no score to compare.
    ends = np.argmax(np.pad(targets, ((0, 0), (0, 1))) == 0, axis=1)
    whole = [end == LENGTH or targets[row, end - 1] == 1 for row, end in enumerate(ends)]
    assert any(whole)
    model = models.EncoderDecoderModel(module, None, None, None)
    expected = jax.jit(model.score_batch)(params, batch)
    np.testing.assert_allclose(scores[whole, 0], expected[np.array(whole)], rtol=1e-4)


class CountingPasses(network.Transformer):
    """Tells of each application of the decoder how many tokens it takes."""

    def decode(self, encoded, encoder_tokens, tokens, *args, prefill=False, **kwargs):
        PASSES.append((tokens.shape[1], prefill))
        return super().decode(encoded, encoder_tokens, tokens, *args, prefill=prefill, **kwargs)


PASSES: list[tuple[int, bool]] = []


@pytest.mark.parametrize(
    ("prompted", "passes"), [(True, [(LENGTH, True), (1, False)]), (False, [(1, False)])]
)
def test_one_pass_for_the_prompts_and_none_without(prompted, passes):
    _, params, inputs = make_network("t5")
    module = CountingPasses(network.T5Config(**SIZES))
    model = models.EncoderDecoderModel(module, None, None, None)
    PASSES.clear()
    run = functools.partial(model.predict_batch_with_aux, prompt_with_targets=prompted)
    jax.jit(run).lower(params, {"encoder_input_tokens": inputs, "decoder_input_tokens": PROMPTS})
    assert passes == PASSES


def test_decoding_functions_that_begin_at_the_beginning_get_no_prefill():
    module, _, _ = make_network("t5")

    def decode_fn(inputs, cache, tokens_to_logits, eos_id, num_decodes, cache_offset):
        raise NotImplementedError

    model = models.EncoderDecoderModel(module, None, None, None, decode_fn=decode_fn)
    assert not model._can_prefill()


def test_prompts_end_at_the_first_free_token():
    assert models.prompt_lengths(jnp.asarray(PROMPTS)).tolist() == [3, 0, 1, 8, 2]


def test_prefill_needs_lengths():
    module, params, inputs = make_network("t5")
    tokens = jnp.ones((5, 3), jnp.int32)
    with pytest.raises(ValueError, match="prefill_lengths"):
        module.apply(
            {"params": params},
            jnp.zeros((5, 7, 16)),
            inputs,
            tokens,
            tokens,
            decode=True,
            prefill=True,
            method="decode",
        )
