"""The experiment on Shakespeare's plays."""

import numpy as np
import pytest

from t5x import train
from t5x.data import EncDecFeatureConverter, TaskRegistry, get_dataset
from t5x.data.examples import task_examples
from t5x.examples.shakespeare import fill_in, plays, punctuation, tasks

LENGTHS = {"inputs": 128, "targets": 56}


def test_whole_plays_are_held_out():
    train_plays, held_out = (plays.plays_of(split) for split in plays.SPLITS)
    assert len(train_plays) == 39
    assert set(held_out) == {"kingjohn", "macbeth", "twelfthnight"}
    assert sum(map(len, plays.load_plays().values())) > 5_000_000
    assert "To be, or not to be: that is the question:" in train_plays["hamlet"]
    with pytest.raises(ValueError, match="no split 'dev'"):
        plays.plays_of("dev")


def test_passages_hold_the_text_once():
    parts = [p["targets"] for p in plays.passages("validation") if p["play"] == "macbeth"]
    assert all(len(part) >= 2000 for part in parts[:-1])
    text = "".join("".join(parts).split())
    assert text == "".join(plays.load_plays()["macbeth"].split())


def test_speeches_have_neither_speakers_nor_directions():
    speeches = plays.speeches(plays.load_plays()["macbeth"])
    assert speeches[0] == ["When shall we three meet again", "In thunder, lightning, or in rain?"]
    assert any(speech[0] == "Glamis, and thane of Cawdor!" for speech in speeches)  # an aside
    assert not any("[" in line or "\t" in line for speech in speeches for line in speech)
    assert plays.speeches(plays.load_plays()["sonnets"]) == []


def test_words_and_marks():
    words, marks = punctuation.words_and_marks("To be, or not to be: 'tis the--O, heart-ache!")
    assert words == ["to", "be", "or", "not", "to", "be", "'tis", "the", "o", "heart-ache"]
    assert marks == " ,   : -,!"


def test_pieces_hold_the_speeches():
    rows = punctuation.pieces("validation")
    assert all(len(row["words"]) <= punctuation.PIECE_BYTES for row in rows)
    assert all(len(row["words"].split(" ")) == len(row["marks"]) + 1 for row in rows)
    (row,) = [row for row in rows if row["words"].startswith("throw physic to the dogs")]
    assert row["words"].split(" ")[:8] == [
        "throw",
        "physic",
        "to",
        "the",
        "dogs",
        "i'll",
        "none",
        "of",
    ]
    assert row["marks"][:8] == "    ;   "


def test_gaps_are_numbered_as_in_pretraining():
    features = tasks.FEATURES
    example = punctuation.with_sentinels({"words": "a bc d", "marks": ", "}, features)
    vocabulary = tasks.VOCABULARY
    a, b, c, d = vocabulary.encode("abcd")
    comma, space = vocabulary.encode(", ")
    assert example["inputs"].tolist() == [a, 383, b, c, 382, d]
    assert example["targets"].tolist() == [383, comma, 382, space]
    assert vocabulary.decode(example["targets"].tolist()) == ", "


def test_scores_of_marks():
    scores = punctuation.mark_scores([" ,. ", ",", "?"], [" ,;!", "", "?!!"])
    assert scores == {
        "precision": pytest.approx(50.0),
        "recall": pytest.approx(50.0),
        "f1": pytest.approx(50.0),
        "place_f1": pytest.approx(75.0),
    }
    assert punctuation.mark_scores(["  "], ["  "])["f1"] == 0.0


def test_a_table_of_words_is_beaten_by_one_of_pairs():
    one, two = (punctuation.commonest_marks("validation", neighbours=n)["f1"] for n in (1, 2))
    assert 10 < one < 20 < two < 30


def test_spans_join_to_the_text():
    vocabulary = tasks.VOCABULARY
    first = vocabulary.vocab_size - vocabulary.extra_ids
    examples = task_examples(TaskRegistry.get("shakespeare_spans"), "validation", LENGTHS, seed=1)
    text = "".join(play for play in plays.plays_of("validation").values())
    for _, example in zip(range(5), examples):
        inputs, targets = example["inputs"].tolist(), example["targets"].tolist()
        assert inputs[-1] == targets[-1] == vocabulary.eos_id
        fillings = iter(fill_in.decode_fillings(targets, vocabulary))
        pieces = [next(fillings) if t >= first else vocabulary.decode([t]) for t in inputs[:-1]]
        assert "".join(pieces) in text


def test_batches_have_the_lengths_of_the_run():
    batches = get_dataset(
        "shakespeare_spans",
        LENGTHS,
        "train",
        32,
        seed=0,
        feature_converter=EncDecFeatureConverter,
        pack=True,
    )
    batch = next(batches)
    batches.close()
    assert batch["encoder_input_tokens"].shape == (32, 128)
    assert batch["decoder_target_tokens"].shape == (32, 56)
    assert (batch["encoder_input_tokens"] != 0).mean() > 0.65
    assert (batch["decoder_loss_weights"] != 0).mean() > 0.7
    assert set(batch["encoder_segment_ids"].max(axis=1)) >= {1, 2, 3}  # windows in a row


def test_prompts_are_encoded_as_in_training():
    ids = fill_in.encode_prompt("a___b___", tasks.VOCABULARY)
    assert ids.tolist() == [100, 383, 101, 382, 1]
    decoded = [383, 100, 101, 382, 102, 1, 103]
    assert fill_in.decode_fillings(decoded, tasks.VOCABULARY) == ["ab", "c"]


def test_gaps_are_filled(monkeypatch, capsys):
    class Model:
        input_vocabulary = tasks.VOCABULARY

        def predict_batch_with_aux(self, params, batch, rng, decoder_params):
            assert batch["encoder_input_tokens"][0, 1] == 383
            return np.array([[383, 3 + ord("x"), 1]]), {}

    assert fill_in.main(["nowhere", "a___"]) == 2
    assert "fill_in:" in capsys.readouterr().err
    monkeypatch.setattr(fill_in, "load_params", lambda path: {})
    arguments = {"checkpoint": "", "temperature": 0.0, "seed": 0, "model": Model()}
    assert fill_in.fill_in(prompts=["a___b"], **arguments) == ["a[x]b"]
    with pytest.raises(ValueError, match="a prompt has a gap ___"):
        fill_in.fill_in(prompts=["no gap"], **arguments)


def test_dry_run(tmp_path, capsys):
    file = "t5x/examples/shakespeare/pretrain.gin"
    arguments = [f"--gin_file={file}", f"--gin.MODEL_DIR={tmp_path}", "--dry_run"]
    assert train.main(arguments) == 0
    assert "886,528 numbers" in capsys.readouterr().out
