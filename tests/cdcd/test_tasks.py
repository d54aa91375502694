import numpy as np
import pytest

from cdcd.tasks import check_part, sequence_task
from t5x.data.vocabularies import TokenVocabulary
from tests.cdcd.batches import batches, rows

SEQUENCES = {
    "train": lambda: [np.arange(3, 53), np.arange(60, 64)],
    "validation": lambda: [np.arange(3, 26), np.arange(60, 64), np.arange(70, 82)],
}


def task_of(**options):
    return sequence_task("numbers", SEQUENCES, TokenVocabulary(100), 10, **options)


def test_training_crops():
    batch = next(batches(task_of(), 10, batch_size=6))
    targets = batch["decoder_target_tokens"]
    assert targets.shape == (6, 10)
    np.testing.assert_array_equal(targets, rows(task_of(), 10))
    np.testing.assert_array_equal(targets[:-1], targets[:-1, :1] + np.arange(10))
    assert targets[-1].tolist() == [60, 61, 62, 63, *[0] * 6]  # a short sequence is padded
    np.testing.assert_array_equal(batch["decoder_loss_weights"], targets > 0)
    several = rows(task_of(), 10, num_epochs=2)
    assert len(several) == 2 * len(targets)
    assert not np.array_equal(several[: len(targets)], several[len(targets) :])


def test_evaluation_windows():
    task = task_of(purpose="evaluate")
    assert [row[0] for row in rows(task, 10, "validation")] == [3, 13, 70]


def test_augmentation_is_for_training_alone():
    def negate(example):
        return {"targets": 100 - example["targets"]}

    assert rows(task_of(augment=[negate]), 10)[0][1] < rows(task_of(augment=[negate]), 10)[0][0]
    same = task_of(augment=[negate], purpose="evaluate")
    np.testing.assert_array_equal(
        rows(same, 10, "validation"), rows(task_of(purpose="evaluate"), 10, "validation")
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"purpose": "predict"}, "purpose='predict': expected one of train, evaluate"),
        ({"multiple": 0}, "multiple=0: expected 1 or more"),
    ],
)
def test_options_out_of_range_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        task_of(**options)


def test_parts():
    assert check_part(None) == (0, 1)
    assert check_part((1, 3)) == (1, 3)
    for part in ((2, 2), (-1, 2), (0, 0)):
        with pytest.raises(ValueError, match=r"train_part=.*an index of 0 to count - 1"):
            check_part(part)


def test_a_split_without_windows_is_named():
    task = sequence_task("x", {"train": lambda: [np.ones(5)]}, TokenVocabulary(3), 9)
    assert len(task.sequence("train")) == 1
    task = sequence_task(
        "x", {"train": lambda: [np.ones(5)]}, TokenVocabulary(3), 9, purpose="evaluate"
    )
    with pytest.raises(ValueError, match=r"'train': 1 sequences of at most 5 tokens.*length=9"):
        task.sequence("train")


def test_another_length_is_refused():
    with pytest.raises(ValueError, match=r"targets'\]=12, but the task was made with length=10"):
        rows(task_of(), 12)
