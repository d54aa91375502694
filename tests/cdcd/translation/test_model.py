"""Translation: inputs of the network, samples, and a tiny task that is learned."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cdcd import warping
from cdcd.denoising import conditioning_of
from cdcd.flops import train_step_flops
from cdcd.optimizers import grouped_adam
from cdcd.sampler import Rows, rows_from_nothing
from cdcd.translation.model import TranslationModel, _encode, cut_at_eos
from cdcd.translation.network import TranslationConfig, Translator
from t5x.data import EncDecFeatureConverter
from t5x.data.vocabularies import EOS_ID, UNK_ID, PassThroughVocabulary
from tests.cdcd.tiny import NOISE
from tests.t5x.networks import random_params

LENGTH = 6
SHAPES = {"encoder_input_tokens": (2, 5), "decoder_target_tokens": (2, LENGTH)}
INPUTS = np.array([[3, 4, 5, 0, 0], [7, 6, 5, 4, 3]])


def tiny_model(**changes):
    sizes = {"vocab_size": 8, "input_vocab_size": 8, "target_length": LENGTH, "embed_dim": 8}
    sizes |= {"width": 32, "num_layers": 1, "num_encoder_layers": 1, "num_heads": 4, "mlp_dim": 64}
    sizes |= {"num_fourier": 8, "time_width": 16}
    network = Translator(TranslationConfig(**(sizes | changes)))
    return TranslationModel(network, None, None, grouped_adam(), NOISE)


def variables_of(model):
    return model.get_initial_variables(jax.random.key(0), SHAPES)


def params_of(model, seed=0):
    """Random parameters; nothing is compiled."""
    params = random_params(jax.eval_shape(lambda: variables_of(model))["params"], seed)
    return params | {warping.PARAMS: warping.initial_params(model.warping.num_bins)}


@pytest.fixture(scope="module")
def random_model():
    """(model, random parameters)."""
    model = tiny_model()
    return model, params_of(model)


@functools.partial(jax.jit, static_argnums=(0,), static_argnames=("rows", "prepared"))
def logits_of(model, params, inputs, conditioned=None, rows=2, prepared=False):
    """Logits [rows, L, V] of noise that is the same in all rows."""
    noise = jax.random.normal(jax.random.key(1), (1, LENGTH, 8))
    blank = rows_from_nothing(rows, LENGTH)
    source = None if inputs is None else model.denoising.encode(params, inputs)
    table = model.denoising.table(params)
    conditioning = conditioning_of(table, blank.tokens, blank.noisy, None, conditioned, source)
    if prepared:
        conditioning = model.denoising.prepare(params, conditioning)
    x = jnp.broadcast_to(noise, conditioning.given.shape)
    return model.denoising.logits(
        params, x, conditioning, jnp.zeros_like(x), jnp.full((rows,), 2.0)
    )


# -------------------------------------------------------------------------------------- the network


def test_padding_of_inputs_is_not_seen(random_model):
    model, params = random_model
    longer = np.pad(INPUTS, ((0, 0), (0, 3)))
    ours, theirs = logits_of(model, params, INPUTS), logits_of(model, params, longer)
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
    assert np.abs(ours[0] - ours[1]).max() > 0.1


def test_hidden_inputs_are_as_none(random_model):
    """Also their length is hidden: all rows are as one without tokens."""
    model, params = random_model
    hidden = logits_of(model, params, INPUTS, np.array([False, True]))
    none = logits_of(model, params, np.zeros_like(INPUTS), np.array([True, False]))
    np.testing.assert_allclose(hidden[0], none[1], atol=1e-5)
    np.testing.assert_allclose(hidden[1], logits_of(model, params, INPUTS)[1], atol=1e-5)
    assert np.abs(hidden[0] - hidden[1]).max() > 0.1


def test_the_length_of_an_input_is_told(random_model):
    """Apart from its tokens, which without values of the attentions say nothing."""
    model, params = random_model
    trunk = jax.tree_util.tree_map_with_path(
        lambda path, x: np.zeros_like(x) if "cross_attention" in str(path) else x, params["trunk"]
    )

    def logits(*inputs):
        return np.asarray(logits_of(model, params | {"trunk": trunk}, np.array(inputs)))

    same = logits([3, 4, 5, 0, 0], [7, 6, 5, 0, 0])
    np.testing.assert_allclose(same[0], same[1], atol=1e-5)
    others = logits([3, 4, 5, 5, 0], [3, 4, 0, 0, 0])
    assert min(np.abs(same[0] - other).max() for other in others) > 1e-2


@pytest.mark.slow
def test_keys_and_values_made_once_are_those_of_every_step(random_model):
    """And several rows of an input, side by side, share them."""
    model, params = random_model
    expected = np.repeat(logits_of(model, params, INPUTS), 3, axis=0)
    for prepared in (False, True):
        found = logits_of(model, params, INPUTS, rows=6, prepared=prepared)
        np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.slow
def test_so_are_those_of_scanned_layers():
    model = tiny_model(num_layers=2, num_encoder_layers=2, scan_layers=True)
    params = params_of(model)
    expected = np.repeat(logits_of(model, params, INPUTS), 2, axis=0)
    found = logits_of(model, params, INPUTS, rows=4, prepared=True)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_step_costs_what_xla_counts():
    """XLA also counts softmax and norms; it is counted for one forward pass and its gradient."""
    model = tiny_model(width=64, mlp_dim=256, num_layers=2, time_width=8, embed_dim=64)
    model.self_conditioning = False
    rows, inputs = 4, 40
    batch = {
        "encoder_input_tokens": jnp.ones((rows, inputs), jnp.int32),
        "decoder_target_tokens": jnp.ones((rows, LENGTH), jnp.int32),
    }
    params = jax.eval_shape(lambda: variables_of(model))["params"]
    lowered = jax.jit(lambda params: model.loss_fn(params, batch, None)[0]).lower(params)
    formula = model.train_step_flops(params, batch)
    assert 0.95 < 3 * lowered.cost_analysis()["flops"] / formula < 1.3
    # The encoder does most of the work, and the estimate from before does not run it again.
    model.self_conditioning = True
    extra = model.train_step_flops(params, batch) / formula - 1
    assert 0.02 < extra < 0.1
    encoder = {"encoder": params["encoder"]}
    assert train_step_flops(encoder, model.module.config, (rows, 0), 0.5, inputs) > 0.5 * formula


# ------------------------------------------------------------------------------------- the model


def test_dropout_is_in_the_encoder_too():
    model = tiny_model(dropout_rate=0.5)
    params, batch = params_of(model), random_words(0, 4)
    encode = jax.jit(lambda rng: model.source(params, batch, rng).encoded)
    one, other = (np.asarray(encode(jax.random.key(seed))) for seed in range(2))
    assert np.abs(one - other).max() > 0.1
    loss, _ = jax.eval_shape(model.loss_fn, params, batch, jax.random.key(0))
    assert loss.shape == ()


def test_samples(random_model):
    model, params = random_model
    made = model.translate(params, INPUTS, jax.random.key(0), num_decodes=3, steps=2)
    assert made.dtype == jnp.int32
    made = np.asarray(made)
    assert made.shape == (2, 3, LENGTH)
    assert np.all((made != 2) & (made >= 0) & (made < 8))
    ends = made == EOS_ID
    assert not made[np.cumsum(ends, axis=-1) > ends].any()


def test_predictions_are_samples_also_when_compiled(random_model):
    model, params = random_model
    batch, options = {"encoder_input_tokens": INPUTS}, {"steps": 2}
    predict = functools.partial(model.predict_batch_with_aux, decoder_params=options)
    one, _ = jax.jit(predict)(params, batch)
    all_of_one, _ = predict(params, batch, num_decodes=1)
    assert one.shape == (2, LENGTH)
    np.testing.assert_array_equal(one, all_of_one[:, 0])


def test_given_targets_stay():
    model = tiny_model()
    params = params_of(model)
    source = _encode(model.denoising, params, INPUTS)
    noisy = np.broadcast_to(np.arange(LENGTH) != 1, (2, LENGTH))
    rows = Rows(np.where(noisy, 0, 5).astype(np.int32), noisy, source=source)
    # The program of `translate` for one sample of each.
    made = np.asarray(model.make(params, rows, jax.random.key(0), steps=2, never=(UNK_ID,)))
    assert made[:, 1].tolist() == [5, 5]


def test_nothing_follows_eos():
    tokens = np.array([[[3, 1, 4, 1, 0]], [[3, 0, 4, 5, 6]]])
    assert cut_at_eos(tokens).tolist() == [[[3, 1, 0, 0, 0]], [[3, 0, 4, 5, 6]]]


def test_what_does_not_fit_is_named():
    model = tiny_model()
    params = params_of(model)
    shapes = {"decoder_target_tokens": (2, 4)}
    with pytest.raises(ValueError, match="needs a source"):
        logits_of(model, params, None)
    with pytest.raises(ValueError, match="num_decodes=0"):
        model.translate(params, INPUTS, jax.random.key(0), num_decodes=0)
    with pytest.raises(ValueError, match="rows of 4 tokens, but target_length=6"):
        jax.eval_shape(lambda: model.get_initial_variables(jax.random.key(0), shapes))
    with pytest.raises(ValueError, match="num_encoder_layers=0"):
        tiny_model(num_encoder_layers=0)
    for vocabularies in ((PassThroughVocabulary(9), None), (None, PassThroughVocabulary(9))):
        with pytest.raises(ValueError, match="the vocabulary has 9 ids"):
            TranslationModel(model.module, *vocabularies, grouped_adam())


# ------------------------------------------------------------------------------------- a tiny task


def random_words(seed, count):
    """Words of 1 to 5 symbols, and targets that are the words backwards."""
    rng = np.random.default_rng(seed)
    words = [rng.integers(3, 8, rng.integers(1, 6)) for _ in range(count)]
    examples = [{"inputs": w, "targets": np.append(w[::-1], EOS_ID)} for w in words]
    converter = EncDecFeatureConverter(pack=False)
    rows = list(converter(examples, {"inputs": 5, "targets": LENGTH}))
    return {name: jnp.asarray(np.stack([row[name] for row in rows])) for name in rows[0]}


@pytest.fixture(scope="module")
def trained():
    """A model that has learned to write words backwards, and its parameters.

    Unlike elsewhere padding is a token: in training all positions count.
    """
    model = tiny_model()
    params = params_of(model)
    steps, rows = 500, 64
    rule = optax.adam(optax.cosine_decay_schedule(0.01, steps), b2=0.99)

    def step(state, batch_and_key):
        params, mutables, slots = state
        grads, (metrics, mutables) = jax.grad(model.loss_fn, has_aux=True)(
            params, *batch_and_key, mutables
        )
        updates, slots = rule.update(grads, slots)
        state = (optax.apply_updates(params, updates), mutables, slots)
        return state, metrics["noisy_nats_per_token"].count

    words = random_words(0, steps * rows)
    batches = jax.tree.map(lambda x: x.reshape(steps, rows, -1), words)
    keys = jax.random.split(jax.random.key(0), steps)

    @jax.jit
    def train(params):
        state = (params, {warping.AVERAGE: params[warping.PARAMS]}, rule.init(params))
        return jax.lax.scan(step, state, (batches, keys))

    (params, *_), counts = train(params)
    assert np.all(counts == rows * LENGTH)
    return model, params


@pytest.mark.slow
def test_words_are_written_backwards(trained):
    model, params = trained
    words = random_words(1, 50)
    inputs, targets = words["encoder_input_tokens"], words["decoder_target_tokens"]

    def samples(guidance):
        return model.translate(
            params, inputs, jax.random.key(0), num_decodes=4, steps=8, guidance=guidance
        )

    for guidance in (1.0, 2.0):
        assert np.mean(np.all(samples(guidance) == targets[:, None], axis=-1)) > 0.9
    # Words, but any: the inputs were hidden.
    made = samples(0.0)
    assert np.mean(np.all(made == targets[:, None], axis=-1)) < 0.2
    assert np.mean(np.all(made[:, 0] == made[:, 1], axis=-1)) < 0.8


@pytest.mark.slow
def test_the_right_target_is_the_likeliest(trained):
    model, params = trained
    words = random_words(2, 32)
    score, targets = jax.jit(model.score_batch), words["decoder_target_tokens"]
    scores = [
        score(params, words | {"decoder_target_tokens": each})
        for each in (targets, np.roll(targets, 1, axis=0))
    ]
    assert np.mean(scores[0] > scores[1]) > 0.9
    assert scores[0].mean() > -3.0  # nats of a whole target, where chance is 6 log 8
