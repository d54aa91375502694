"""The experiment on Shakespeare's plays."""

import numpy as np
import pytest

from t5x import train
from t5x.data import EncDecFeatureConverter, TaskRegistry, get_dataset
from t5x.data.pipeline import task_examples
from t5x.examples.shakespeare import fill_in, plays, tasks

LENGTHS = {"inputs": 128, "targets": 32}


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


def test_verse_and_prose():
    rows = plays.verse_or_prose("validation")
    kinds = [row["targets"] for row in rows]
    assert (kinds.count("verse"), kinds.count("prose")) == (588, 170)
    assert not any("\n" in row["inputs"] for row in rows)
    (tomorrow,) = [r for r in rows if "sound and fury" in r["inputs"]]
    assert tomorrow["targets"] == "verse"
    (porter,) = [r for r in rows if "Here's a knocking indeed" in r["inputs"]]
    assert porter["targets"] == "prose"


def test_scores():
    targets = ["verse"] * 3 + ["prose"]
    assert tasks.verse_scores(targets, ["verse", "verse", "", "prose"]) == {
        "accuracy": 75.0,
        "balanced_accuracy": pytest.approx(100 * (2 / 3 + 1) / 2),
        "majority": 75.0,
    }
    assert tasks.verse_scores(targets, ["verse"] * 4)["balanced_accuracy"] == 50.0


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
        "shakespeare_spans", LENGTHS, "train", 4, seed=0, feature_converter=EncDecFeatureConverter
    )
    batch = next(batches)
    batches.close()
    assert (batch["encoder_input_tokens"] != 0).mean() > 0.99
    assert (batch["decoder_loss_weights"] != 0).mean() > 0.7


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
    assert "1,050,624 numbers" in capsys.readouterr().out
