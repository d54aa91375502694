import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musax.events.decode import NoteDecoder
from musax.events.grammar import EOS_ID, NUM_SPECIAL_IDS, EventGrammar
from musax.events.spec import EncodingSpec
from musax.events.tokenize import notes_to_tokens
from musax.notes import NUM_PITCHES
from tests.cases import slow_but
from tests.musax.events.cases import make_codec, note_arrays, spec_id

STEPS = 50
SPECS = [
    EncodingSpec(offsets=False, canonical=True),
    EncodingSpec(granularity="flat", canonical=True),
    EncodingSpec(granularity="flat", ties=True, canonical=True),
    EncodingSpec(granularity="flat", onsets_before_offsets=True),
    EncodingSpec(granularity="flat", ties=True, onsets_before_offsets=True),
    EncodingSpec(canonical=True),
    EncodingSpec(ties=True, canonical=True),
    EncodingSpec(ties=True, onsets_before_offsets=True),
]
ROWS, LENGTH, READ_LENGTH = 4, 60, 160


def specs(*fast):
    """All of `SPECS` as parameters, of which those with these indices are fast."""
    return slow_but([spec_id(SPECS[i]) for i in fast], {spec_id(spec): spec for spec in SPECS})


@functools.cache
def grammar_of(spec, ordered=True, max_shift_steps=STEPS, max_step=STEPS - 1):
    codec = make_codec(3, max_shift_steps=max_shift_steps)
    vocab_size = codec.num_classes + NUM_SPECIAL_IDS + 7
    return EventGrammar(codec, spec, vocab_size, max_step=max_step, ordered=ordered)


@functools.cache
def sampler_of(grammar):
    """Samples tokens [B, L] from random logits under the grammar, inside a while loop."""
    kinds = np.full(grammar.vocab_size, 0)
    events = slice(NUM_SPECIAL_IDS, NUM_SPECIAL_IDS + grammar.codec.num_classes)
    kinds[events] = 1 + grammar.codec.type_indices

    @jax.jit
    def sample(key, active):
        def step(carry):
            i, key, state, tokens, dead = carry
            key, noise_key, kind_key = jax.random.split(key, 3)
            mask = grammar.mask(state)
            # Types get noise of their own, so that rare types have their turns.
            kind_noise = jax.random.normal(kind_key, (ROWS, 10))[:, kinds] * 3
            logits = jax.random.gumbel(noise_key, mask.shape) + kind_noise
            token = jnp.argmax(jnp.where(mask, logits, -jnp.inf), axis=1)
            dead |= ~mask.any(axis=1)
            return i + 1, key, grammar.update(state, token), tokens.at[:, i].set(token), dead

        tokens = jnp.zeros((ROWS, LENGTH), jnp.int32)
        carry = (0, key, grammar.init(ROWS, active), tokens, jnp.zeros(ROWS, bool))
        _, _, state, tokens, dead = jax.lax.while_loop(lambda c: c[0] < LENGTH, step, carry)
        return tokens, grammar.active_voices(state), dead

    return sample


def sample_and_decode(grammar, seed, segments=3):
    spec, codec = grammar.spec, grammar.codec
    active = jnp.zeros((ROWS, grammar.num_programs, NUM_PITCHES), bool)
    states = [NoteDecoder(codec, spec) for _ in range(ROWS)]
    counts = np.zeros(len(codec.event_types), int)
    for i in range(segments):
        key = jax.random.key(seed * segments + i)
        tokens, active, dead = sampler_of(grammar)(key, active)
        assert not dead.any()
        tokens = np.asarray(tokens)
        for row, state, sounding in zip(tokens, states, np.asarray(active)):
            row = row[: np.argmax(np.append(row, EOS_ID) == EOS_ID)]
            events = row - NUM_SPECIAL_IDS
            counts += np.bincount(codec.type_indices[events], minlength=len(counts))
            start = i * (grammar.max_step + 1) / codec.steps_per_second
            end = (i + 1) * (grammar.max_step + 1) / codec.steps_per_second
            assert state.decode_segment(events, start, end) == (0, 0)
            if spec.offsets:
                expected = {(p, q) for q, p in zip(*map(list, np.nonzero(sounding)))}
                assert set(state.active_voices()) == expected
    for state in states:
        notes = state.flush()
        assert (notes["offset"] > notes["onset"]).all()
    return counts


@pytest.mark.parametrize("spec", specs(0, 4, 7))
@settings(max_examples=3, deadline=None)
@given(st.integers(0, 2**20))
def test_random_logits_decode_without_invalid_events(spec, seed):
    counts = sample_and_decode(grammar_of(spec), seed)
    assert counts[0] > 0
    assert counts[1] > 0


@pytest.mark.parametrize("spec", SPECS[4:5], ids=spec_id)
def test_the_order_within_a_step_can_be_lifted(spec):
    assert sample_and_decode(grammar_of(spec, ordered=False), 7)[1] > 0


def test_every_event_type_is_reached():
    counts = sum(sample_and_decode(grammar_of(SPECS[-1]), seed) for seed in range(2))
    assert (counts > 0).all()


@settings(max_examples=3, deadline=None)
@given(st.integers(0, 2**20))
def test_segments_longer_than_the_largest_shift(seed):
    spec = EncodingSpec(granularity="flat", onsets_before_offsets=True)
    grammar = grammar_of(spec, max_shift_steps=8, max_step=29)
    sample_and_decode(grammar, seed)


@functools.cache
def reader_of(grammar):
    """The mask before each token of a row [L], bool [L, V], and the final state."""

    def read(tokens, active):
        def step(state, token):
            return grammar.update(state, token[None]), grammar.mask(state)[0]

        return jax.lax.scan(step, grammar.init(1, active), tokens)

    return jax.jit(read)


def read_tokens(grammar, tokens, active):
    padded = np.full(READ_LENGTH, EOS_ID)
    padded[: len(tokens)] = tokens
    state, masks = reader_of(grammar)(jnp.asarray(padded), active)
    masks = np.asarray(masks)
    refused = np.flatnonzero(~masks[np.arange(len(tokens)), tokens])
    assert not len(refused), f"token {refused[0]} of {tokens} is refused"
    return state, masks[len(tokens)]


@pytest.mark.parametrize("spec", specs(0, 3, 5, 7))
@settings(max_examples=12, deadline=None)
@given(notes=note_arrays(max_size=20, seconds=1.5))
def test_tokenized_notes_are_accepted(spec, notes):
    grammar = grammar_of(spec)
    active = jnp.zeros((1, grammar.num_programs, NUM_PITCHES), bool)
    for i in range(3):
        bounds = i * STEPS / 100, (i + 1) * STEPS / 100
        tokens = notes_to_tokens(notes, *bounds, grammar.codec, spec) + NUM_SPECIAL_IDS
        state, mask = read_tokens(grammar, tokens, active)
        assert mask[EOS_ID]
        active = grammar.active_voices(state)


def allowed_after(grammar, tokens, active=None):
    """Types of events allowed after model ids `tokens`, with "end" for EOS."""
    silent = np.zeros((1, grammar.num_programs, NUM_PITCHES), bool)
    _, mask = read_tokens(grammar, tokens, silent if active is None else active)
    (ids,) = np.nonzero(mask)
    codec = grammar.codec
    return {
        "end" if i == EOS_ID else codec.decode_event_index(i - NUM_SPECIAL_IDS).type for i in ids
    }


def test_what_may_follow_what():
    grammar = grammar_of(EncodingSpec(canonical=True))
    codec = grammar.codec
    first = {name: codec.event_type_range(name)[0] + NUM_SPECIAL_IDS for name in codec.event_types}
    program, velocity, pitch = first["program"], first["velocity"], first["pitch"]
    shift = NUM_SPECIAL_IDS + 5
    assert allowed_after(grammar, []) == {"end", "shift", "program", "velocity"}
    assert allowed_after(grammar, [shift]) == {"program", "velocity"}
    assert allowed_after(grammar, [shift, program]) == {"velocity"}
    assert allowed_after(grammar, [shift, program, velocity + 2]) == {"pitch"}
    note = [shift, program, velocity + 2, pitch + 60]
    every = {"end", "shift", "program", "velocity", "pitch", "drum"}
    assert allowed_after(grammar, note) == every
    assert allowed_after(grammar, [*note, EOS_ID]) == {"end"}
    # Onsets of this step have begun, so an offset must wait for the next.
    later = [*note, shift + 1, velocity]
    assert allowed_after(grammar, later) == {"pitch"}
    assert allowed_after(grammar, [*later, pitch + 60, EOS_ID]) == {"end"}


def test_ties_name_only_what_sounded():
    grammar = grammar_of(EncodingSpec(granularity="flat", ties=True, canonical=True))
    pitch = grammar.codec.event_type_range("pitch")[0] + NUM_SPECIAL_IDS
    active = np.zeros((1, 1, NUM_PITCHES), bool)
    active[0, 0, [60, 64]] = True
    assert allowed_after(grammar, []) == {"tie"}
    assert allowed_after(grammar, [], active) == {"tie", "pitch"}
    mask = np.asarray(grammar.mask(grammar.init(1, active)))[0]
    assert np.flatnonzero(mask[pitch : pitch + NUM_PITCHES]).tolist() == [60, 64]
    assert allowed_after(grammar, [pitch + 64], active) == {"tie"}


def test_a_small_vocabulary_is_refused():
    with pytest.raises(ValueError, match="vocab_size"):
        EventGrammar(make_codec(1), EncodingSpec(), 1000)
