"""Everyday mistakes under `t5x.train`: the message alone; others with their traceback."""

import os
import signal
from typing import Any

import pytest

from t5x import train
from t5x.data.pipeline import BatchIterator, DataWorkerError
from t5x.mistakes import explanation_of
from tests.running import run_main

SETTINGS: Any = None
DATASET = "--gin.train/utils.DatasetConfig"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mistakes") / "run"
    assert mistake(folder)[0] == 0
    return folder


def mistake(folder, *flags):
    always = ["--gin_file=tests/t5x/toy.gin", f"--gin.MODEL_DIR={folder}", "--gin.TRAIN_STEPS=2"]
    return run_main(train.main, *always, "--gin.EVAL_PERIOD=0", *flags)


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--gin.MIXTURE_OR_TASK_NAME=toy_countin", "did you mean 'toy_counting'?"),
        ("--gin.MIXTURE_OR_TASK_MODULE=tests.t5x.toyy", "there is no module 'tests.t5x.toyy'"),
        (f"{DATASET}.split=trian", "no split 'trian'; it has ['train', 'validation']"),
        ("--gin.TASK_FEATURE_LENGTHS={'inputs': 8}", "expected exactly ['targets']"),
        ("--gin.TASK_FEATURE_LENGTHS={'targets': 0}", "of targets is 0, expected 1 or more"),
        ("--gin.utils.SaveCheckpointConfig.period=0", "period must be positive, got 0"),
        ("--gin.BATCH_SIZE=0", "batch_size is 0, expected 1 or more"),
        ("--gin.BATCH_SIZE=-1", "batch_size is -1, expected 1 or more"),
        ("--gin.BATCH_SIZE=1000000000000", "batch_size (BATCH_SIZE): 1000000000000 rows of "),
        (f"{DATASET}.num_workers=-1", "num_workers is -1, expected 0 or more"),
        (f"{DATASET}.num_read_threads=-1", "num_read_threads is -1, expected 0 or more"),
        ("--gin.TRAIN_STEPS=-1", "total_steps is -1, expected 0 or more"),
        ("--gin.EVAL_PERIOD=-1", "eval_period is -1, expected 0 or more"),
        ("--gin.EVAL_STEPS=-1", "eval_steps is -1, expected 0 or more"),
        ("--gin.RANDOM_SEED=-1", "seed must not be negative, got -1"),
        ("--gin.MODEL_DIR=gs://bucket/run", "gcloud storage cp -r gs://bucket/run FOLDER"),
        ("--gin.utils.RestoreCheckpointConfig.path=gs://b/run", "gcloud storage cp -r gs://b/run"),
        (
            "--gin.utils.RestoreCheckpointConfig.path=/absent",
            "/absent: no checkpoint_<step>",
        ),
    ],
)
def test_the_message_alone(flag, message, tmp_path):
    status, printed = mistake(tmp_path / "run", flag)
    (line,) = printed.splitlines()
    assert status == 2
    assert line.startswith("t5x.train: ")
    assert message in line


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        (f"{DATASET}.seed=5", "seed: saved 3, now 5"),
        (f"{DATASET}.shuffle=False", "shuffle: saved True, now False"),
    ],
)
def test_a_run_that_resumes_with_other_data_is_told(flag, message, trained):
    status, printed = mistake(trained, flag, "--gin.TRAIN_STEPS=3")
    (line,) = printed.splitlines()
    assert status == 2
    assert message in line


def test_without_a_model_the_parameter_is_named(tmp_path):
    flags = ["--gin.TRAIN_STEPS=1", "--gin.train.train.total_steps=%TRAIN_STEPS"]
    (tmp_path / "run.gin").write_text("TRAIN_STEPS = 2")
    status, printed = run_main(train.main, f"--gin_file={tmp_path}/run.gin", *flags)
    assert status == 2
    assert "'model'" in printed
    assert "Traceback" not in printed


def test_other_errors_keep_their_traceback():
    def caught(function):
        try:
            function()
        except Exception as error:
            return explanation_of(error)

    batches: Any = BatchIterator(3, None, SETTINGS)

    def own():
        raise ValueError("of a user's module")

    assert caught(own) is None
    assert caught(lambda: batches.set_state(None)) is None  # AttributeError
    assert "data state has" in (caught(lambda: batches.set_state({})) or "")
    assert caught(lambda: os.stat("/absent/file")) == "/absent/file: No such file or directory"
    note = ValueError("x")
    note.add_note("while making example 3")
    assert explanation_of(note) is None


def test_a_killed_worker_says_what_to_do():
    def elements():
        yield from ()
        raise RuntimeError("Worker process was terminated unexpectedly with exit code -9. Search.")

    class Elements:
        def open(self, start):
            return elements()

    class Batcher:
        def batches(self, stream, position):
            yield next(stream)

    with pytest.raises(DataWorkerError, match=r"run the same again.*exit code -9"):
        next(BatchIterator(Elements(), Batcher(), SETTINGS))


@pytest.mark.slow
def test_grain_says_so_when_a_worker_is_killed():
    from t5x import data

    def die(x):
        os.kill(os.getpid(), signal.SIGKILL)

    task = data.Task("die", {"train": [{"i": 1}]}, [die], {})
    batches = data.get_dataset(task, {}, "train", 1, shuffle=False, num_workers=1, prefetch=0)
    with pytest.raises(DataWorkerError):
        next(batches)
