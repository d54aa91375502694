"""The sampler: with ideal networks it draws from the distribution; given tokens stay."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from cdcd import warping
from cdcd.sampler import (
    NotFiniteError,
    Rows,
    SamplerOptions,
    check_rows,
    refine,
    rows_from_nothing,
    sample,
)
from tests.cdcd.tiny import (
    bigram_divergence,
    markov_joint,
    markov_rows,
    oracle,
    random_batch,
    recorder,
)

KEY = jax.random.key(0)
PRIOR = np.array([0.2, 0.5, 0.3])
#: One for all tests, which thus share its compiled programs.
IDEAL = oracle(PRIOR)
KARRAS = {"rho": 7.0, "warp": False, "never": ()}
TOKENS = np.asarray(random_batch()["decoder_target_tokens"])
NOISY = np.arange(6) % 3 > 0


def draw(denoising, count=3000, **options):
    """Rows from nothing, int [count, L]."""
    options = SamplerOptions(**(KARRAS | options))
    rows = rows_from_nothing(count, denoising.joint.ndim)
    return np.asarray(sample(denoising, {}, rows, KEY, options, warping.evenly()))


# -------------------------------------------------------------------------------- ideal networks


@pytest.mark.parametrize(
    "options",
    [
        {"method": "euler", "steps": 400},
        {"method": "euler", "steps": 400, "churn": 20.0},
        {"method": "heun", "steps": 64},
        {"method": "dpmpp_2m", "steps": 64},
    ],
)
def test_samples_of_the_ideal_denoiser_are_of_the_prior(options):
    tokens = draw(IDEAL, **options)
    counts = np.bincount(tokens[:, 0], minlength=3)
    assert scipy.stats.chisquare(counts, len(tokens) * PRIOR).pvalue > 0.01


@pytest.mark.slow
def test_two_tokens_and_too_few_steps():
    prior = np.array([0.7, 0.3])

    def p_value(steps):
        counts = np.bincount(draw(oracle(prior), 6000, steps=steps)[:, 0], minlength=2)
        return scipy.stats.chisquare(counts, 6000 * prior).pvalue

    assert p_value(400) > 0.01
    assert p_value(8) < 1e-4


@pytest.mark.slow
def test_bigrams_come_nearer_with_steps_and_not_by_sharpening():
    ideal = oracle(markov_joint(4))
    found = [bigram_divergence(draw(ideal, 4000, steps=n) + 3) for n in (4, 16, 64)]
    assert found[0] > 2 * found[1] > 4 * found[2]
    assert found[2] < 0.002
    sharp = bigram_divergence(draw(ideal, 4000, steps=64, score_temperature=0.5) + 3)
    assert sharp > 0.1


@pytest.mark.parametrize(
    "options", [{"score_temperature": 0.5}, {"softmax_temperature": 0.5}, {"noise_scale": 0.5}]
)
def test_what_sharpens_makes_the_likely_likelier(options):
    assert (draw(IDEAL, 1000, steps=32, **options) == 1).mean() > 0.55


def test_a_small_nucleus_and_no_noise_leave_the_likeliest():
    assert (draw(IDEAL, 1000, steps=32, topp=0.05) == 1).mean() > 0.6
    assert (draw(IDEAL, 1000, steps=32, topp=0.999) == 1).mean() < 0.53
    assert len(np.unique(draw(IDEAL, 1000, steps=32, noise_scale=0.0))) == 1


def test_gaps_are_filled_in_by_what_is_around_them():
    """Of the chain, the middle one of three given its neighbours."""
    rows = np.tile(np.array([[0, 0, 2]], np.int32), (3000, 1))
    noisy = np.broadcast_to([False, True, False], rows.shape)
    options = SamplerOptions(steps=64, method="heun", **KARRAS)
    ideal = oracle(markov_joint(3))
    tokens = np.asarray(sample(ideal, {}, Rows(rows, noisy), KEY, options, warping.evenly()))
    np.testing.assert_array_equal(tokens[:, [0, 2]], rows[:, [0, 2]])
    share = markov_joint(3)[0, :, 2]
    expected = len(tokens) * share / share.sum()
    counts = np.bincount(tokens[:, 1], minlength=3)
    assert scipy.stats.chisquare(counts, expected).pvalue > 0.01


# ------------------------------------------------------------------------------- what is given


@pytest.fixture(scope="module")
def fake():
    """(a simple function for a network, its parameters)."""
    return recorder()


def run(fake, rows=None, rng=KEY, start=None, **options):
    rows = rows or Rows(TOKENS, np.broadcast_to(NOISY, TOKENS.shape))
    options = SamplerOptions(**({"steps": 3} | options))
    return np.asarray(sample(*fake, rows, rng, options, start=start))


def test_given_tokens_stay_and_the_others_are_not_read(fake):
    made = run(fake)
    np.testing.assert_array_equal(made[:, ~NOISY], TOKENS[:, ~NOISY])
    other = np.where(NOISY, 99, TOKENS).astype(np.int32)
    other = Rows(other, np.broadcast_to(NOISY, TOKENS.shape))
    np.testing.assert_array_equal(run(fake, other), made)
    assert not np.array_equal(run(fake, rng=jax.random.key(1)), made)
    assert (made >= 3).all()


def test_all_or_nothing_may_be_given(fake):
    np.testing.assert_array_equal(run(fake, Rows(TOKENS, np.zeros(TOKENS.shape, bool))), TOKENS)
    made = run(fake, rows_from_nothing(4, 6))
    assert made.dtype == np.int32
    assert len(np.unique(made, axis=0)) == 4


def test_a_start_between_keeps_what_is_there(fake):
    model, params = fake
    sure = {**params, "scales": np.full(2, 20.0, np.float32)}
    rows = Rows(TOKENS, np.ones(TOKENS.shape, bool))
    np.testing.assert_array_equal(run((model, sure), rows, start=model.noise.low * 1.5), TOKENS)
    assert not np.array_equal(run((model, sure), rows, start=model.noise.high), TOKENS)
    with pytest.raises(ValueError, match=r"start=0\.01: expected a noise level from 0\.18 to 53"):
        run(fake, rows, start=0.01)


@pytest.mark.parametrize(
    ("tokens", "noisy", "message"),
    [
        (np.full((1, 2), 6), [[True, False]], "given token 6 is outside the vocabulary, 0 to 5"),
        (np.full((1, 2), -1), [[True, False]], "given token -1 is outside"),
        (np.zeros((1, 2)), [[True]], r"tokens \(1, 2\) and noisy \(1, 1\): expected the same"),
        (np.zeros((1, 0)), np.zeros((1, 0)), "with at least one token"),
        (np.zeros(3), np.zeros(3), "expected the same"),
    ],
)
def test_rows_that_do_not_fit_are_named(tokens, noisy, message):
    with pytest.raises(ValueError, match=message):
        check_rows(Rows(tokens.astype(int), np.asarray(noisy, bool)), 6)


def test_tokens_to_be_made_may_be_anything():
    check_rows(Rows(np.array([[99, 3]]), np.array([[True, False]])), 6)


def test_a_network_that_diverged_is_told(fake):
    model, params = fake
    with pytest.raises(NotFiniteError, match="training diverged or the checkpoint is broken"):
        run((model, {**params, "scales": np.full(2, np.nan, np.float32)}))


@pytest.mark.slow
def test_tokens_that_are_never_made(fake):
    assert set(np.unique(run(fake, rows_from_nothing(64, 6)))) == {3, 4, 5}
    assert set(np.unique(run(fake, rows_from_nothing(64, 6), never=[0, 1, 2, 4]))) == {3, 5}
    assert np.unique(run(fake, rows_from_nothing(64, 6), never=())).min() < 3


# ---------------------------------------------------------------------------------- guidance


@dataclasses.dataclass(frozen=True, eq=False)
class Unconditional(type(recorder()[0])):
    """Is told that something is given, but not what."""

    def logits(self, params, x, task, *args, **kwargs):
        task = task._replace(given=jnp.zeros_like(task.given))
        return super().logits(params, x, task, *args, **kwargs)


def test_guidance_between_both_and_beyond(fake):
    model, params = fake
    plain = run(fake)
    hidden = run((Unconditional(model.module, model.noise), params))
    np.testing.assert_array_equal(run(fake, guidance=1.0 + 1e-6), plain)
    np.testing.assert_array_equal(run(fake, guidance=0.0), hidden)
    assert (run(fake, guidance=4.0) != plain).any()
    outside = {"guidance": 4.0, "guidance_low": 60.0}
    np.testing.assert_array_equal(run(fake, **outside), plain)
    assert (hidden != plain).any()


def test_both_branches_are_one_call_and_the_program_is_of_any_weight():
    fake = model, _ = recorder()
    run(fake, guidance=2.0)
    calls = len(model.calls)
    assert calls == 2  # in the loop, and at the end
    assert all(call["x"].shape == (8, 6, 8) for call in model.calls)
    assert model.calls[0]["task"].noisy.shape == (8, 6)
    run(fake, guidance=3.0, score_temperature=0.9, guidance_high=5.0)
    assert len(model.calls) == calls
    run(fake)
    assert model.calls[-1]["x"].shape == (4, 6, 8)


def test_the_estimate_before_is_told_if_wanted(fake):
    model, params = fake

    @dataclasses.dataclass(frozen=True, eq=False)
    class Deaf(type(model)):
        def logits(self, params, x, task, previous, *args, **kwargs):
            zeros = jnp.zeros_like(previous)
            return super().logits(params, x, task, zeros, *args, **kwargs)

    without = run(fake, self_conditioning=False)
    np.testing.assert_array_equal(run((Deaf(model.module, model.noise), params)), without)
    assert (run(fake) != without).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps=0: expected 1 or more"),
        ({"method": "rk4"}, "method='rk4': expected one of euler, heun"),
        ({"score_temperature": 0.0}, r"score_temperature=0\.0: expected a positive number"),
        ({"softmax_temperature": -1.0}, "softmax_temperature"),
        ({"topp": 0.0}, "topp=0.0: expected a probability"),
        ({"noise_scale": -1.0}, "noise_scale"),
        ({"guidance": float("nan")}, "guidance=nan: expected a number"),
        ({"guidance_low": 2.0, "guidance_high": 1.0}, "at most guidance_high"),
        ({"churn": -1.0}, "churn"),
        ({"rho": 0.0}, "rho"),
    ],
)
def test_options_out_of_range_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        SamplerOptions(**options)


# ---------------------------------------------------------------------------- more than one pass


def test_gibbs_sampling_changes_what_may_be_and_keeps_the_distribution():
    ideal = oracle(markov_joint(4))
    rows = markov_rows(0, 3000, 4) - 3
    noisy = np.broadcast_to(np.arange(3000)[:, None] >= 1000, rows.shape)
    options = SamplerOptions(steps=32, method="heun", **KARRAS)
    distribution = warping.evenly()
    found = refine(
        ideal, {}, Rows(rows, noisy), KEY, options, rounds=2, share=0.5, distribution=distribution
    )
    np.testing.assert_array_equal(found[:1000], rows[:1000])
    found = np.asarray(found)
    changed = (found != rows)[1000:].mean()
    assert 0.15 < changed < 0.6
    assert bigram_divergence(found[1000:] + 3) < 0.003


@pytest.mark.slow
def test_rounds_of_refinement_are_samples_one_after_the_other(fake):
    model, params = fake
    rows, options = rows_from_nothing(3, 6), SamplerOptions(steps=3)
    tokens = rows.tokens + 3
    found = refine(
        model, params, Rows(tokens, rows.noisy), KEY, options, rounds=3, share=0.5, start=2.0
    )
    for number in range(3):
        mask_key, sample_key = jax.random.split(jax.random.fold_in(KEY, number))
        part = Rows(tokens, jax.random.uniform(mask_key, (3, 6)) < 0.5)
        tokens = sample(model, params, part, sample_key, options, start=2.0)
    np.testing.assert_array_equal(found, tokens)


def test_refinement_wants_rounds_and_a_share(fake):
    for options in ({"rounds": 0}, {"rounds": 1, "share": 0.0}, {"rounds": 1, "share": 1.5}):
        with pytest.raises(ValueError, match="expected 1 or more, and above 0 up to 1"):
            refine(*fake, rows_from_nothing(1, 4), KEY, **options)
