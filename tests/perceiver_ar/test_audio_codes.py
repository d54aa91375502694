"""Codes of audio as tokens."""

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from perceiver_ar.audio_codes import (
    OnlyCodes,
    allowed_ids,
    audio_codes_task,
    codes_to_tokens,
    codes_vocabulary,
    load_codes,
    tokens_to_codes,
)
from perceiver_ar.generation import generate
from perceiver_ar.sampler import Sampler
from t5x.data.examples import task_examples
from tests.perceiver_ar.batches import assert_seqio_agrees, batches, lengths, scored
from tests.perceiver_ar.reference import tiny

BOOKS, BOOK_SIZE = 3, 10
OPTIONS = {"codebooks": BOOKS, "codebook_size": BOOK_SIZE, "num_latents": 8}

tables = st.tuples(st.integers(0, 5), st.integers(1, 4)).flatmap(
    lambda shape: hnp.arrays(np.int16, shape, elements=st.integers(0, BOOK_SIZE - 1))
)


def recording(frames, seed=0):
    return np.random.default_rng(seed).integers(0, BOOK_SIZE, (frames, BOOKS))


@pytest.fixture
def folder(tmp_path):
    """Three recordings, in as many types."""
    np.save(tmp_path / "a.npy", recording(40, 0))
    np.save(tmp_path / "b.npy", recording(50, 1).astype(np.uint16))
    np.savez_compressed(tmp_path / "c.npz", codes=recording(30, 2).astype(np.int32))
    return tmp_path


@given(tables)
def test_tokens_and_back(codes):
    books = codes.shape[1]
    tokens = codes_to_tokens(codes, BOOK_SIZE)
    assert tokens.dtype == np.int32
    assert (tokens[0], tokens[-1], len(tokens)) == (2, 1, codes.size + 2)
    np.testing.assert_array_equal(tokens_to_codes(tokens, books, BOOK_SIZE), codes)
    np.testing.assert_array_equal(tokens_to_codes(tokens[1:-1], books, BOOK_SIZE), codes)
    padded = np.append(tokens[:-1], [0, 0])
    np.testing.assert_array_equal(tokens_to_codes(padded, books, BOOK_SIZE), codes)
    if len(codes):
        broken_off = tokens[:-2]
        np.testing.assert_array_equal(tokens_to_codes(broken_off, books, BOOK_SIZE), codes[:-1])


def test_the_ids_of_the_papers_codec():
    codes = np.zeros((2, 24), int)
    codes[1] = 1023
    ids = codes_to_tokens(codes)[1:-1].reshape(2, 24)
    assert ids[0].tolist() == list(range(3, 3 + 24 * 1024, 1024))
    assert ids[1, -1] == 24 * 1024 + 2
    assert codes_vocabulary(24, 1024).vocab_size == 24_579
    assert codes_vocabulary(44, 1024).vocab_size == 45_059


@given(tables)
def test_all_that_is_written_is_allowed(codes):
    tokens, books = codes_to_tokens(codes, BOOK_SIZE), codes.shape[1]
    at = np.arange(1, len(tokens))[:, None]
    allowed = allowed_ids(at, books, BOOK_SIZE)
    assert allowed.shape == (len(at), 3 + books * BOOK_SIZE)
    if codes.size:
        assert allowed[np.arange(len(at)), tokens[1:]].all()
    # Codes of one book; EOS, between frames.
    assert (allowed[:, 3:].sum(axis=1) == BOOK_SIZE).all()
    assert allowed[:, 1].tolist() == [i % books == 0 and i > 0 for i in range(len(at))]
    assert not allowed[:, [0, 2]].any()
    np.testing.assert_array_equal(allowed_ids(1, books, BOOK_SIZE), allowed[0])


@pytest.mark.slow
def test_what_is_sampled_can_be_decoded():
    config, _, params = tiny(num_classes=3 + BOOKS * BOOK_SIZE)
    prompts = [codes_to_tokens(recording(2), BOOK_SIZE)[:n] for n in (1, 5, 7)]
    tokens, _ = generate(
        Sampler(config, 24),
        params,
        prompts,
        rng=jax.random.PRNGKey(0),
        temperature=3.0,
        num_decodes=4,
        logit_callback_fn=OnlyCodes(BOOKS, BOOK_SIZE),
    )
    ended = 0
    for row in tokens.reshape(-1, tokens.shape[-1]):
        codes = tokens_to_codes(row, BOOKS, BOOK_SIZE)
        written = int(np.sum(row > 2))
        ended += 1 in row
        assert codes.size == written - written % BOOKS
        assert 1 not in row or written % BOOKS == 0
    assert ended > 2


@pytest.mark.parametrize("codebooks_first", [False, True])
@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_crops_are_passages(name, codebooks_first, tmp_path):
    codes = recording(40)
    save = np.save if name == "a.npy" else np.savez
    save(tmp_path / name, codes.T if codebooks_first else codes)
    tokens = codes_to_tokens(codes, BOOK_SIZE).tolist()
    task = audio_codes_task(
        f"{tmp_path}/*", **OPTIONS, validation_files=[name], codebooks_first=codebooks_first
    )
    for batch in batches(task, 17, "validation", num_epochs=20, batch_size=1):
        (inputs,), (targets,) = batch["decoder_input_tokens"], batch["decoder_target_tokens"]
        count = int(np.sum(inputs > 0))
        passage = [*inputs[:count].tolist(), int(targets[count - 1])]
        assert any(tokens[i : i + count + 1] == passage for i in range(len(tokens) - count))
        assert batch["decoder_positions"][0, :count, 0].tolist() == list(range(1, count + 1))


def test_every_code_is_scored_once(folder):
    task = audio_codes_task(folder, **OPTIONS, validation_files=["b.npy"], purpose="evaluate")
    found = scored(task, 16)
    assert found.tolist() == codes_to_tokens(recording(50, 1), BOOK_SIZE)[1:].tolist()
    assert len(task.sequence("train")) == 2


def test_prompts(folder):
    task = audio_codes_task(
        folder, **OPTIONS, validation_files=["b.npy"], purpose="predict", prompt_length=7
    )
    (example,) = task_examples(task, "validation", lengths(16))
    assert example["prompt_lengths"] == 7
    assert example["inputs"].tolist() == codes_to_tokens(recording(50, 1), BOOK_SIZE)[:16].tolist()


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (recording(4).astype(np.float32), r"float32 \(4, 3\); expected integers"),
        (recording(4)[None], r"int64 \(1, 4, 3\); expected integers"),
        (recording(4)[:, :2], "2 codebooks, expected 3"),
        (recording(4).T, "4 codebooks, expected 3, of .*codebooks_first"),
        (np.array([[0, 0, 0], [0, 10, 0]]), "code 10 of codebook 1: expected 0 to 9"),
        (np.array([[0, 0, -1]]), "code -1 of codebook 2"),
        (np.array([["a", 1]], object), "no codes that can be read"),
    ],
)
def test_wrong_codes_are_named(codes, message, tmp_path):
    np.save(tmp_path / "wrong.npy", codes, allow_pickle=True)
    task = audio_codes_task(tmp_path, **OPTIONS, validation_files=["wrong.npy"])
    with pytest.raises(ValueError, match=rf"wrong\.npy: {message}"):
        list(task_examples(task, "validation", lengths(16)))


@pytest.mark.parametrize("name", ["a.npy", "c.npz"])
@pytest.mark.parametrize("kept", [0, 5, 100, 250])
def test_a_damaged_file_is_named(name, kept, folder):
    (folder / name).write_bytes((folder / name).read_bytes()[:kept])
    with pytest.raises(ValueError, match=rf"{name}: no codes that can be read.*numpy\.save"):
        load_codes(folder / name, BOOKS)


def test_several_arrays_are_ambiguous(tmp_path):
    np.savez(tmp_path / "two.npz", a=recording(3), b=recording(3))
    with pytest.raises(ValueError, match=r"two\.npz: .*2 arrays, expected one"):
        load_codes(tmp_path / "two.npz", BOOKS)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([2, 3, 3], "token 3 is no code of codebook 1 of 3"),
        ([2, 3, 13, 33], "token 33 is no code of codebook 2"),
        ([2, 3, 2], "token 2"),
    ],
)
def test_other_tokens_are_named(tokens, message):
    with pytest.raises(ValueError, match=message):
        tokens_to_codes(tokens, BOOKS, BOOK_SIZE)


@pytest.mark.parametrize("purpose", ["train", "evaluate", "predict"])
def test_seqio_reads_the_same(folder, purpose):
    pytest.importorskip("seqio")
    task = audio_codes_task(
        folder, **OPTIONS, validation_files=["b.npy"], purpose=purpose, name=f"codes_{purpose}"
    )
    assert_seqio_agrees(task, 16)
