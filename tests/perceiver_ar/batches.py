"""Batches of tasks, by grain and by seqio."""

import numpy as np

from perceiver_ar.feature_converter import PerceiverARFeatureConverter
from t5x.data import get_dataset, to_seqio
from t5x.data.examples import task_examples


def lengths(length):
    return {"inputs": length, "targets": length}


def batches(task, length, split="train", batch_size=2, **options):
    """As the trainer gets them; without other options all of a split once, in order."""
    options = {"shuffle": False, "num_epochs": 1, "seed": 0, "drop_remainder": False} | options
    return get_dataset(
        task,
        lengths(length),
        split=split,
        batch_size=batch_size,
        feature_converter=PerceiverARFeatureConverter,
        prefetch=0,
        **options,
    )


def scored(task, length, split="validation"):
    """All targets that count in an evaluation, in order."""
    found = batches(task, length, split, batch_size=1)
    return np.concatenate(
        [b["decoder_target_tokens"][b["decoder_loss_weights"] == 1] for b in found]
    )


def assert_seqio_agrees(task, length, split="train"):
    """The same examples through seqio, which must be there."""
    theirs = to_seqio(task).get_dataset(
        sequence_length=lengths(length), split=split, shuffle=False, num_epochs=1
    )
    ours = list(task_examples(task, split, lengths(length)))
    theirs = list(theirs.as_numpy_iterator())
    assert len(ours) == len(theirs) > 0
    for mine, other in zip(ours, theirs):
        assert set(task.output_features) <= set(other)
        for name in task.output_features:
            np.testing.assert_array_equal(mine[name], other[name])
