"""Batches of tasks, as the trainer gets them."""

from t5x.data import LMFeatureConverter, get_dataset


def batches(task, length, split="train", batch_size=2, **options):
    """Without other options all of a split once, in order."""
    options = {"shuffle": False, "num_epochs": 1, "seed": 0, "drop_remainder": False} | options
    return get_dataset(
        task,
        {"targets": length},
        split=split,
        batch_size=batch_size,
        feature_converter=LMFeatureConverter,
        prefetch=0,
        **options,
    )


def rows(task, length, split="train", **options):
    """Targets int32 [L] of each example."""
    found = batches(task, length, split, **options)
    return [row for batch in found for row in batch["decoder_target_tokens"]]
