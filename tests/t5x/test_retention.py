"""Which checkpoints stay."""

import jax.numpy as jnp
import pytest

from t5x.checkpoints import (
    Checkpointer,
    CheckpointError,
    CheckpointManager,
    SaveBestCheckpointer,
)
from t5x.loggers import MetricWriter
from t5x.utils import SaveCheckpointConfig

STEPS = [10, 20, 30, 40, 50]


def log(folder, name, values):
    writer = MetricWriter(folder / name)
    for step, value in values.items():
        writer.write(step, {"score": value})
    writer.close()


def kept(policy, folder):
    return [s for s in STEPS if s not in policy.superfluous(STEPS, folder)]


def test_the_newest_stay_and_every_period(tmp_path):
    assert kept(Checkpointer(), tmp_path) == STEPS
    assert kept(Checkpointer(keep=2), tmp_path) == [40, 50]
    assert kept(Checkpointer(keep=9), tmp_path) == STEPS
    assert kept(Checkpointer(keep=1, force_keep_period=20), tmp_path) == [20, 40, 50]


@pytest.mark.parametrize(
    ("mode", "options", "expected"),
    [
        ("max", {}, [10, 40, 50]),
        ("min", {}, [20, 30, 50]),
        ("max", {"force_keep_period": 30}, [10, 30, 40, 50]),
        ("max", {"keep": None}, STEPS),
    ],
)
def test_the_best_stay_and_the_newest(tmp_path, mode, options, expected):
    log(tmp_path, "inference_eval/task", {10: 0.9, 20: 0.1, 30: 0.2, 40: 0.8, 50: 0.5})
    policy = SaveBestCheckpointer(
        **{"keep": 2, "metric_mode": mode, **options},
        metric_name_to_monitor="inference_eval/task/score",
    )
    assert kept(policy, tmp_path) == expected


def test_unmeasured_checkpoints_stay_unless_told_otherwise(tmp_path):
    log(tmp_path, "train", {10: 0.9, 20: float("nan"), 40: 0.8})
    options = {"keep": 1, "metric_name_to_monitor": "train/score"}
    assert kept(SaveBestCheckpointer(**options), tmp_path) == [10, 20, 30, 50]
    strict = SaveBestCheckpointer(**options, keep_checkpoints_without_metrics=False)
    assert kept(strict, tmp_path) == [10, 50]
    assert kept(SaveBestCheckpointer(**options), tmp_path / "nothing logged yet") == STEPS


def test_a_misspelt_metric_is_named(tmp_path):
    log(tmp_path, "train", {10: 0.9})
    policy = SaveBestCheckpointer(keep=1, metric_name_to_monitor="train/scor")
    with pytest.raises(CheckpointError, match=r"no metric 'scor', only score"):
        policy.superfluous(STEPS, tmp_path)
    with pytest.raises(ValueError, match="use 'min' or 'max'"):
        SaveBestCheckpointer(metric_mode="best")
    with pytest.raises(ValueError, match="None to keep all"):
        Checkpointer(keep=0)


def test_the_manager_deletes_only_once_the_next_is_whole(tmp_path):
    log(tmp_path, "train", {1: 3.0, 2: 1.0, 3: 2.0, 4: 0.0})
    policy = SaveBestCheckpointer(keep=1, metric_name_to_monitor="train/score")
    manager = CheckpointManager(tmp_path, policy)
    state = {"target": {"w": jnp.ones(2)}, "state": {"step": jnp.zeros((), jnp.int32)}}
    for step in (1, 2, 3, 4):
        assert manager.save(step, state)
        assert {1, step} <= set(manager.all_steps())
    manager.wait()
    assert manager.all_steps() == [1, 4]
    manager.close()


def test_gin_gives_the_policy_its_own_options():
    config = SaveCheckpointConfig(keep=3, checkpointer_cls=SaveBestCheckpointer)
    assert config.policy == SaveBestCheckpointer(keep=3)
    assert SaveCheckpointConfig().policy == Checkpointer()
