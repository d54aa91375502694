import numpy as np
import pytest

from perceiver_ar import tasks
from perceiver_ar.feature_converter import PerceiverARFeatureConverter
from t5x.data import get_dataset, get_mixture_or_task
from t5x.data.evaluation import Evaluator


@pytest.mark.parametrize(("length", "latents"), list(tasks.COPY_LENGTHS.items())[:4])
def test_registered_copy_tasks(length, latents):
    batches = get_dataset(
        f"copy_{length}",
        {"inputs": length, "targets": length},
        batch_size=2,
        seed=0,
        feature_converter=PerceiverARFeatureConverter,
        prefetch=0,
    )
    batch = next(batches)
    assert batch["decoder_input_tokens"].shape == (2, length)
    assert (batch["decoder_latent_counts"] == latents).all()
    assert get_mixture_or_task(f"copy_{length}_evaluate").splits == ("train", "validation", "test")


def test_the_second_half_is_the_first_backwards():
    example = tasks.copy_example("train", 3, 32, 256)
    tokens = example["tokens"]
    assert len(tokens) == 32
    assert (tokens[0], tokens[-1], example["prefix_lengths"]) == (2, 1, 16)
    np.testing.assert_array_equal(tokens[1:16], tokens[16:31][::-1])
    assert tokens[1:16].min() >= 3
    assert tasks.copy_example("train", 4, 32, 256)["tokens"].tolist() != tokens.tolist()
    assert tasks.copy_example("test", 3, 32, 256)["tokens"].tolist() != tokens.tolist()


@pytest.mark.parametrize("length", [8, 16])
def test_mirror_images_of_all_lengths_have_one_middle(length):
    task = tasks.copy_task(length, length, train_on_given=False, cropping="none", middle=8)
    lengths = {"inputs": length, "targets": length}
    converter = PerceiverARFeatureConverter
    batch = next(get_dataset(task, lengths, batch_size=1, seed=0, feature_converter=converter))
    tokens, targets, weights, positions = (
        batch[f"decoder_{name}"][0]
        for name in ("input_tokens", "target_tokens", "loss_weights", "positions")
    )
    token_at = dict(zip(positions[:, 0].tolist(), tokens.tolist()))
    predicted = (weights == 1) & (targets > 1)
    assert predicted.sum() == length // 2 - 1
    for position, target in zip(positions[predicted, 0].tolist(), targets[predicted].tolist()):
        assert token_at[16 - position] == target


def test_positions_that_the_network_does_not_know_are_named():
    task = tasks.copy_task(16, 8, middle=12, max_position=18)
    lengths = {"inputs": 16, "targets": 16}
    batches = get_dataset(
        task, lengths, batch_size=1, seed=0, feature_converter=PerceiverARFeatureConverter
    )
    with pytest.raises(ValueError, match="positions up to 19 are beyond 18"):
        next(batches)


def test_evaluation_scores_the_mirror_image_once():
    task = tasks.copy_task(16, 4, purpose="evaluate", num_examples=1000, stride=3)
    batches = get_dataset(
        task,
        {"inputs": 16, "targets": 16},
        split="validation",
        batch_size=1,
        shuffle=False,
        num_epochs=1,
        seed=0,
        feature_converter=PerceiverARFeatureConverter,
    )
    scored = [b["decoder_target_tokens"][b["decoder_loss_weights"] == 1] for b in batches]
    tokens = tasks.copy_example("validation", 0, 16, 256)["tokens"]
    np.testing.assert_array_equal(np.concatenate(scored), tokens[8:])


def test_predictions_are_compared_with_the_mirror_image():
    task = tasks.copy_task(16, 4, purpose="predict", num_examples=1000)
    lengths = {"inputs": 16, "targets": 16}
    evaluator = Evaluator(task, PerceiverARFeatureConverter(), sequence_length=lengths)
    tokens = tasks.copy_example("validation", 0, 16, 256)["tokens"]

    def predict(batch, *_):
        lengths = batch["decoder_prompt_lengths"]
        assert lengths[0] == 8
        return np.stack([np.pad(tokens[8:], (0, 8)) for _ in lengths])

    batch, _ = next(iter(evaluator.batches(task)))
    wanted = tasks._mirror_image(tokens[1:], {"prompt_lengths": 8}, True)
    assert wanted == tokens[8:].tolist()
    found = tasks._mirror_image(predict(batch)[0], {"prompt_lengths": 8}, False)
    assert tasks.copy_accuracy([wanted], [found]) == {
        "token_accuracy": 1.0,
        "sequence_accuracy": 1.0,
    }
    scores = tasks.copy_accuracy([wanted, wanted], [found, [found[0]]])
    assert scores == {"token_accuracy": 9 / 16, "sequence_accuracy": 0.5}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length": 3}, "length=3"),
        ({"num_symbols": 300}, "num_symbols=300"),
        ({"purpose": "listen"}, "purpose='listen'"),
        ({"middle": 7}, "middle=7.*length=16"),
    ],
)
def test_impossible_tasks_are_named(options, message):
    with pytest.raises((ValueError, KeyError), match=message):
        tasks.copy_task(**{"length": 16, "num_latents": 4, **options})
