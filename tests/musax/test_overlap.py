"""Audio in overlapping blocks: equality with one pass, lengths, shapes and memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musax.overlap import Blocks

HOPS, LENGTHS = st.integers(1, 40), st.integers(1, 150)


def noise(length, *shape, seed=0):
    return np.random.default_rng(seed).standard_normal((length, *shape)).astype(np.float32)


def filtered(audio, taps):
    """Convolution along time with zeros around, centred: [samples, channels]."""
    reach = len(taps) // 2
    padded = np.pad(audio, ((reach, reach), (0, 0)))
    return sum(tap * padded[i : i + len(audio)] for i, tap in enumerate(taps))


@given(hop=HOPS, context=st.integers(0, 50), length=LENGTHS, data=st.data())
@settings(deadline=None)
def test_identity(hop, context, length, data):
    fade = data.draw(st.integers(0, hop))
    audio = noise(length, 2)
    done = []
    blocks = Blocks(hop, context, fade)
    made = blocks.run(lambda block: block, audio, lambda *counts: done.append(counts))
    assert made.shape == audio.shape
    np.testing.assert_allclose(made, audio, atol=1e-6 if fade else 0)
    assert done[-1] == (length, length)
    assert len(done) == -(-length // hop)


@given(hop=HOPS, reach=st.integers(0, 12), extra=st.integers(0, 5), length=LENGTHS, data=st.data())
@settings(deadline=None)
def test_a_local_function_with_its_context_equals_one_pass(hop, reach, extra, length, data):
    fade = data.draw(st.integers(0, hop))
    taps, audio = noise(2 * reach + 1, seed=1), noise(length, 1)
    blocks = Blocks(hop, reach + extra, fade)
    made = blocks.run(lambda block: filtered(block, taps), audio)
    np.testing.assert_allclose(made, filtered(audio, taps), atol=1e-5 if fade else 0)


def test_too_little_context_shows():
    taps, audio = noise(9, seed=1), noise(60, 1)
    made = Blocks(hop=10, context=3).run(lambda block: filtered(block, taps), audio)
    assert not np.allclose(made, filtered(audio, taps), atol=1e-3)


@given(hop=HOPS, cuts=st.lists(st.integers(0, 30), max_size=8), data=st.data())
@settings(deadline=None)
def test_chunks_do_not_show(hop, cuts, data):
    fade, context = data.draw(st.integers(0, hop)), data.draw(st.integers(0, 9))
    audio = noise(sum(cuts))
    blocks = Blocks(hop, context, fade)
    chunks = np.split(audio, np.cumsum(cuts)[:-1]) if cuts else []
    pieces = list(blocks.stream(np.tanh, chunks))
    if len(audio):
        np.testing.assert_array_equal(np.concatenate(pieces), blocks.run(np.tanh, audio))
        assert all(len(piece) == hop for piece in pieces[:-1])
    else:
        assert not pieces


@given(hop=st.integers(1, 8), length=st.integers(1, 30), ratio=st.integers(1, 4))
@settings(deadline=None)
def test_frames_to_samples(hop, length, ratio):
    frames = noise(length, 3)

    def vocode(block):
        return np.repeat(block.sum(1), ratio)

    made = Blocks(hop, context=2, fade=hop // 2, ratio=ratio).run(vocode, frames)
    np.testing.assert_allclose(made, vocode(frames), atol=1e-5)


def test_sources_of_one_compiled_shape_in_bounded_memory():
    compiled = []

    @jax.jit
    def separate(mix):
        compiled.append(mix.shape)
        return jnp.stack([0.25 * mix, 0.5 * mix, mix])

    blocks = Blocks(hop=100, context=20, fade=30, axis=1)
    audio = noise(1234, 2)
    stems = blocks.run(separate, audio)
    assert stems.shape == (3, 1234, 2)
    np.testing.assert_allclose(stems[0] + stems[1], 0.75 * audio, atol=1e-6)
    assert compiled == [(170, 2)]

    seen, drawn = [], 0

    def endless():
        nonlocal drawn
        while True:
            drawn += 1
            yield noise(64, 2)

    for piece in blocks.stream(separate, endless()):
        seen.append(piece.shape)
        if len(seen) == 50:
            break
    assert set(seen) == {(3, 100, 2)}
    assert drawn <= (50 * 100 + 170) / 64 + 1  # reads no further than it has to


def test_the_fade_is_a_cross_fade():
    """A function that answers differently in every block: its number."""
    numbers = iter(range(3))
    made = Blocks(hop=10, fade=4).run(lambda block: np.full(14, float(next(numbers))), np.zeros(30))
    np.testing.assert_array_equal(made[[0, 9, 14, 19, 24, 29]], [0, 0, 1, 1, 2, 2])
    assert np.all(np.diff(made[9:15]) > 0)
    np.testing.assert_allclose(made[10:14] + made[13:9:-1], 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"hop": 0}, "hop=0"), ({"hop": 4, "fade": 5}, "fade=5"), ({"hop": 4, "ratio": 0}, "ratio=0")],
)
def test_impossible_blocks_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Blocks(**options)


def test_bad_functions_and_signals_are_named():
    with pytest.raises(ValueError, match=r"shape \(5,\) for a block of \(6,\).*expected 6"):
        Blocks(hop=4, context=1).run(lambda block: block[1:], np.zeros(9))
    with pytest.raises(ValueError, match="no samples"):
        Blocks(hop=4).run(np.tanh, np.zeros((0, 2)))
