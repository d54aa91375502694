"""Decoding over token tables: the reference's results, and properties of each option."""

import functools
import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t5x import decoding
from t5x.decoding import sampling
from tests.t5x.networks import REFERENCE_DECODING
from tests.vectors import golden_dir

EOS = 1


@pytest.fixture(scope="module")
def z():
    with np.load(golden_dir("t5x") / "decoding.npz") as data:
        return {k: data[k] for k in data.files}


def table_model(table):
    """Next-token logits from table[cur], or table[previous, cur] with `previous` in the cache."""
    table = jnp.asarray(table)

    def tokens_to_logits(state):
        current = state.cur_token[:, 0]
        steps = state.cache["steps"] + 1
        if table.ndim == 2:
            return table[current], {"prev": state.cache["prev"], "steps": steps}
        logits = table[state.cache["prev"][:, 0], current]
        return logits, {"prev": state.cur_token, "steps": steps}

    return tokens_to_logits


def new_cache(batch):
    return {"prev": jnp.zeros((batch, 1), jnp.int32), "steps": jnp.zeros((), jnp.int32)}


@functools.cache
def program(kind, options):
    """A compiled decoding function, shared by tests with the same options."""

    @jax.jit
    def run(table, inputs, arrays):
        cache, model = new_cache(len(inputs)), table_model(table)
        return getattr(decoding, kind)(inputs, cache, model, EOS, **dict(options), **arrays)

    return run


def decode(kind, table, inputs, **kwargs):
    """Decodes; of the options, arrays are arguments of the program, lists have one for each row."""
    kwargs = {k: tuple(v) if isinstance(v, list) else v for k, v in kwargs.items()}
    arrays = {k: kwargs.pop(k) for k, v in list(kwargs.items()) if isinstance(v, jax.Array)}
    options = tuple(sorted(kwargs.items(), key=lambda item: item[0]))
    return program(kind, options)(table, jnp.asarray(inputs), arrays)


def reference_cases():
    with np.load(golden_dir("t5x") / "decoding.npz") as data:
        return json.loads(str(data["cases_json"]))


@pytest.mark.parametrize("case", reference_cases(), ids=lambda c: f"{c['case']}-{c['kind']}")
def test_decodes_are_the_references(z, case):
    prompt = z[f"prompt/{case['prompt']}"]
    kwargs = {**REFERENCE_DECODING[case["kind"]], **case["kwargs"]}
    if kwargs.pop("initial_index", False):
        kwargs["initial_index"] = jnp.asarray((prompt != 0).sum(1))
    decodes, scores = map(np.asarray, decode(case["kind"], z[case["table"]], prompt, **kwargs))
    expected, expected_scores = (z[f"case_{case['case']}/{k}"] for k in ("decodes", "scores"))
    used = expected_scores > -1e6
    np.testing.assert_allclose(scores[used], expected_scores[used], rtol=1e-5, atol=1e-4)
    assert (scores[~used] < -1e6).all()
    for row in range(len(decodes)):
        for k in np.flatnonzero(used[row]):
            # Beams of nearly the same score may come in either order.
            near = np.flatnonzero(np.abs(scores[row] - expected_scores[row, k]) < 1e-4)
            assert any((decodes[row, j] == expected[row, k]).all() for j in near), (row, k)


def test_masks_are_the_references(z):
    logits = z["mask/logits"]
    for i, k in enumerate(z["mask/topk"]):
        for topk in (int(k), jnp.int32(k)):  # one is by sorting, the other by bisection
            np.testing.assert_array_equal(decoding.topk_mask(logits, topk), z[f"mask/topk_{i}"])
    for i, p in enumerate(z["mask/topp"]):
        np.testing.assert_array_equal(decoding.topp_mask(logits, float(p)), z[f"mask/topp_{i}"])


def test_brevity_penalty_and_alignment_are_the_references(z):
    for i, alpha in enumerate(z["brevity/alpha"]):
        penalty = decoding.brevity_penalty(alpha, z["brevity/length"])
        np.testing.assert_allclose(penalty, z["brevity/value"][i], rtol=1e-6)
    right = decoding.right_align_prompts(z["align/in"])
    np.testing.assert_array_equal(right, z["align/right"])
    left = decoding.left_align_prompts(right)
    np.testing.assert_array_equal(left, z["align/left_of_right"])


topk_mask, topp_mask = jax.jit(decoding.topk_mask), jax.jit(decoding.topp_mask)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.floats(0.01, 0.99))
def test_masks_keep_what_sorting_would(seed, k, p):
    logits = np.random.default_rng(seed).normal(size=(3, 9)).astype(np.float32) * 3
    kept_k = np.asarray(topk_mask(logits, np.full(3, k))) > -1e6
    kept_p = np.asarray(topp_mask(logits, p)) > -1e6
    for row in range(3):
        order = np.argsort(-logits[row])
        np.testing.assert_array_equal(np.sort(order[:k]), np.flatnonzero(kept_k[row]))
        probabilities = np.exp(logits[row].astype(np.float64))
        cumulative = np.cumsum(probabilities[order]) / probabilities.sum()
        if np.abs(cumulative - p).min() > 1e-5:
            needed = np.searchsorted(cumulative, p) + 1
            np.testing.assert_array_equal(np.sort(order[:needed]), np.flatnonzero(kept_p[row]))


def random_table(seed, vocab=6, scale=2.0):
    table = np.random.default_rng(seed).normal(size=(vocab, vocab)).astype(np.float32) * scale
    table[:, 0] = -1e4  # never padding
    return table


@pytest.mark.parametrize("seed", range(4))
def test_wide_beam_finds_what_exhaustive_search_finds(seed):
    vocab, length = 5, 4
    table = random_table(seed, vocab)
    logp = np.asarray(jax.nn.log_softmax(table))
    best = (-np.inf, None)
    for n in range(1, length + 1):
        for tokens in itertools.product(range(2, vocab), repeat=n - 1):
            path = [0, *tokens, EOS]
            total = sum(logp[a, b] for a, b in itertools.pairwise(path))
            score = total / float(decoding.brevity_penalty(0.6, n))
            best = max(best, (score, path[1:] + [0] * (length - n)))
    decodes, scores = decode("beam_search", table, np.zeros((1, length), np.int32), num_decodes=30)
    assert scores[0, -1] == pytest.approx(best[0], rel=1e-5)
    np.testing.assert_array_equal(decodes[0, -1], best[1])


def test_beam_of_one_stops_at_a_second_choice_eos_where_greedy_goes_on():
    table = np.full((4, 4), -9.0, np.float32)
    table[:, 2] = 0.1
    table[:, EOS] = 0.0
    inputs = np.zeros((1, 8), np.int32)
    greedy, _ = decode("temperature_sample", table, inputs, temperature=0.0)
    beam, _ = decode("beam_search", table, inputs, num_decodes=1)
    assert (greedy[0, 0] == 2).all()
    assert beam[0, 0, 0] == EOS


def test_beam_search_takes_the_caches_along():
    # The best third token depends on the first, which only the cache remembers.
    table = np.random.default_rng(3).normal(size=(6, 6, 6)).astype(np.float32) * 3
    table[..., 0] = -1e4
    length = 5
    decodes, scores = decode(
        "beam_search", table, np.zeros((1, length), np.int32), num_decodes=4, alpha=0.0
    )
    logp = np.asarray(jax.nn.log_softmax(table))
    for seq, score in zip(np.asarray(decodes[0]), np.asarray(scores[0])):
        if score < -1e6:
            continue
        path = [0, 0, *seq[: list(seq).index(EOS) + 1]]
        total = sum(logp[a, b, c] for a, b, c in zip(path, path[1:], path[2:]))
        assert score == pytest.approx(total, abs=1e-4)


def test_loop_stops_when_every_row_has_ended():
    table = np.full((8, 8), -9.0, np.float32)
    for token in range(2, 8):
        table[token, token - 1] = 9.0  # counts down to EOS
    model = table_model(table)
    inputs = jnp.asarray([[0, 4] + [0] * 98, [0, 6] + [0] * 98])
    steps = []

    def counting(state):
        jax.debug.callback(lambda n: steps.append(int(n)), state.cache["steps"])
        return model(state)

    decodes, _ = jax.jit(
        lambda: decoding.temperature_sample(inputs, new_cache(2), counting, EOS, temperature=0.0)
    )()
    jax.effects_barrier()
    np.testing.assert_array_equal(decodes[1, 0, :7], [6, 5, 4, 3, 2, 1, 0])
    assert max(steps) == 5  # 6 steps: the prompt, then 5 4 3 2 1
    np.testing.assert_array_equal(decodes[0, 0, :5], [4, 3, 2, 1, 0])


def test_sampling_follows_the_nucleus_and_the_temperature():
    table = np.tile(np.log(np.array([1e-9, 0.1, 0.2, 0.3, 0.4], np.float32)), (5, 1))
    rows = 4000
    inputs = np.zeros((rows, 1), np.int32)

    def frequencies(topk=0, topp=0.0, min_p=0.0, temperature=1.0, one_topk=False):
        options = {"topp": topp, "min_p": min_p, "temperature": temperature, "topk": topk}
        options = {name: jnp.broadcast_to(value, rows) for name, value in options.items()}
        if one_topk:
            options["topk"] = topk
        decodes, _ = decode("temperature_sample", table, inputs, **options)
        return np.bincount(np.asarray(decodes).ravel(), minlength=5) / rows

    def close(a, b):  # four standard deviations of a frequency
        np.testing.assert_allclose(a, b, atol=4 * 0.5 / np.sqrt(rows))

    close(frequencies(), [0, 0.1, 0.2, 0.3, 0.4])  # of everything
    close(frequencies(topk=2), [0, 0, 0, 3 / 7, 4 / 7])
    close(frequencies(topk=2, one_topk=True), [0, 0, 0, 3 / 7, 4 / 7])
    close(frequencies(topp=0.6), [0, 0, 0, 3 / 7, 4 / 7])
    close(frequencies(topk=2, topp=0.3), [0, 0, 0, 0, 1])
    close(frequencies(topk=1, topp=0.3), [0, 0, 0, 0, 1])
    close(frequencies(min_p=0.7), [0, 0, 0, 3 / 7, 4 / 7])
    close(frequencies(topk=3, topp=0.8, min_p=0.4), [0, 0, 2 / 9, 3 / 9, 4 / 9])
    squared = np.array([0, 0.01, 0.04, 0.09, 0.16]) / 0.3
    close(frequencies(temperature=0.5), squared)
    topk = jnp.where(jnp.arange(rows) < rows // 2, 1, 2)
    close(frequencies(topk=topk), [0, 0, 0, 1.5 / 7, 5.5 / 7])
    min_p = jnp.where(jnp.arange(rows) < rows // 2, 0.0, 1.0)
    close(frequencies(min_p=min_p), [0, 0.05, 0.1, 0.15, 0.7])


def test_rows_may_have_their_own_temperature():
    table = random_table(0, scale=0.1)
    inputs = np.zeros((64, 12), np.int32)
    temperature = jnp.where(jnp.arange(64) < 32, 0.0, 1.0)
    decodes, _ = decode("temperature_sample", table, inputs, temperature=temperature, topk=0)
    greedy, _ = decode("temperature_sample", table, inputs[:1], temperature=0.0)
    assert (decodes[:32] == greedy).all()
    assert len(np.unique(decodes[32:, 0], axis=0)) > 16


def test_options_of_a_row_hold_for_each_of_its_decodes():
    table = random_table(0, scale=0.1)
    cold = {"temperature": [0.0, 1.0], "topk": [1, 0], "topp": [1e-6, 0.0], "min_p": [1.0, 0.0]}
    greedy, _ = decode("temperature_sample", table, np.zeros((1, 12), np.int32), topk=1)
    for name in cold:
        options = {
            key: jnp.asarray(values if key == name else [values[1]] * 2)
            for key, values in cold.items()
        }
        inputs = np.zeros((2, 12), np.int32)
        decodes, _ = decode("temperature_sample", table, inputs, num_decodes=8, **options)
        assert (decodes[0] == greedy[0]).all(), name
        assert len(np.unique(decodes[1], axis=0)) > 4, name


def test_options_of_rows_may_be_lists():
    table = random_table(0, scale=0.1)
    inputs = np.zeros((5, 12), np.int32)
    options = {"temperature": (0.0,) * 5, "topk": (0, 1, 2, 3, 0), "max_decode_steps": (3,) * 5}
    decodes, _ = decode("temperature_sample", table, inputs, num_decodes=2, **options)
    greedy, _ = decode("temperature_sample", table, inputs[:1], topk=1)
    np.testing.assert_array_equal(decodes[..., :3], np.broadcast_to(greedy[..., :3], (5, 2, 3)))
    assert not decodes[..., 3:].any()


def test_repetition_is_penalised_by_the_formula():
    logits = np.array([[2.0, -1.0, 0.5, -3.0]] * 2, np.float32)
    seen = sampling.mark_seen(jnp.zeros((2, 4), bool), jnp.array([[0, 1, 1], [2, 3, 0]]))
    np.testing.assert_array_equal(seen, [[0, 1, 0, 0], [0, 0, 1, 1]])
    ours = sampling.penalise_repetition(logits, seen, jnp.array([2.0, 4.0]))
    np.testing.assert_allclose(ours, [[2, -2, 0.5, -3], [2, -1, 0.125, -12]])


def test_penalised_rows_do_not_repeat():
    vocab = 12
    table = np.tile(np.linspace(5, 6, vocab, dtype=np.float32), (vocab, 1))
    table[:, :2] = -1e4
    inputs = np.zeros((3, 8), np.int32)
    inputs[:, 1] = 11  # a prompt counts as well
    penalty = jnp.array([1.0, 100.0, 100.0])
    options = {"temperature": 0.0, "repetition_penalty": penalty}
    decodes, _ = decode("temperature_sample", table, inputs, num_decodes=2, **options)
    assert (decodes[0] == 11).all()
    np.testing.assert_array_equal(decodes[1, 0], np.arange(11, 3, -1))
    prefilled, _ = decode(
        "temperature_sample", table, inputs, initial_index=jnp.ones(3, jnp.int32), **options
    )
    np.testing.assert_array_equal(prefilled, decodes[:, :1])
    with pytest.raises(ValueError, match="positive"):
        decode("temperature_sample", table, inputs, repetition_penalty=0.0)


def test_log_probabilities_are_the_models_before_the_penalty():
    table = random_table(1, scale=1.0)
    logp = np.asarray(jax.nn.log_softmax(table))
    options = {"repetition_penalty": 1.5, "rescale_log_probs": False}
    for temperature in (0.0, 0.8):
        decodes, scores = decode(
            "temperature_sample", table, [[0] * 6], temperature=temperature, **options
        )
        seq = decodes[0, 0].tolist()
        tokens = seq[: seq.index(EOS) + 1] if EOS in seq else seq
        expected = sum(logp[a, b] for a, b in itertools.pairwise([0, *tokens]))
        assert scores[0, 0] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("every", [1, 3, 100])
def test_streamed_tokens_are_those_decoded(every):
    table = random_table(2, vocab=8, scale=1.0)
    inputs = np.zeros((2, 9), np.int32)
    inputs[:, 1:3] = [[5, 0], [3, 4]]
    start = jnp.array([1, 0])
    received = []

    def listen(tokens):
        received.append(tokens)

    decodes, _ = decode(
        "temperature_sample",
        table,
        inputs,
        num_decodes=2,
        initial_index=start,
        decode_rng=jax.random.key(4),
        stream_fn=listen,
        stream_every=every,
    )
    jax.effects_barrier()
    assert all(x.shape[2] == every for x in received[:-1])
    streamed = np.concatenate(received, axis=2)
    for row in range(2):
        offset = int(start[row])
        expected = sorted(d[offset:].tolist() for d in np.asarray(decodes[row]))
        length = min(streamed.shape[2], 9 - offset)
        got = sorted(s[:length].tolist() + [0] * (9 - offset - length) for s in streamed[row])
        assert got == expected


def test_the_listener_may_end_decoding():
    table = random_table(2, vocab=8)
    table[:, EOS] = -1e4
    inputs = np.zeros((2, 50), np.int32)
    lengths = []

    def listen(tokens):
        lengths.append(tokens.shape[2])
        return len(lengths) == 2

    decodes, _ = decode(
        "temperature_sample", table, inputs, temperature=0.0, stream_fn=listen, stream_every=4
    )
    assert ((np.asarray(decodes) != 0).sum(axis=2) == 8).all()
    assert lengths == [4, 4]
    with pytest.raises(ValueError, match="stream_every"):
        decode("temperature_sample", table, inputs, stream_fn=listen, stream_every=0)


def test_unfinished_beams_are_normalised_by_their_length():
    table = random_table(1)
    table[:, EOS] = -1e9  # worse than a slot that is not used
    inputs = np.zeros((1, 6), np.int32)
    decodes, scores = decode("beam_search", table, inputs, alpha=0.7)
    raw_decodes, raw = decode("beam_search", table, inputs, alpha=0.7, normalize_unfinished=False)
    assert raw.min() > -1e3
    np.testing.assert_array_equal(decodes, raw_decodes)
    np.testing.assert_allclose(scores * decoding.brevity_penalty(0.7, 6), raw, rtol=1e-5)
    logp = np.asarray(jax.nn.log_softmax(table))
    expected = sum(logp[a, b] for a, b in itertools.pairwise([0, *decodes[0, -1].tolist()]))
    assert raw[0, -1] == pytest.approx(expected, abs=1e-4)


def test_decodes_are_sorted_and_their_log_probabilities_are_the_models():
    table = random_table(1, scale=1.0)
    decodes, scores = decode(
        "temperature_sample",
        table,
        [[0, 3, 0, 0, 0, 0]],
        topk=0,
        temperature=0.7,
        num_decodes=5,
        rescale_log_probs=False,
        decode_rng=jax.random.key(3),
    )
    assert (np.diff(scores[0]) >= 0).all()
    logp = np.asarray(jax.nn.log_softmax(table))
    for seq, score in zip(np.asarray(decodes[0]), np.asarray(scores[0])):
        tokens = seq[: list(seq).index(EOS) + 1] if EOS in seq else seq
        expected = sum(logp[a, b] for a, b in itertools.pairwise(tokens))  # 3 was forced
        assert score == pytest.approx(expected, abs=1e-4)


def test_hard_limit_caps_the_steps():
    table = random_table(0)
    table[:, EOS] = -1e4
    decodes, _ = decode(
        "temperature_sample",
        table,
        np.zeros((1, 9), np.int32),
        max_decode_steps=jnp.int32(7),
        max_decode_steps_hard_limit=2,
    )
    assert (np.asarray(decodes[0, 0]) != 0).sum() == 2


class Ascending:
    """Tokens must grow; EOS always may come; nothing else is ever allowed."""

    vocab = 20

    def init(self, batch_size):
        return jnp.ones((batch_size,), jnp.int32)

    def mask(self, state):
        tokens = jnp.arange(self.vocab)[None, :]
        return (tokens > state[:, None]) | (tokens == EOS)

    def update(self, state, tokens):
        return jnp.maximum(state, tokens)


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"topk": 0, "num_decodes": 3}])
def test_a_constraint_is_never_broken(options):
    rng = np.random.default_rng(0)
    table = rng.normal(size=(24, 24)).astype(np.float32) * 3  # 4 rows beyond the vocabulary
    inputs = np.zeros((16, 30), np.int32)
    inputs[8:, 1] = rng.integers(2, 10, 8)
    free, _ = decode("temperature_sample", table, inputs, **options)
    held, _ = decode("temperature_sample", table, inputs, constraint=Ascending(), **options)

    def ascends(seq):
        body = seq[: list(seq).index(EOS)] if EOS in seq else seq
        return (np.diff(body) > 0).all() and body.max(initial=0) < Ascending.vocab

    held = np.asarray(held).reshape(-1, 30)
    assert all(ascends(seq) for seq in held)
    assert not all(ascends(seq) for seq in np.asarray(free).reshape(-1, 30))
    np.testing.assert_array_equal(
        held.reshape(16, -1, 30)[8:, :, 0], np.repeat(inputs[8:, 1:2], held.shape[0] // 16, 1)
    )


def test_callbacks_change_logits_and_state():
    def forbid_two(logits, state):
        assert state.sequences.shape == (2, 7)
        return logits.at[:, 2].set(-1e9)

    table = np.zeros((5, 5), np.float32)
    table[:, 2], table[:, 3] = 5, 4
    inputs = np.zeros((2, 5), np.int32)
    decodes, _ = decode(
        "temperature_sample", table, inputs, temperature=0.0, logit_callback_fn=forbid_two
    )
    assert (decodes == 3).all()

    def end_second_row(state):
        return state.replace(ended=state.ended.at[1].set(True))

    decodes, _ = decode(
        "temperature_sample", table, inputs, temperature=0.0, state_callback_fn=end_second_row
    )
    np.testing.assert_array_equal(decodes[:, 0], [[2] * 5, [0] * 5])
