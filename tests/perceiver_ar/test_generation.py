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
from perceiver_ar.masks import lengths_of
from perceiver_ar.models import PerceiverARModel
from perceiver_ar.network import PerceiverAR
from perceiver_ar.optimizers import optimizer
from perceiver_ar.preprocessors import evaluation_windows, number_positions, take_block
from perceiver_ar.sampler import Sampler
from tests.cases import slow_but
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


@functools.partial(jax.jit, static_argnums=(0, 5))
def _forced(sampler, params, tokens, prompts, start, steps):
    def body(cache, i):
        index = start + i
        token = jnp.take_along_axis(tokens, index[:, None], axis=1)[:, 0]
        logits, cache = sampler.step(params, cache, tokens, index, token)
        return cache, (logits, cache.fill)

    return jax.lax.scan(body, sampler.prefill(params, prompts), jnp.arange(steps))[1]


def force(sampler, params, tokens, prompts):
    """Logits [B, L, V] and fills [B, L] after each token from the last of the prompts on.

    Rows are aligned at the ends of their prompts; L is that of the shortest continuation.
    """
    start = lengths_of(prompts) - 1
    steps = int((np.count_nonzero(tokens, axis=1) - np.asarray(start)).min())
    arrays = (sampler.parameters(params), jnp.asarray(tokens), jnp.asarray(prompts))
    logits, fills = _forced(sampler, *arrays, jnp.asarray(start), steps)
    return np.asarray(logits).swapaxes(0, 1), np.asarray(fills).swapaxes(0, 1)


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

    counts = np.array([part["latent_counts"] for part in parts])
    logits = logits_of(
        network, params, padded("inputs"), padded("positions"), count, latent_counts=counts
    )
    scored = [int(part["loss_weights"].sum()) for part in parts]
    return np.concatenate([row[count - n :] for row, n in zip(logits, scored)])


@pytest.mark.parametrize("path", golden("gen_*.npz"))
def test_logits_tokens_and_fills_of_the_reference(path):
    data = load(path)
    config = config_of(data)
    params = tree_of(data, config)
    tokens, start = data["tokens_forced"], int(data["start"])
    length = tokens.shape[1] - 1
    sampler = Sampler(config, length, LatentSchedule.reference(config.z_index_dim), block=5)
    logits, fills = force(sampler, params, tokens[:, :length], tokens[:, :start])
    np.testing.assert_allclose(logits, data["logits_cached_forced"], atol=1e-5)
    np.testing.assert_allclose(logits, data["logits_stateless_same_fill"], atol=1e-5)
    np.testing.assert_array_equal(fills[0], data["latent_fill"])
    found, _ = generate(sampler, params, tokens[:, :start], temperature=0.0, never=(), eos_id=-1)
    np.testing.assert_array_equal(found[:, 0], data["tokens_cached_greedy"])


SCHEDULES = {
    "long": LatentSchedule(8, refill=3),
    "short": LatentSchedule(6, refill=5, first_fill=2),
}


@pytest.mark.parametrize("changes", slow_but(["rotary"], VARIANTS))
@pytest.mark.parametrize("schedule", slow_but(["long"], SCHEDULES))
def test_cached_is_stateless_with_the_same_latents(changes, schedule):
    """Prompts of unequal lengths, one of them longer than the latents; blocks begin row by row."""
    config, _, params = tiny(**changes)
    lengths = [3, 6, 12]
    tokens = random_tokens([24] * 3)
    prompts = np.where(np.arange(12) < np.array(lengths)[:, None], tokens[:, :12], 0)
    sampler = Sampler(config, 24, schedule, block=7)
    logits, fills = force(sampler, params, tokens, prompts)
    for row, prompt in enumerate(lengths):
        blocks = list(schedule.blocks(24, 24, prompt))
        expected = stateless(config, params, tokens[row], blocks)
        np.testing.assert_allclose(logits[row], expected[: logits.shape[1]], atol=1e-5)
        wanted = [
            latent - block.first_latent + 1
            for block in blocks
            for latent in range(block.first_scored, block.end)
        ]
        np.testing.assert_array_equal(fills[row], wanted[: fills.shape[1]])


@pytest.mark.parametrize("prompt", slow_but(["5"], {"5": 5, "31": 31}))
def test_beyond_the_context_a_block_sees_as_much_as_there_was_room_for(prompt):
    """60 tokens with a context of 24, kept in a ring."""
    config, _, params = tiny(max_wavelength=60, num_transformers_per_block=1)
    schedule = LatentSchedule(8)
    tokens = random_tokens([60], 60)
    sampler = Sampler(config, 60, schedule, block=7)
    logits, _ = force(sampler, params, tokens, tokens[:, :prompt])
    assert sampler.slots == 24
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


def test_a_row_does_not_depend_on_its_neighbours():
    config, _, params = tiny(num_transformers_per_block=1)
    sampler = Sampler(config, 20, LatentSchedule(5, refill=2))
    options = {"temperature": 0.0, "eos_id": -1}
    prompts = [[2, 7, 3, 9, 12, 4, 8], [2, 5, 5, 6, 3]]  # of one width: two programs
    together, _ = generate(sampler, params, prompts, **options)
    for row, prompt in enumerate(prompts):
        alone, _ = generate(sampler, params, [prompt], **options)
        np.testing.assert_array_equal(together[row], alone[0])
        np.testing.assert_array_equal(together[row, 0, : len(prompt)], prompt)


def biased(params, **logits):
    """The parameters with some logits raised: {"id_5": by how much}."""
    bias = np.array(params["logits"]["bias"])
    for name, value in logits.items():
        bias[int(name.removeprefix("id_"))] += value
    return {**params, "logits": {**params["logits"], "bias": bias}}


def test_padding_and_sos_are_never_sampled_and_eos_ends_a_row():
    config, _, params = tiny(num_transformers_per_block=1)
    sampler = Sampler(config, 20)
    params = biased(params, id_0=30.0, id_2=30.0)
    tokens, _ = generate(sampler, params, [[2], [2, 3]], rng=jax.random.PRNGKey(0), num_decodes=8)
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
    config, _, params = tiny(num_transformers_per_block=1)
    params = biased(params, id_5=40.0, id_6=39.0)
    sampler = Sampler(config, 24)
    seen = []

    def listen(tokens):
        seen.append(tokens)
        return False

    options = {"rng": jax.random.PRNGKey(0), "num_decodes": 4}
    both, _ = generate(sampler, params, [[2, 3]], topk=2, stream_fn=listen, **options)
    assert set(both[..., 2:].flatten()) == {5, 6}
    streamed = np.concatenate(seen, axis=-1)
    assert sorted(map(tuple, streamed[0])) == sorted(map(tuple, both[0, :, 2:]))
    one, _ = generate(sampler, params, [[2, 3]], topp=np.float32(0.01), **options)
    assert (one[..., 2:] == one[0, 0, 2]).mean() > 0.5


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
    np.testing.assert_allclose(logits[0, 0], expected[0, -1], atol=1e-5)
    with pytest.raises(ValueError, match="1 coordinates, the network 3"):
        Sampler(config, 3)


def test_the_model_continues_prompts():
    config, network, params = tiny()
    model = PerceiverARModel(network, None, optimizer(), schedule=LatentSchedule(6))
    tokens = random_tokens([24, 24, 0])
    batch = {
        "decoder_input_tokens": tokens,
        "decoder_prompt_lengths": np.array([4, 9, 0]),  # the last row only fills up the batch
    }
    found = jax.jit(
        lambda p: model.predict_batch_with_aux(p, batch, decoder_params={"temperature": 0.0})[0]
    )(params)
    assert found.shape == (3, 24)
    sampler = Sampler(config, 24, LatentSchedule(6))
    prompts = [tokens[0, :4], tokens[1, :9]]
    expected, _ = generate(sampler, params, prompts, temperature=0.0)
    np.testing.assert_array_equal(found[0, :21], expected[0, 0, 4:])
    np.testing.assert_array_equal(found[1, :16], expected[1, 0, 9:])


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
