"""Text as tokens, on two plays of Shakespeare."""

import lzma
import tracemalloc

import numpy as np
import pytest

from perceiver_ar.text import text_task
from t5x.data.examples import task_examples
from t5x.data.vocabularies import text_vocabulary
from t5x.examples.shakespeare.plays import load_plays
from tests.perceiver_ar.batches import assert_seqio_agrees, batches, lengths, scored
from tests.piece_model import write_piece_model

SIZE = 3000  # bytes taken of a play


@pytest.fixture(scope="module")
def plays(tmp_path_factory):
    """The beginnings of four plays, one of them packed."""
    folder = tmp_path_factory.mktemp("plays")
    for name in ("hamlet", "macbeth", "othello"):
        (folder / f"{name}.txt").write_text(load_plays()[name][:SIZE])
    (folder / "tempest.txt.xz").write_bytes(lzma.compress(load_plays()["tempest"][:SIZE].encode()))
    return folder


@pytest.fixture(scope="module")
def pieces(tmp_path_factory):
    """A SentencePiece model of one of them."""
    sentences = load_plays()["hamlet"][:20_000].splitlines()
    return write_piece_model(tmp_path_factory.mktemp("pieces") / "plays.model", sentences, 200)


def text_of(tokens):
    return (tokens - 3).astype(np.uint8).tobytes()


def task_of(plays, **options):
    options = {"num_latents": 16, "validation_files": ["macbeth.txt"]} | options
    return text_task(plays, **options)


def test_crops_are_passages_of_the_plays(plays):
    texts = [b"\2" + load_plays()[n][:SIZE].encode() + b"\1" for n in ("hamlet", "othello")]
    texts.append(b"\2" + load_plays()["tempest"][:SIZE].encode() + b"\1")
    found = batches(task_of(plays), 64, shuffle=True, num_epochs=20)
    ends = 0
    for batch in found:
        for tokens, targets, positions in zip(
            batch["decoder_input_tokens"],
            batch["decoder_target_tokens"],
            batch["decoder_positions"][..., 0],
        ):
            count = int(np.sum(tokens > 0))
            # 2 and 1 are SOS and EOS, others bytes + 3.
            text = bytes(
                int(t) if t < 3 else int(t) - 3 for t in [*tokens[:count], targets[count - 1]]
            )
            assert any(text in whole for whole in texts)
            assert positions.tolist() == [*range(1, count + 1), *[0] * (64 - count)]
            ends += count < 64
    assert ends < 10


def test_every_byte_of_a_play_is_scored_once(plays):
    task = task_of(plays, purpose="evaluate")
    assert task.splits == ("train", "validation")
    wanted = load_plays()["macbeth"][:SIZE].encode()
    tokens = scored(task, 64)
    assert text_of(tokens[:-1]) == wanted
    assert tokens[-1] == 1


def test_pieces_of_a_play_are_scored_once(plays, pieces):
    task = task_of(plays, vocabulary=pieces, purpose="evaluate")
    tokens = scored(task, 64)
    vocabulary = text_vocabulary(pieces)
    text = load_plays()["macbeth"][:SIZE]
    assert tokens.tolist() == [*vocabulary.encode(text), 1]
    assert len(tokens) < 0.7 * len(text)


def test_a_crop_of_a_long_file_does_not_read_it(tmp_path):
    with (tmp_path / "long.txt").open("wb") as file:
        file.truncate(1 << 26)  # zeros that take no room on the disk
    task = text_task(f"{tmp_path}/*.txt", validation_files=["long.txt"], num_latents=16)
    tracemalloc.start()
    (example,) = task_examples(task, "validation", lengths(64))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 1 << 20
    assert example["inputs"].tolist() == [3] * 64
    assert example["positions"][:, 0].tolist() == list(range(1, 65))


def test_positions_may_count_from_the_beginning_of_a_file(plays):
    task = task_of(plays, purpose="evaluate", restart_positions=False, max_position=SIZE + 1)
    last = list(task_examples(task, "validation", lengths(64)))[-1]
    assert last["positions"][:, 0].tolist() == list(range(SIZE + 2 - 64, SIZE + 2))
    task = task_of(plays, purpose="evaluate", restart_positions=False, max_position=SIZE)
    with pytest.raises(ValueError, match="beyond 3000"):
        list(task_examples(task, "validation", lengths(64)))


def test_prompts(plays):
    task = task_of(plays, purpose="predict", prompt_length=10)
    (example,) = task_examples(task, "validation", lengths(64))
    assert example["prompt_lengths"] == 10
    assert text_of(example["inputs"][1:]) == load_plays()["macbeth"][:63].encode()


def test_an_empty_file_is_sos_and_eos(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"")
    task = text_task(tmp_path, validation_files=["a.txt"], num_latents=4)
    (example,) = task_examples(task, "validation", lengths(8))
    assert (example["inputs"].tolist(), example["targets"].tolist()) == ([2], [1])


def test_what_is_no_text_is_named(tmp_path, pieces):
    (tmp_path / "latin.txt").write_bytes("Café".encode("latin-1"))
    options = {"validation_files": ["latin.txt"], "num_latents": 4, "purpose": "evaluate"}
    task = text_task(tmp_path, vocabulary=pieces, **options)
    with pytest.raises(ValueError, match=r"latin\.txt: not UTF-8"):
        list(task_examples(task, "validation", lengths(8)))
    example = list(task_examples(text_task(tmp_path, **options), "validation", lengths(8)))[-1]
    assert example["targets"].tolist() == [70, 100, 105, 236, 1]
    (tmp_path / "latin.txt.xz").write_bytes(b"no archive")
    task = text_task(tmp_path, validation_files=["latin.txt.xz"], num_latents=4)
    with pytest.raises(ValueError, match=r"latin\.txt\.xz: cannot be unpacked"):
        list(task_examples(task, "validation", lengths(8)))


@pytest.mark.parametrize("purpose", ["train", "evaluate", "predict"])
def test_seqio_reads_the_same(plays, purpose):
    pytest.importorskip("seqio")
    task = task_of(plays, purpose=purpose, name=f"plays_{purpose}")
    assert_seqio_agrees(task, 64)


def test_seqio_reads_the_same_pieces(plays, pieces):
    pytest.importorskip("seqio")
    assert_seqio_agrees(task_of(plays, vocabulary=pieces, name="plays_pieces"), 64)
