import functools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perceiver_ar import preprocessors
from perceiver_ar.blocks import Block, LatentSchedule, strided_blocks
from perceiver_ar.feature_converter import PerceiverARFeatureConverter
from perceiver_ar.preprocessors import crop, draw_block, evaluation_windows, number_positions


def sequence(length, **more):
    """`length` + 1 tokens that say where they are: token at i is 100 + i."""
    return number_positions({"tokens": np.arange(100, 101 + length, dtype=np.int32), **more})


def test_targets_are_one_further_and_positions_those_of_the_sequence():
    block = Block(first_input=2, first_latent=3, first_scored=4, end=6)
    taken = preprocessors.take_block(sequence(9), block)
    np.testing.assert_array_equal(taken["inputs"], [102, 103, 104, 105])
    np.testing.assert_array_equal(taken["targets"], [103, 104, 105, 106])
    np.testing.assert_array_equal(taken["positions"], [[3], [4], [5], [6]])
    np.testing.assert_array_equal(taken["loss_weights"], [0, 0, 1, 1])
    assert taken["latent_counts"] == 3


def test_positions_of_the_data_are_kept_and_checked():
    image = np.ones((4, 3), np.int32)
    example = {"tokens": np.arange(4), "positions": image}
    assert number_positions(example)["positions"] is image
    with pytest.raises(ValueError, match=r"positions up to 9 are beyond 8.*max_wavelength"):
        number_positions({"tokens": np.arange(10)}, max_position=8)
    number_positions({"tokens": np.arange(9)}, max_position=8)


# ----------------------------------------------------------------------------------- cropping


def frequencies(method, length, latents, prefix=0, draws=4000, **options):
    """How often each target has a loss, and how many latents are used, over random crops."""
    rng = np.random.default_rng(0)
    trained, counts = np.zeros(length), []
    for _ in range(draws):
        block = draw_block(method, length, 1000, latents, rng, prefix, **options)
        trained[block.first_scored : block.end] += 1
        counts.append(block.end - block.first_latent)
    return trained / draws, np.array(counts)


def expected(length, latents, ends, given=0):
    """The same from all ends, each as likely; ends beyond the length have fewer latents."""
    trained = np.zeros(length)
    for end in ends:
        trained[max(end - latents, given, 0) : min(end, length)] += 1
    return trained / len(ends)


N, LATENTS = 20, 5
CASES = {
    ("none", 0): range(20, 21),
    ("full_latents", 0): range(5, 21),
    ("full_latents", 7): range(11, 21),
    ("full_latents_with_prefix", 0): range(5, 21),
    ("full_latents_with_prefix", 7): range(7, 21),
    ("equal_position_likelihood", 0): range(1, 25),
    ("equal_position_likelihood", 7): range(7, 25),
}


@pytest.mark.parametrize(("method", "prefix"), CASES)
def test_how_often_each_position_is_trained_on(method, prefix):
    ends = CASES[method, prefix]
    found, counts = frequencies(method, N, LATENTS, prefix)
    given = max(prefix - 1, 0)
    np.testing.assert_allclose(found, expected(N, LATENTS, ends, given), atol=0.04)
    assert not found[:given].any()
    if method == "equal_position_likelihood":
        np.testing.assert_allclose(found[given:], LATENTS / len(ends), atol=0.04)
        assert counts.min() == 1
    else:
        assert (counts == LATENTS).all()
    if method == "none":
        assert (found[-LATENTS:] == 1).all()
        assert not found[:-LATENTS].any()


def test_full_latents_are_as_often_in_the_middle_and_less_at_both_ends():
    found, _ = frequencies("full_latents", N, LATENTS)
    assert (np.abs(found[4:16] - 5 / 16) < 0.04).all()
    assert found[0] < 0.1 > found[-1]


def test_ends_of_crops_are_uniform_as_in_the_reference():
    """Of 17 events, with at least 8 inputs, nine crops are equally likely."""
    rng = np.random.default_rng(0)
    ends = [draw_block("full_latents", 16, 12, 8, rng).end for _ in range(800)]
    counts = np.bincount(ends, minlength=17)
    assert not counts[:8].any()
    assert 60 < counts[8:].min() <= counts[8:].max() < 120


def test_the_smallest_crop_may_be_given():
    rng = np.random.default_rng(0)
    ends = {draw_block("full_latents", 20, 9, 4, rng, min_crop=18).end for _ in range(99)}
    assert ends == {18, 19, 20}


@given(
    st.sampled_from(preprocessors.CROPPING),
    st.integers(1, 40),
    st.integers(1, 50),
    st.integers(1, 12),
    st.integers(0, 45),
    st.integers(0, 2**32),
)
def test_crops_are_parts_of_their_sequence(method, length, context, latents, prefix, seed):
    context = max(context, latents)
    rng = np.random.default_rng(seed)
    found = crop(
        sequence(length, prefix_lengths=prefix), rng, {"targets": context}, latents, method
    )
    assert 1 <= len(found["inputs"]) <= context
    assert 1 <= found["latent_counts"] <= min(latents, len(found["inputs"]))
    np.testing.assert_array_equal(found["targets"], found["inputs"] + 1)
    np.testing.assert_array_equal(found["positions"][:, 0], found["inputs"] - 99)
    scored = found["targets"][found["loss_weights"] == 1]
    assert len(scored) <= found["latent_counts"]
    assert (scored - 100 >= prefix).all()


def test_sequences_of_one_token_are_left_out_and_unknown_methods_named():
    rng = np.random.default_rng(0)
    assert crop(sequence(0), rng, None, 4) is None
    with pytest.raises(ValueError, match=r"cropping='half'.*full_latents_with_prefix"):
        draw_block("half", 4, 4, 2, rng)


# --------------------------------------------------------------------------------- evaluation


@given(st.integers(1, 60), st.integers(1, 20), st.data())
def test_every_target_is_scored_once(length, latents, data):
    context = data.draw(st.integers(latents, 40))
    stride = data.draw(st.integers(1, latents))
    prompt = data.draw(st.integers(1, length))
    refill, first = (data.draw(st.integers(1, latents)) for _ in range(2))
    limit = data.draw(st.integers(length, 80))
    schedule = LatentSchedule(latents, refill, first)
    for blocks, start in (
        (strided_blocks(length, context, latents, stride), 0),
        (schedule.blocks(length, context, prompt, limit), prompt - 1),
    ):
        scored = []
        for block in blocks:
            assert 0 <= block.first_input <= block.first_latent <= block.first_scored < block.end
            assert block.end - block.first_latent <= latents
            assert block.end - block.first_input <= context
            scored += range(block.first_scored, block.end)
        assert scored == list(range(start, length))


def test_the_short_remainder_comes_first():
    ends = [block.end for block in strided_blocks(10, 100, 4, 4)]
    assert ends == [2, 6, 10]


def test_blocks_of_the_reference_have_the_fills_it_has():
    blocks = LatentSchedule.reference(8).blocks(24, 24, 5)
    fills = [t - b.first_latent + 1 for b in blocks for t in range(b.first_scored, b.end)]
    assert fills == [*range(1, 9), *range(4, 9), *range(4, 9), 4, 5]


def test_schedules_out_of_range_are_named():
    with pytest.raises(ValueError, match="refill=9, expected 1 to num_latents=8"):
        LatentSchedule(8, refill=9)
    with pytest.raises(ValueError, match="first_fill=0"):
        LatentSchedule(8, first_fill=0)
    with pytest.raises(ValueError, match="stride=5"):
        list(strided_blocks(10, 8, 4, 5))


def test_windows_score_all_but_what_is_given():
    windows = list(evaluation_windows(sequence(11, prefix_lengths=4), {"targets": 6}, 4, 2))
    scored = np.concatenate([w["targets"][w["loss_weights"] == 1] for w in windows])
    np.testing.assert_array_equal(scored, np.arange(104, 112))
    assert max(len(w["inputs"]) for w in windows) == 6


def test_prompts():
    found = preprocessors.prompt_and_rest(sequence(5, prefix_lengths=3))
    assert found["prompt_lengths"] == 3
    np.testing.assert_array_equal(found["loss_weights"], [0, 0, 1, 1, 1])


# ---------------------------------------------------------------------------------- batches


def test_batches():
    converter = PerceiverARFeatureConverter()
    lengths = {"inputs": 8, "targets": 8}
    converter.check_lengths(lengths)
    take = functools.partial(preprocessors.take_block, sequence(9))
    rows = [converter.prepare(take(Block(0, 0, 0, n)), lengths) for n in (3, 8)]
    batch = converter.convert(converter.collate(rows, lengths))
    assert {k: v.shape for k, v in batch.items()} == {
        "decoder_input_tokens": (2, 8),
        "decoder_target_tokens": (2, 8),
        "decoder_loss_weights": (2, 8),
        "decoder_positions": (2, 8, 1),
        "decoder_latent_counts": (2,),
    }
    np.testing.assert_array_equal(batch["decoder_input_tokens"][0], [100, 101, 102, *[0] * 5])
    plain = [{k: row[k] for k in ("inputs", "targets")} for row in rows]
    batch = converter.convert(converter.collate(plain, lengths))
    np.testing.assert_array_equal(batch["decoder_loss_weights"].sum(1), [3, 8])


def test_features_that_do_not_fit_are_named():
    converter = PerceiverARFeatureConverter()
    lengths = {"inputs": 8, "targets": 8}
    with pytest.raises(ValueError, match="one length for all"):
        converter.check_lengths({"inputs": 8, "targets": 9})
    with pytest.raises(ValueError, match="missing the feature 'targets'"):
        converter.prepare({"inputs": np.ones(3, np.int32)}, lengths)
    long = preprocessors.take_block(sequence(9), Block(0, 0, 0, 9))
    with pytest.raises(ValueError, match="has length"):
        converter.prepare(long, lengths)
    with pytest.raises(ValueError, match="of one length expected"):
        converter.prepare({**long, "targets": long["targets"][:4]}, {"inputs": 9, "targets": 9})
