import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perceiver_ar.blocks import LatentSchedule
from perceiver_ar.checkpoints import stack_layers
from perceiver_ar.feature_converter import PerceiverARFeatureConverter
from perceiver_ar.generation import generate
from perceiver_ar.models import PerceiverARModel
from perceiver_ar.network import PerceiverAR
from perceiver_ar.optimizers import optimizer
from perceiver_ar.preprocessors import evaluation_windows, number_positions, take_block
from perceiver_ar.sampler import Sampler
from tests.perceiver_ar.reference import (
    ABSOLUTE,
    config_of,
    golden,
    load,
    logits_of,
    random_tokens,
    tiny,
    tree_of,
)

#: One layer, and positions beyond the context; most tests share its compiled programs.
SMALL = {"num_transformers_per_block": 1, "max_wavelength": 60}
VARIANTS = {
    "rotary": {},
    "absolute": ABSOLUTE,
    "two latents, more crosses": {
        "num_latents_per_position": 2,
        "additional_cross_attend_after_layers": (0,),
        "initial_query_offsetting": True,
    },
    "no first cross": {
        "include_initial_cross_attention": False,
        "additional_cross_attend_after_layers": (1,),
        "initial_query_embed_style": "learned",
        "share_initial_query": True,
        "use_negative_rotary_positions": True,
    },
    "scanned": {"scan_layers": True},
}


@functools.partial(jax.jit, static_argnums=0)
def _forced(sampler, params, tokens, prompts, start):
    length = tokens.shape[1]

    def body(cache, i):
        index = start + i
        token = jnp.take_along_axis(tokens, index[:, None], axis=1, mode="clip")[:, 0]
        token = jnp.where(index < length, token, 0)
        logits, cache = sampler.step(params, cache, tokens, index, token)
        return cache, (logits, cache.fill)

    return jax.lax.scan(body, sampler.prefill(params, prompts), jnp.arange(length))[1]


def force(sampler, params, tokens, prompts):
    """Logits [L, V] and fills [L] of each row after its tokens from the last of its prompt on."""
    start = np.count_nonzero(prompts, axis=1) - 1
    rest = np.count_nonzero(tokens, axis=1) - start
    found = _forced(sampler, sampler.parameters(params), tokens, prompts, start)
    return [[np.array(x)[:count, row] for row, count in enumerate(rest.tolist())] for x in found]


def stateless(config, params, tokens, blocks):
    """Logits [L, V] of one row's latents that count in blocks, without caches.

    The rows of one call are the blocks; each sees its own part of the inputs.
    """
    network, size = PerceiverAR(config), config.max_context_length
    example = number_positions({"tokens": np.append(tokens, 3)})
    parts = [take_block(example, block) for block in blocks]
    count = config.z_index_dim

    def padded(name):
        rows = [np.asarray(part[name]).reshape(len(part["inputs"]), -1)[:, 0] for part in parts]
        return np.stack([np.pad(row, (0, size - len(row))) for row in rows])

    arrays = padded("inputs"), padded("positions"), np.array([p["latent_counts"] for p in parts])
    logits = []
    for first in range(0, len(parts), 8):  # always as many rows, so that one program will do
        rows = np.arange(first, first + 8).clip(max=len(parts) - 1)
        inputs, positions, counts = (x[rows] for x in arrays)
        logits += [*logits_of(network, params, inputs, positions, count, latent_counts=counts)]
    scored = [int(part["loss_weights"].sum()) for part in parts]
    return np.concatenate([row[count - n :] for row, n in zip(logits, scored)])


def reference(path):
    """(vectors, sampler of the reference's schedule, parameters, prompts)."""
    data = load(path)
    config = config_of(data)
    length, schedule = data["tokens_forced"].shape[1] - 1, LatentSchedule.reference
    sampler = Sampler(config, length, schedule(config.z_index_dim), block=5)
    return data, sampler, tree_of(data, config), data["tokens_forced"][:, : int(data["start"])]


@pytest.mark.parametrize("path", golden("gen_*.npz"))
def test_logits_and_fills_of_the_reference(path):
    data, sampler, params, prompts = reference(path)
    logits, fills = force(sampler, params, data["tokens_forced"][:, :-1], prompts)
    np.testing.assert_allclose(logits, data["logits_cached_forced"], atol=1e-5)
    np.testing.assert_allclose(logits, data["logits_stateless_same_fill"], atol=1e-5)
    np.testing.assert_array_equal(fills[0], data["latent_fill"])
    greedy = data["tokens_cached_greedy"]
    logits, _ = force(sampler, params, greedy[:, :-1], prompts)
    np.testing.assert_allclose(logits, data["logits_cached_greedy"], atol=1e-5)
    np.testing.assert_array_equal(np.argmax(logits, -1), greedy[:, prompts.shape[1] :])


@pytest.mark.slow
@pytest.mark.parametrize("path", golden("gen_*.npz"))
def test_greedy_tokens_of_the_reference(path):
    data, sampler, params, prompts = reference(path)
    found, _ = generate(sampler, params, prompts, temperature=0.0, never=(), eos_id=-1)
    np.testing.assert_array_equal(found[:, 0], data["tokens_cached_greedy"])


SCHEDULES = {
    "long": LatentSchedule(8, refill=3),
    "short": LatentSchedule(6, refill=5, first_fill=2),
}


def check_cached(changes, schedule, size, atol):
    """Prompts of unequal lengths, one of them longer than the latents; blocks begin row by row."""
    config, _, params = tiny(**changes)
    lengths = [3, 6, 12]
    tokens = random_tokens([size] * 3, size)
    prompts = np.where(np.arange(12) < np.array(lengths)[:, None], tokens[:, :12], 0)
    sampler = Sampler(config, size, schedule, block=7)
    assert sampler.slots == 24
    logits, fills = force(sampler, params, tokens, prompts)
    for row, prompt in enumerate(lengths):
        blocks = list(schedule.blocks(size, 24, prompt))
        expected = stateless(config, params, tokens[row], blocks)
        np.testing.assert_allclose(logits[row], expected, atol=atol)
        wanted = [
            latent - block.first_latent + 1
            for block in blocks
            for latent in range(block.first_scored, block.end)
        ]
        np.testing.assert_array_equal(fills[row], wanted)


@pytest.mark.slow
@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_cached_is_stateless_with_the_same_latents(changes, schedule):
    check_cached(changes, schedule, 24, atol=1e-5)


def test_beyond_the_context_a_block_sees_as_much_as_there_was_room_for():
    """60 tokens with a context of 24, kept in a ring."""
    check_cached(SMALL, SCHEDULES["long"], 60, atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("prompt", [5, 31])
def test_prompts_within_the_context_and_beyond_it(prompt):
    config, _, params = tiny(**SMALL)
    schedule = LatentSchedule(8)
    tokens = random_tokens([60], 60)
    sampler = Sampler(config, 60, schedule, block=7)
    logits, _ = force(sampler, params, tokens, tokens[:, :prompt])
    expected = stateless(config, params, tokens[0], schedule.blocks(60, 24, prompt))
    np.testing.assert_allclose(logits[0], expected, atol=2e-5)


@pytest.mark.slow
def test_what_was_sampled_has_the_likelihood_of_strided_evaluation():
    config, network, params = tiny()
    # What is never sampled is never expected either, once trained.
    params = biased(params, id_0=-60.0, id_2=-60.0)
    schedule = LatentSchedule(8, refill=4)
    sampler = Sampler(config, 24, schedule)
    prompts = [[2], [2, 5, 6, 7, 8, 9, 10, 11, 12, 13]]
    tokens, scores = generate(sampler, params, prompts, rng=jax.random.PRNGKey(1))
    model = PerceiverARModel(network, None, optimizer())
    converter, lengths = PerceiverARFeatureConverter(), {"inputs": 24, "targets": 24}
    for row, prompt in enumerate(prompts):
        sequence = tokens[row, 0][: np.count_nonzero(tokens[row, 0])]
        example = number_positions({"tokens": sequence, "prefix_lengths": len(prompt)})
        windows = evaluation_windows(example, lengths, 8, schedule=schedule)
        batch = converter.convert(converter.collate(list(windows), lengths))
        total = jnp.sum(jax.jit(model.score_batch)(params, batch))
        assert scores[row, 0] == pytest.approx(float(total), abs=1e-4)
    with pytest.raises(ValueError, match="stride=2 and a schedule"):
        list(evaluation_windows(example, lengths, 8, 2, schedule))


@pytest.mark.slow
def test_scanned_layers_sample_the_same():
    config, _, params = tiny()
    scanned = dataclasses.replace(config, scan_layers=True)
    options = {"temperature": 0.0, "eos_id": -1}
    plain, _ = generate(Sampler(config, 14), params, [[2, 4]], **options)
    found, _ = generate(Sampler(scanned, 14), stack_layers(params, scanned), [[2, 4]], **options)
    np.testing.assert_array_equal(plain, found)


def biased(params, **logits):
    """The parameters with some logits raised: {"id_5": by how much}."""
    bias = np.array(params["logits"]["bias"])
    for name, value in logits.items():
        bias[int(name.removeprefix("id_"))] += value
    return {**params, "logits": {**params["logits"], "bias": bias}}


_heard = []


def listen(tokens):
    _heard.append(tokens)
    return False


def sampled(prompts, topk=0, topp=0.0, **logits):
    """Tokens [2, 8, 21] of a network with some logits raised, and what was streamed.

    With prompts of 5 to 8 tokens it is one program, whatever the arguments.
    """
    config, _, params = tiny(**SMALL)
    _heard.clear()
    tokens, _ = generate(
        Sampler(config, 20, LatentSchedule(7, refill=2)),
        biased(params, **logits),
        prompts,
        rng=jax.random.PRNGKey(0),
        num_decodes=8,
        topk=np.array(topk, np.int32),
        topp=np.array(topp, np.float32),
        stream_fn=listen,
    )
    return tokens, np.concatenate(_heard, axis=-1)


PROMPTS = [[2, 7, 3, 9, 12, 4, 8], [2, 5, 5, 6, 3]]


def test_a_row_does_not_depend_on_its_neighbours():
    first, second = PROMPTS
    greedy = functools.partial(sampled, topk=1, id_1=-60.0)  # never ended
    together, _ = greedy([first, second])
    for row, prompt in enumerate(PROMPTS):
        # Blocks of two rows alike begin at once; with prompts of 5 and 7 tokens they do not.
        alike, _ = greedy([prompt, prompt])
        np.testing.assert_array_equal(together[row], alike[0])
        np.testing.assert_array_equal(together[row, 0, : len(prompt)], prompt)


def test_padding_and_sos_are_never_sampled_and_eos_ends_a_row():
    tokens, _ = sampled([[2], [2, 3, 4, 5, 6]], id_0=30.0, id_2=30.0)
    assert tokens.shape == (2, 8, 21)
    assert (tokens[..., 0] == 2).all()
    assert not (tokens[..., 1:] == 2).any()
    ended = 0
    for row in tokens.reshape(-1, 21):
        length = np.argmax(row == 1) + 1 if 1 in row else 21
        ended += length < 21
        assert (row[:length] > 0).all()
        assert not row[length:].any()
    assert ended


def test_the_distribution_can_be_cut_and_tokens_streamed():
    prompts, high = [[2, 3, 4, 5, 6]] * 2, {"id_5": 40.0, "id_6": 39.0}
    both, streamed = sampled(prompts, topk=2, **high)
    assert set(both[..., 5:].flatten()) == {5, 6}
    for row in range(2):
        assert sorted(map(tuple, streamed[row])) == sorted(map(tuple, both[row, :, 5:]))
    one, _ = sampled(prompts, topp=0.01, **high)
    assert (one[..., 5:] == one[0, 0, 5]).mean() > 0.5


@pytest.mark.slow
def test_images_have_the_positions_they_are_given():
    image = {
        "position_encoding_type": "absolute",
        "position_encoding": "random",
        "input_idx_size": (6, 5, 4),
    }
    config, network, params = tiny(**image)
    index = np.arange(24)
    positions = np.stack([1 + index // 12, 1 + index // 3 % 4, 1 + index % 3], axis=1)
    sampler = Sampler(config, 24, positions=tuple(map(tuple, positions.tolist())))
    tokens = random_tokens([24])
    logits, _ = force(sampler, params, tokens, tokens[:, :24])
    expected = jax.jit(network.apply)({"params": params}, tokens, positions[None])
    np.testing.assert_allclose(logits[0][0], expected[0, -1], atol=1e-5)
    with pytest.raises(ValueError, match="1 coordinates, the network 3"):
        Sampler(config, 3)


def test_the_model_continues_prompts():
    """With the likeliest tokens by the sampler's logits."""
    config, network, params = tiny(**SMALL)
    params = biased(params, id_1=-60.0)  # never ended
    schedule, lengths = SCHEDULES["long"], np.array([4, 12, 0])
    model = PerceiverARModel(network, None, optimizer(), schedule=schedule)
    tokens = random_tokens([60, 60, 0], 60)
    # The last row only fills up the batch.
    batch = {"decoder_input_tokens": tokens, "decoder_prompt_lengths": lengths}
    found = jax.jit(
        lambda p: model.predict_batch_with_aux(p, batch, decoder_params={"temperature": 0.0})[0]
    )(params)
    assert found.shape == (3, 60)
    prompts = np.where(np.arange(12) < np.maximum(lengths, 1)[:, None], tokens[:, :12], 0)
    prompts[2, 0] = 2
    whole = np.tile(prompts[:, :1], 60)
    for row, prompt in enumerate(lengths[:2]):
        whole[row] = np.append(prompts[row, :prompt], found[row, : 60 - prompt])
    logits, _ = force(Sampler(config, 60, schedule, block=7), params, whole, prompts)
    for row, prompt in enumerate(lengths[:2]):
        logits[row][:, [0, 2]] = -np.inf  # padding and SOS are never sampled
        np.testing.assert_array_equal(found[row, : 61 - prompt], logits[row].argmax(-1))


@pytest.mark.slow
@pytest.mark.optimized
def test_latents_of_a_new_block_are_computed_only_where_one_begins():
    """XLA moves out of a loop, into every step, what does not depend on the loop's state."""
    config, _, params = tiny()
    rows = 2
    sampler = Sampler(config, 24, LatentSchedule(8, refill=6))
    tokens = jnp.asarray(random_tokens([24] * rows))
    cache = sampler.prefill(params, tokens[:, :10])
    index = jnp.full(rows, 10)
    lowered = jax.jit(sampler.step).lower(params, cache, tokens, index, tokens[:, 10])
    loops, every_step = lowered.compile().as_text().split("ENTRY")
    assert f"f32[{rows * 5},16]" in loops
    assert f"f32[{rows * 5},16]" not in every_step


@pytest.mark.parametrize(
    ("changes", "inputs", "prompts", "message"),
    [
        ({}, 24, [[2], []], "prompt 1 is empty"),
        ({}, 24, [[0, 4]], "prompt 0 is empty"),
        ({}, 24, [], "no prompts"),
        ({}, 24, [[2, 19]], r"prompt 0 has the token 19.*num_classes"),
        ({}, 5, [[2] * 6], r"prompt 0 has 6 tokens.*room for 5"),
        ({}, 25, [[2]], r"positions up to \[25\].*max_wavelength"),
        ({"use_positions_from_data": False}, 24, [[2]], "use_positions_from_data"),
        ({"initial_query_embed_style": "learned"}, 24, [[2]], "share_initial_query"),
    ],
)
def test_what_cannot_be_sampled_is_named(changes, inputs, prompts, message):
    config, _, params = tiny(**changes)
    with pytest.raises(ValueError, match=message):
        generate(Sampler(config, inputs), params, prompts)


def test_contexts_and_schedules_that_do_not_fit_are_named():
    config, _, _ = tiny()
    with pytest.raises(ValueError, match="context=25"):
        Sampler(config, 24, context=25)
    with pytest.raises(ValueError, match="context=7"):
        Sampler(config, 24, context=7)
