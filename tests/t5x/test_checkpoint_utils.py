"""Checkpoint folders under upstream's names."""

import numpy as np
import pytest

from t5x import checkpoint_utils, checkpoints
from t5x.checkpoint_utils import CheckpointTypes
from tests.vectors import golden_dir


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of which one checkpoint is pinned and one is kept."""
    folder = tmp_path_factory.mktemp("run")
    manager = checkpoints.CheckpointManager(folder, keep=1)
    for step in (5, 20, 100):
        state = {"target": {"w": np.full(2, step, np.float32)}, "state": {"step": np.int32(step)}}
        manager.save(step, state)
        manager.wait()
        if step == 5:
            checkpoint_utils.pin_checkpoint(folder / "checkpoint_5", "the paper's")
    manager.close()
    return folder


def test_steps_and_folders(run, tmp_path):
    assert checkpoints.all_steps(run) == [5, 100]
    assert checkpoints.latest_step(run) == 100
    assert checkpoints.latest_step(tmp_path) is None
    assert checkpoints.get_checkpoint_dir(run, 100) == str(run / "checkpoint_100")
    assert checkpoints.get_checkpoint_dir("r", 7, 5) == "r/checkpoint_00007"
    assert checkpoint_utils.get_checkpoint_step("r/checkpoint_00007") == 7
    assert checkpoint_utils.get_checkpoint_step("checkpoint_0") == 0
    assert checkpoint_utils.get_checkpoint_step("checkpoint_7.tmp") is None


def test_pins_protect_from_deletion(tmp_path):
    folder = tmp_path / "checkpoint_1"
    with pytest.raises(FileNotFoundError, match="no such checkpoint folder"):
        checkpoint_utils.pin_checkpoint(folder)
    folder.mkdir()
    checkpoint_utils.pin_checkpoint(folder)
    assert (folder / "PINNED").read_text() == "1"
    assert checkpoint_utils.always_keep_checkpoint_file(folder) == str(folder / "PINNED")
    checkpoint_utils.remove_checkpoint_dir(folder)
    assert folder.is_dir()
    checkpoint_utils.unpin_checkpoint(folder)
    checkpoint_utils.unpin_checkpoint(folder)
    assert not checkpoint_utils.is_pinned_checkpoint(folder)
    checkpoint_utils.remove_checkpoint_dir(folder)
    assert not folder.exists()


def test_formats_are_found_out(run, tmp_path, caplog):
    legacy = next((golden_dir("t5x") / "checkpoint_small").glob("checkpoint_*"))
    assert checkpoint_utils.detect_checkpoint_type(legacy) is CheckpointTypes.T5X
    found = checkpoint_utils.detect_checkpoint_type(run / "checkpoint_5", CheckpointTypes.T5X)
    assert found is CheckpointTypes.ORBAX
    assert "expected a checkpoint of CheckpointTypes.T5X" in caplog.text
    with pytest.raises(checkpoints.CheckpointError, match="no checkpoint here"):
        checkpoint_utils.detect_checkpoint_type(tmp_path)


def test_load_t5x_checkpoint_reads_any_format_and_transforms(run):
    assert checkpoints.load_t5x_checkpoint(run)["state"]["step"] == 100
    assert checkpoints.load_t5x_checkpoint(run, step=5)["target"]["w"].tolist() == [5, 5]
    with pytest.raises(FileNotFoundError, match="no checkpoint of step 20"):
        checkpoints.load_t5x_checkpoint(run, step=20)
    with pytest.raises(ValueError, match=r"lazy_parameters.*load_state"):
        checkpoints.load_t5x_checkpoint(run, lazy_parameters=True)

    def rename(state_dict, target_state_dict, *, is_resuming=False):
        assert target_state_dict is state_dict
        assert not is_resuming
        return {"target": {"v": state_dict["target"]["w"]}}

    double = lambda state: {"target": {"v": 2 * state["target"]["v"]}}  # noqa: E731
    loaded = checkpoints.load_t5x_checkpoint(run, 5, state_transformation_fns=[rename, double])
    assert loaded["target"]["v"].tolist() == [10, 10]
    stored = golden_dir("t5x") / "checkpoint_small"
    names = np.load(golden_dir("t5x") / "checkpoint_small.npz").files
    state = checkpoints.load_t5x_checkpoint(next(stored.glob("checkpoint_*")))
    assert "state/step" in names
    assert {name.split("/")[0] for name in names} == set(state)


def test_transformations_of_what_is_saved_may_be_upstreams():
    from t5x.checkpoints.transformations import transform_saved

    def upstreams(state_dict, parameter_infos):
        assert parameter_infos["w"].shape == (3,)
        assert parameter_infos["w"].dtype == np.float32
        return {"v": state_dict["w"]}, {"v": parameter_infos["w"]}

    state = {"w": np.arange(3, dtype=np.float32)}
    saved = transform_saved(state, [upstreams, lambda s: {"v": s["v"] + 1}])
    assert saved["v"].tolist() == [1, 2, 3]
