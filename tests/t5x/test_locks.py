"""Two processes and one folder."""

import os
import re
import subprocess
import sys

import jax.numpy as jnp
import pytest

from t5x import checkpoints, train
from t5x.checkpoints import CheckpointManager, locks
from t5x.checkpoints.integrity import reading
from t5x.checkpoints.locks import FolderInUseError, lock_folder
from t5x.inference.chunks import Chunks
from tests.running import run_main

STATE = {"target": {"w": jnp.ones(3)}, "state": {"step": jnp.int32(1)}}

# Holds what an argument says until its input ends; needs none of the slow imports.
HOLDER = """
import fcntl, os, sys
sys.path.insert(0, {root!r})
how, folder = sys.argv[1:]
if how == "write":
    file = os.open(folder + "/.lock", os.O_RDWR | os.O_CREAT)
    os.write(file, b'{{"pid": 77, "host": "box", "since": "12:00", "command": "train.py"}}')
    fcntl.flock(file, fcntl.LOCK_EX)
else:
    fcntl.flock(os.open(folder, os.O_RDONLY), fcntl.LOCK_SH)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def hold():
    """hold("write" or "read", folder) begins another process that does so; returns its end."""
    processes = []

    def begin(how, folder):
        command = [sys.executable, "-S", "-c", HOLDER.format(root=os.getcwd()), how, str(folder)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        processes.append(process)
        assert process.stdout.readline() == b"held\n"

        def end():
            process.stdin.close()
            process.wait()

        return end

    yield begin
    for process in processes:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_second_process_is_told_who_writes(tmp_path, hold):
    end = hold("write", tmp_path)
    unfinished = tmp_path / "checkpoint_5.orbax-checkpoint-tmp"
    unfinished.mkdir()
    message = f"{tmp_path}: in use by process 77 on box since 12:00 (train.py). Wait for its end"
    with pytest.raises(FolderInUseError, match=re.escape(message)):
        CheckpointManager(tmp_path)
    assert unfinished.is_dir()  # the save of the other process goes on
    CheckpointManager(tmp_path, read_only=True).close()
    end()
    manager = CheckpointManager(tmp_path)
    assert f'"pid": {os.getpid()}' in (tmp_path / ".lock").read_text()
    manager.close()
    assert not (tmp_path / ".lock").exists()


def test_the_lock_ends_with_the_process_or_the_manager(tmp_path, hold):
    CheckpointManager(tmp_path).close()
    hold("write", tmp_path)()
    manager = CheckpointManager(tmp_path)
    again = CheckpointManager(tmp_path)  # this process has it already
    again.close()
    manager.close()
    hold("write", tmp_path)


def test_a_lock_without_a_readable_owner_is_a_lock(tmp_path, hold):
    hold("write", tmp_path)
    (tmp_path / ".lock").write_bytes(b"\xff[")
    with pytest.raises(FolderInUseError, match="in use by another process"):
        lock_folder(tmp_path, "")


def test_a_file_system_without_locks_is_used_without(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", refuse)
    CheckpointManager(tmp_path).close()


def test_the_second_of_two_runs_ends_with_one_line(tmp_path, hold):
    hold("write", tmp_path)
    status, printed = run_main(
        train.main,
        "--gin_file=tests/t5x/toy.gin",
        f"--gin.MODEL_DIR={tmp_path}",
        "--gin.TRAIN_STEPS=9",
    )
    assert status == 2
    assert printed.splitlines()[-1].startswith(
        f"t5x.train: {tmp_path}: in use by process 77 on box"
    )
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_chunks_of_inference_are_written_by_one_process(tmp_path, hold):
    chunks = Chunks(tmp_path, "tmp-a", "a.jsonl", {})
    chunks.work.mkdir()
    hold("write", chunks.work)
    with pytest.raises(FolderInUseError, match=r"tmp-a: in use by process 77 .*another shard_id"):
        chunks.open()


def test_a_checkpoint_that_is_read_is_deleted_later(tmp_path, hold):
    manager = CheckpointManager(tmp_path, keep=1)
    manager.save(1, STATE)
    manager.wait()
    end = hold("read", tmp_path / "checkpoint_1")
    manager.save(2, STATE)
    manager.wait()
    assert manager.all_steps() == [1, 2]
    end()
    manager.wait()
    assert manager.all_steps() == [2]
    with reading(tmp_path / "checkpoint_2"):
        manager.save(3, STATE)
        manager.wait()
        assert manager.all_steps() == [2, 3]
    manager.wait()
    assert manager.all_steps() == [3]
    manager.close()
    assert checkpoints.load_params(tmp_path)["w"].sum() == 3


def test_a_lock_whose_file_was_just_removed_is_taken_again(tmp_path, monkeypatch):
    taken, open_locked = [], locks._open_locked

    def remove_first(path):
        file = open_locked(path)
        if not taken:
            path.unlink()  # by the process that had the lock before
        taken.append(file)
        return file

    monkeypatch.setattr(locks, "_open_locked", remove_first)
    lock = lock_folder(tmp_path, "")
    assert len(taken) == 2
    assert (tmp_path / locks.LOCK_NAME).read_bytes()
    lock.close()


def test_the_file_of_another_lock_is_left(tmp_path):
    lock = lock_folder(tmp_path, "")
    path = tmp_path / locks.LOCK_NAME
    path.unlink()
    path.write_text("another's")
    lock.close()
    assert path.read_text() == "another's"
