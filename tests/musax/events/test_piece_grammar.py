import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musax.events.grammar import EOS_ID, NUM_SPECIAL_IDS
from musax.events.piece_grammar import piece_grammar
from musax.events.pieces import MULTITRACK, PERFORMANCE, MultitrackEncoding
from musax.midi import load_midi
from tests.cases import slow_but
from tests.musax.events.test_pieces import quantised_notes

ENCODINGS = slow_but(
    ["performance", "multitrack"],
    {
        "performance": PERFORMANCE,
        "multitrack": MULTITRACK,
        "flat": MultitrackEncoding(granularity="flat"),
    },
)
ROWS, LENGTH = 8, 200


def grammar_of(encoding):
    return piece_grammar(encoding, encoding.codec.num_classes + NUM_SPECIAL_IDS + 5)


@functools.cache
def reader_of(encoding):
    """Which of the tokens [L] the grammar allows where they are; after EOS it is padded with 0."""
    grammar = grammar_of(encoding)

    @jax.jit
    def read(tokens):
        def step(state, token):
            return grammar.update(state, token[None]), grammar.mask(state)[0, token]

        return jax.lax.scan(step, grammar.init(1), tokens)[1]

    return read


def refused(encoding, events):
    tokens = np.append(np.asarray(events) + NUM_SPECIAL_IDS, EOS_ID)
    # Few lengths, since each compiles a program.
    padded = np.zeros(1 << max((len(tokens) - 1).bit_length(), 8), np.int32)
    padded[: len(tokens)] = tokens
    return np.flatnonzero(~np.asarray(reader_of(encoding)(padded))[: len(tokens)]).tolist()


@pytest.mark.parametrize("encoding", ENCODINGS)
@settings(deadline=None, max_examples=20)  # compiles
@given(notes=quantised_notes())
def test_what_an_encoding_writes_is_allowed(encoding, notes):
    events = encoding.encode(notes)
    if len(events):
        assert refused(encoding, events) == []


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_real_piece_is_allowed(encoding):
    assert refused(encoding, encoding.encode(load_midi("examples/rendering.mid"))) == []


def test_an_empty_piece_is_not():
    assert refused(PERFORMANCE, []) == [0]


@pytest.mark.parametrize(
    ("names", "wrong"),
    [
        ("onset 60", 0),  # of no velocity
        ("velocity 3, velocity 4", 1),
        ("velocity 3, shift 5", 1),
        ("velocity 3, onset 60, onset 59", 2),
        ("velocity 3, onset 60, onset 60", 2),
        ("velocity 3, onset 60, velocity 3", 2),
        ("velocity 3, onset 60, offset 60", 2),
        ("velocity 3, onset 60, shift 0", 2),
        ("velocity 3, onset 60, shift 5, shift 5", 3),
        ("velocity 3, onset 60, shift 5, offset 61", 3),
        ("velocity 3, onset 60, shift 5, offset 60, offset 60", 4),
        ("velocity 3, onset 60, shift 5, onset 62, offset 60", 4),
        ("velocity 3, onset 60, shift 5", 3),  # and the end: of a shift
        ("velocity 3, onset 60", 2),  # and the end: it sounds
    ],
)
def test_what_makes_no_sense_is_refused(names, wrong):
    codec = PERFORMANCE.codec
    events = [
        int(codec.encode(name, np.array([int(value)]))[0])
        for name, value in (event.split() for event in names.split(", "))
    ]
    assert refused(PERFORMANCE, events)[0] == wrong


@functools.cache
def sampler_of(encoding):
    """Samples tokens [B, L] from random logits under the grammar."""
    grammar = grammar_of(encoding)
    kinds = np.zeros(grammar.vocab_size, np.int32)
    events = slice(NUM_SPECIAL_IDS, NUM_SPECIAL_IDS + encoding.codec.num_classes)
    kinds[events] = 1 + encoding.codec.type_indices

    @jax.jit
    def sample(key):
        def step(state, key):
            noise, kind_noise = jax.random.split(key)
            mask = grammar.mask(state)
            logits = jax.random.gumbel(noise, mask.shape)
            logits += 3 * jax.random.normal(kind_noise, (ROWS, 10))[:, kinds]
            token = jnp.argmax(jnp.where(mask, logits, -jnp.inf), axis=1)
            return grammar.update(state, token), (token, mask.any(axis=1))

        keys = jax.random.split(key, LENGTH)
        return jax.tree.map(jnp.transpose, jax.lax.scan(step, grammar.init(ROWS), keys)[1])

    return sample


@pytest.mark.parametrize("encoding", ENCODINGS)
@settings(deadline=None, max_examples=4)  # compiles, and each is of many rows
@given(seed=st.integers(0, 2**31))
def test_what_is_sampled_makes_sense(encoding, seed):
    tokens, alive = sampler_of(encoding)(jax.random.key(seed))
    assert alive.all()
    for row in np.asarray(tokens):
        ended = EOS_ID in row
        events = row[: row.tolist().index(EOS_ID)] if ended else row
        decoded = encoding.decode(events - NUM_SPECIAL_IDS)
        assert decoded.invalid_events == 0
        if ended and encoding != PERFORMANCE:  # it writes ends of notes that are struck again
            np.testing.assert_array_equal(encoding.encode(decoded.notes), events - NUM_SPECIAL_IDS)


def test_notes_that_sound_for_too_long_are_ended_first():
    codec = PERFORMANCE.codec
    grammar = piece_grammar(PERFORMANCE, codec.num_classes + NUM_SPECIAL_IDS, longest_note=1.5)
    state = grammar.init(1)

    def token(name, value):
        return int(codec.encode(name, np.array([value]))[0]) + NUM_SPECIAL_IDS

    def write(state, *events):
        for event in events:
            assert grammar.mask(state)[0, token(*event)], event
            state = grammar.update(state, jnp.array([token(*event)]))
        return state

    notes = [("velocity", 3), ("onset", 50), ("onset", 60), ("onset", 70)]
    state = write(state, *notes, ("shift", 60), ("offset", 70), ("onset", 72), ("shift", 90))
    offsets = [token("offset", 50)]
    assert np.flatnonzero(grammar.mask(state)[0]).tolist() == offsets
    state = write(state, ("offset", 50))
    assert np.flatnonzero(grammar.mask(state)[0]).tolist() == [token("offset", 60)]
    state = write(state, ("offset", 60), ("onset", 60), ("shift", 100))
    state = write(state, ("offset", 60))  # before that of a higher pitch which is overdue
    write(state, ("offset", 72), ("onset", 40))


def test_a_vocabulary_that_is_too_small_is_refused():
    with pytest.raises(ValueError, match="vocab_size 391 is too small for 389 events"):
        piece_grammar(PERFORMANCE, 391)
