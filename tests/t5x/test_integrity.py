"""Damaged and half-copied checkpoints, read by the manager and by `load_state`."""

import random
import shutil

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t5x import checkpoints
from t5x.checkpoints import CheckpointError, CheckpointManager, integrity
from t5x.checkpoints.integrity import FILES_NAME, find_damage, whole_before, write_file_list

STATE = {
    "target": {"w": jnp.asarray(np.random.default_rng(0).normal(size=(60, 50)), jnp.float32)},
    "state": {"step": jnp.int32(3)},
}
EXPECTED = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), STATE
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A folder with checkpoints 1 and 2, each with its random seed and place in the data."""
    folder = tmp_path_factory.mktemp("run")
    manager = CheckpointManager(folder)
    for step in (1, 2):
        manager.save(step, STATE, {"seed": step}, {"position": step})
    manager.close()
    return folder


@pytest.fixture
def copy(run, tmp_path):
    shutil.copytree(run, tmp_path, dirs_exist_ok=True)
    return tmp_path


def read(folder):
    """Read checkpoint 2 of a run as a resumed run does."""
    manager = CheckpointManager(folder, read_only=True)
    try:
        manager.restore_json(2, "run")
        manager.restore_json(2, "dataset")
        manager.restore(2, EXPECTED)
    finally:
        manager.close()


def flip(path):
    """Change one bit of a file."""
    data = bytearray(path.read_bytes())
    data[random.Random(0).randrange(len(data))] ^= 16
    path.write_bytes(data)


DAMAGES = {
    "flipped": flip,
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "empty": lambda path: path.write_bytes(b""),
    "deleted": lambda path: path.unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_every_damaged_file_is_named_with_the_checkpoint_before(run, tmp_path, damage):
    names = [path.relative_to(run) for path in (run / "checkpoint_2").glob("*/**/*")]
    names = [name for name in names if (run / name).is_file()]
    assert len(names) > 12
    shutil.copytree(run, tmp_path, dirs_exist_ok=True)
    for name in names:
        whole = (tmp_path / name).read_bytes()
        DAMAGES[damage](tmp_path / name)
        with pytest.raises(CheckpointError) as error:
            read(tmp_path)
        message = str(error.value)
        inner = name.relative_to("checkpoint_2")
        assert message.startswith(f"{tmp_path}/checkpoint_2: damaged or incomplete ({inner} ")
        assert "checkpoint_1 before it is whole: to continue from that one, move" in message
        assert "\n" not in message
        if inner.parts[0] == "state":
            with pytest.raises(CheckpointError, match=r"damaged .* checkpoint_1 before it"):
                checkpoints.load_params(tmp_path)
        (tmp_path / name).write_bytes(whole)
    read(tmp_path)


def test_the_message_tells_how_to_continue(copy):
    flip(next((copy / "checkpoint_2/state/d").iterdir()))
    shutil.move(copy / "checkpoint_2", copy / "damaged")
    loaded = checkpoints.load_params(copy)["w"]
    np.testing.assert_array_equal(loaded, STATE["target"]["w"])


def test_no_checkpoint_is_called_whole_that_is_not(copy):
    for step in (1, 2):
        flip(next((copy / f"checkpoint_{step}/state/d").iterdir()))
    with pytest.raises(CheckpointError, match="No checkpoint before it is whole: copy it again"):
        checkpoints.load_params(copy)


@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize("part", ["state", "state/_METADATA", "run/metadata", "dataset/metadata"])
def test_half_copied_checkpoints_are_refused_with_and_without_a_list(copy, part, listed):
    path = copy / "checkpoint_2" / part
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    if not listed:  # as earlier versions wrote them
        for folder in copy.glob("checkpoint_*"):
            (folder / FILES_NAME).unlink()
    with pytest.raises(CheckpointError, match=r"checkpoint_2: damaged .*checkpoint_1 before it is"):
        read(copy)


def test_without_a_list_the_marks_of_a_whole_checkpoint_agree(copy):
    folder = copy / "checkpoint_2"
    (folder / FILES_NAME).unlink()
    read(copy)
    (folder / "state" / "commit_success.txt").unlink()
    assert find_damage(folder) == ("state/commit_success.txt is missing", False)
    with pytest.raises(CheckpointError, match=r"state/commit_success\.txt is missing"):
        checkpoints.load_params(copy)
    for mark in folder.rglob("commit_success.txt"):  # of versions that wrote none
        mark.unlink()
    read(copy)


def test_an_empty_folder_is_no_checkpoint(copy):
    shutil.rmtree(copy / "checkpoint_2")
    (copy / "checkpoint_2").mkdir()
    with pytest.raises(CheckpointError, match=r"checkpoint_2: damaged .*checkpoint_1 before it is"):
        checkpoints.load_params(copy)


@pytest.mark.parametrize("text", ["", "[]", "7", '{"a": 1}', '{"a": ["x", 1]}', "[" * 10**5])
def test_a_list_that_is_none_is_damage(copy, text):
    (copy / "checkpoint_2" / FILES_NAME).write_text(text)
    assert find_damage(copy / "checkpoint_2") == (f"{FILES_NAME} is not a list of files", True)


def test_a_list_opens_no_files_elsewhere(copy):
    (copy / "checkpoint_2" / FILES_NAME).write_text('{"../../../../dev/zero": [0, 0]}')
    why, _ = find_damage(copy / "checkpoint_2")
    assert why == "../../../../dev/zero is missing"


def test_a_damaged_legacy_checkpoint_names_the_one_before(tmp_path):
    content = {"version": 3, "optimizer": {"target": {"w": np.ones(2)}, "state": {}}}
    for step in (1, 2):
        (tmp_path / f"checkpoint_{step}").mkdir()
        data = flax.serialization.msgpack_serialize(content)
        (tmp_path / f"checkpoint_{step}" / "checkpoint").write_bytes(data)
    (tmp_path / "checkpoint_2" / "checkpoint").write_bytes(data[:-3])
    with pytest.raises(CheckpointError, match=r"msgpack.* checkpoint_1 before it is whole"):
        checkpoints.load_params(tmp_path)


def test_every_process_compares_all_sizes_and_one_of_them_each_content(tmp_path, monkeypatch):
    monkeypatch.setattr(integrity, "_BLOCK", 16)  # so that a file has several
    part = tmp_path / "checkpoint_1" / "state"
    part.mkdir(parents=True)
    for name in ("a", "b", "c"):
        (part / name).write_bytes(bytes(range(40)))
    write_file_list(part.parent)
    shares = [(0, 2), (1, 2)]
    (part / "b").write_bytes(b"\1" + bytes(range(1, 40)))
    found = [find_damage(part.parent, share=share)[0] for share in shares]
    assert found == [None, "state/b has other content than was written"]
    (part / "b").write_bytes(bytes(range(39)))
    for share in shares:
        found = find_damage(part.parent, share=share)
        assert found == ("state/b has 39 bytes, expected 40", True)


def test_the_last_whole_checkpoint_before_is_named(run, tmp_path):
    for step in (1, 2, 3, 4):
        shutil.copytree(run / "checkpoint_1", tmp_path / f"checkpoint_{step}")
    next(path for path in (tmp_path / "checkpoint_3").glob("state/d/*")).unlink()
    assert whole_before(tmp_path / "checkpoint_4") == tmp_path / "checkpoint_2"
