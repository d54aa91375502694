import dataclasses
import functools
import math

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perceiver_ar import likelihood, music, preprocessors
from perceiver_ar.blocks import LatentSchedule, strided_blocks
from perceiver_ar.generation import generate
from perceiver_ar.likelihood import buckets, score_sequences
from perceiver_ar.models import PerceiverARModel
from perceiver_ar.network import PerceiverAR
from perceiver_ar.optimizers import optimizer
from perceiver_ar.sampler import Sampler
from t5x.data.tasks import Task
from tests.perceiver_ar.reference import random_tokens, tiny
from tests.perceiver_ar.test_generation import biased, stateless
from tests.perceiver_ar.test_music import reader

CONTEXT, LATENTS = 24, 8


@pytest.fixture(scope="module")
def model():
    config, network, params = tiny(max_wavelength=60, num_transformers_per_block=1)
    return config, PerceiverARModel(network, None, optimizer()), params


def sequences(*lengths):
    """Rows of so many targets each."""
    return [{"tokens": random_tokens([n + 1], n + 1, seed=n)[0]} for n in lengths]


def score(model, rows, **options):
    return score_sequences(model[1], model[2], rows, **{"context": CONTEXT, **options})


def expected_nats(model, tokens, blocks):
    logits = stateless(model[0], model[2], tokens[:-1], blocks)
    return -np.asarray(jax.nn.log_softmax(logits))[np.arange(len(logits)), tokens[1:]]


@pytest.mark.parametrize("stride", [3, pytest.param(8, marks=pytest.mark.slow)])
def test_each_target_is_scored_in_its_block(model, stride):
    rows, progress = sequences(4, 55), []
    found = score(model, rows, stride=stride, progress=lambda *x: progress.append(x))
    blocks = list(strided_blocks(55, CONTEXT, LATENTS, stride))
    expected = expected_nats(model, rows[1]["tokens"], blocks)
    np.testing.assert_allclose(found[1].nats, expected, atol=2e-5)
    at = [(b, t) for b in blocks for t in range(b.first_scored, b.end)]
    np.testing.assert_array_equal(found[1].inputs, [t - b.first_input + 1 for b, t in at])
    np.testing.assert_array_equal(found[1].latents, [t - b.first_latent + 1 for b, t in at])
    assert progress[-1] == (59, 59)
    alone = score(model, rows[:1], stride=stride)[0]
    np.testing.assert_allclose(found[0].nats, alone.nats, atol=1e-5)


def test_a_short_sequence_costs_the_same_with_any_stride(model):
    rows = sequences(8, 5)
    whole = score(model, rows)
    for stride in (1, 3):
        parts = score(model, rows, stride=stride)
        for a, b in zip(whole, parts):
            np.testing.assert_allclose(a.nats, b.nats, atol=1e-5)


@pytest.mark.slow
def test_less_context_and_fewer_latents(model):
    """As a network that never had more; 6 inputs are fewer than its latents."""
    rows = sequences(40)
    config = dataclasses.replace(model[0], max_context_length=6, z_index_dim=4)
    small = config, PerceiverARModel(PerceiverAR(config), None, optimizer()), model[2]
    found = score(model, rows, context=6, num_latents=4, stride=3)[0]
    np.testing.assert_allclose(
        found.nats, score(small, rows, context=6, stride=3)[0].nats, atol=1e-5
    )
    assert found.inputs.max() == 6
    assert score(model, rows, context=6)[0].latents.max() == 6


@pytest.mark.slow
def test_what_was_sampled_costs_what_the_sampler_paid(model):
    """With prompts, and beyond the context; the prompt itself is not scored."""
    config, ours, params = model
    params = biased(params, id_0=-60.0, id_1=-60.0, id_2=-60.0)
    schedule = LatentSchedule(LATENTS, refill=3)
    prompts = [[2], [2, 5, 6, 7, 8, 9, 10, 11, 12, 13]]
    sampler = Sampler(config, 40, schedule)
    tokens, paid = generate(sampler, params, prompts, rng=jax.random.PRNGKey(1))
    rows = [{"tokens": t[0], "prefix_lengths": len(p)} for t, p in zip(tokens, prompts)]
    found = score((config, ours, params), rows, schedule=schedule)
    for row, prompt, total in zip(found, prompts, paid[:, 0]):
        given_ones = len(prompt) - 1
        assert np.isnan(row.nats[:given_ones]).all()
        assert not row.inputs[:given_ones].any()
        assert np.isfinite(row.nats[given_ones:]).all()
        assert -np.nansum(row.nats) == pytest.approx(total, abs=2e-4)


def test_a_rotary_network_does_not_mind_where_positions_begin(model):
    rows = sequences(55)
    kept, restarted = (score(model, rows, stride=4, restart=r)[0].nats for r in (False, True))
    np.testing.assert_allclose(kept, restarted, atol=1e-4)


@pytest.mark.parametrize(
    ("row", "options", "message"),
    [
        ([2], {}, r"sequence 1: .*\[1\]"),
        ([2, 4, 0], {}, "sequence 1: .*1 zeros"),
        ([2, 4], {"stride": 9}, "stride=9"),
        ([2, 4], {"stride": 2, "schedule": LatentSchedule(4)}, "and a schedule"),
        ([2, 4], {"num_latents": 9}, "9 latents: expected 1 to 8"),
        ([2, 4], {"schedule": LatentSchedule(8), "context": 5}, "8 latents: expected 1 to 5"),
    ],
)
def test_what_cannot_be_scored_is_named(model, row, options, message):
    with pytest.raises(ValueError, match=message):
        score(model, [*sequences(3), {"tokens": np.array(row)}], **options)


# ----------------------------------------------------------------------------------- sequences


@pytest.mark.parametrize("restart", [False, True])
def test_whole_sequences_are_what_windows_are_cut_from(restart):
    options = {"num_latents": LATENTS, "restart_positions": restart}
    source = music.piece_source(reader, "x")
    task = music.music_task(source, purpose="evaluate", **options)
    found = list(likelihood.whole_sequences(task, "validation"))
    assert len(found) == 2
    for row in found:
        assert (row["tokens"][0], row["tokens"][-1]) == (2, 1)
        assert row["positions"][-1, 0] == len(row["tokens"])
    assert len(list(likelihood.whole_sequences(task, "validation", limit=1))) == 1

    train = music.music_task(source, **options)
    epochs = [
        [row["tokens"] for row in likelihood.whole_sequences(train, "train", epoch=e)]
        for e in (1, 1, 2)
    ]
    same = [[np.array_equal(a, b) for a, b in zip(epochs[0], other)] for other in epochs[1:]]
    assert all(same[0])
    assert not any(same[1])


def test_a_task_of_another_kind_is_named():
    task = Task("lines", {"train": [{"text": "a"}]}, [preprocessors.number_positions])
    with pytest.raises(ValueError, match="'lines' is none"):
        list(likelihood.whole_sequences(task, "train"))


# ----------------------------------------------------------------------------------- summaries


def test_units():
    """Uniform over 256 bytes, two tokens of two bytes each and one that was given."""
    nats = [np.array([math.log(65_536)] * 2), np.array([math.nan])]
    assert likelihood.mean_nats(nats) == pytest.approx(math.log(65_536))
    assert likelihood.bits(likelihood.mean_nats(nats)) == pytest.approx(16)
    assert likelihood.perplexity(likelihood.mean_nats(nats)) == pytest.approx(65_536)
    assert likelihood.bits_per_byte(nats, 4) == pytest.approx(8)
    assert likelihood.nats_per(nats, 4) == pytest.approx(math.log(256))
    with pytest.raises(ValueError, match="0 units"):
        likelihood.nats_per(nats, 0)


COSTS = st.lists(
    st.lists(st.one_of(st.just(math.nan), st.floats(0, 20)), min_size=1, max_size=30).map(np.array),
    min_size=1,
    max_size=5,
)


@given(COSTS, st.sets(st.integers(1, 40), max_size=6))
def test_buckets_partition_the_targets(nats, edges):
    found = buckets(nats, edges=[0, *sorted(edges)])
    counted = likelihood.counted(nats)
    assert sum(bucket.count for bucket in found) == len(counted)
    total = sum(bucket.count * bucket.nats for bucket in found if bucket.count)
    assert total == pytest.approx(counted.sum())
    positions = functools.partial(filter, lambda p: not math.isnan(p[1]))
    for bucket in found:
        high = math.inf if bucket.high is None else bucket.high
        inside = [x for row in nats for i, x in positions(enumerate(row)) if bucket.low <= i < high]
        assert len(inside) == bucket.count


def test_buckets_by_something_else():
    nats = [np.array([1.0, 2.0, 4.0]), np.array([3.0])]
    found = buckets(nats, [np.array([1, 2, 9]), np.array([2])], edges=(1, 2, 4))
    assert [(b.name, b.count, b.nats) for b in found] == [
        ("1", 1, 1.0),
        ("2-3", 2, 2.5),
        ("4+", 1, 4.0),
    ]
    with pytest.raises(ValueError, match="value 1, below the first edge 2"):
        buckets(nats, [np.array([1, 2, 9]), np.array([2])], edges=(2, 4))
    with pytest.raises(ValueError, match="expected ascending"):
        buckets(nats, edges=(0, 8, 4))
