"""Whole runs of a tiny model: learning, resuming, being killed, and the command line."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import gin
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t5x import checkpoints, optimizers, train, utils
from t5x.data import TaskRegistry
from t5x.loggers import read_metrics
from t5x.partitioning import PjitPartitioner
from t5x.trainer import Trainer
from t5x.training.actions import BaseAction, EarlyStoppingAction, TerminateOnNanAction
from t5x.training.errors import TrainingError
from tests.t5x import toy

LENGTHS = {"targets": 8}


def run(folder, total_steps, **options):
    """Trains the toy model; returns (step, state_dict on the host)."""

    def make_trainer(**kwargs):
        return Trainer(learning_rate_fn=lambda step: jnp.float32(0.05), **kwargs)

    arguments = {
        "model": toy.ToyModel(toy.optimizer(), dropout_rate=0.1),
        "train_dataset_cfg": utils.DatasetConfig(toy.TASK, LENGTHS, "train", 8, True),
        "checkpoint_cfg": utils.CheckpointConfig(utils.SaveCheckpointConfig(period=10)),
        "partitioner": PjitPartitioner(1),
        "trainer_cls": make_trainer,
        "random_seed": 3,
        "summarize_config_fn": None,
        "eval_period": 0,
        "stats_period": 5,
    }
    step, state = train.train(
        model_dir=str(folder), total_steps=total_steps, **{**arguments, **options}
    )
    return step, jax.device_get(state.state_dict())


class SignalAt(BaseAction):
    """Sends this process a signal once it reports `step`."""

    def __init__(self, step, number):
        self.step, self.number = step, number

    def run(self, step, metrics):
        if step == self.step:
            os.kill(os.getpid(), self.number)
        return False


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """(folder, state) of an uninterrupted run of 25 steps, with both evaluations."""
    folder = tmp_path_factory.mktemp("whole")
    evaluations = utils.DatasetConfig(toy.TASK, LENGTHS, "validation", 8, False, seed=42)
    _, state = run(
        folder,
        25,
        eval_period=10,
        eval_steps=2,
        train_eval_dataset_cfg=evaluations,
        infer_eval_dataset_cfg=evaluations,
    )
    return folder, state


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_learns_and_writes_logs(whole):
    folder, state = whole
    assert state["state"]["step"] == 25
    lines = read_metrics(folder / "train" / "metrics.jsonl")
    assert [line["step"] for line in lines] == [5, 10, 15, 20, 25]
    assert lines[-1]["loss"] < lines[0]["loss"] / 2
    expected = {"learning_rate", "grad_norm", "accuracy", "timing/steps_per_second"}
    expected |= {"timing/data_wait_fraction", "timing/goodput", "timing/uptime"}
    expected |= {"timing/trained_seconds", "timing/badput/compilation", "timing/badput/evaluate"}
    assert expected <= lines[0].keys()
    assert lines[0]["learning_rate"] == pytest.approx(0.05)
    for kind, metric in (("training_eval", "loss"), ("inference_eval", "exact")):
        lines = read_metrics(folder / kind / toy.TASK / "metrics.jsonl")
        assert [line["step"] for line in lines] == [10, 20, 25]
        assert metric in lines[0]
    assert list((folder / "train").glob("events*"))


def test_resume_is_bit_for_bit(whole, tmp_path):
    run(tmp_path, 7)
    assert_same(run(tmp_path, 25)[1], whole[1])
    lines = read_metrics(tmp_path / "train" / "metrics.jsonl")
    assert [line["step"] for line in lines] == [5, 7, 10, 15, 20, 25]


def test_sigterm_saves_ends_and_resumes(whole, tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    step, _ = run(tmp_path, 25, actions={"TRAIN": [SignalAt(5, signal.SIGTERM)]})
    assert 5 <= step < 10
    assert checkpoints.latest_checkpoint(tmp_path).name == f"checkpoint_{step}"
    assert signal.getsignal(signal.SIGTERM) == before
    assert_same(run(tmp_path, 25)[1], whole[1])


KILLED = """
import signal, sys
from tests.t5x.test_train import SignalAt, run
run(sys.argv[1], 40, actions={"TRAIN": [SignalAt(25, signal.SIGKILL)]})
"""


def test_kill_9_leaves_the_last_checkpoint_usable(whole, tmp_path):
    process = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert process.returncode == -signal.SIGKILL
    # The save of step 20 began when that of step 10 was whole, and may not have ended.
    assert checkpoints.latest_checkpoint(tmp_path).name in ("checkpoint_10", "checkpoint_20")
    assert_same(run(tmp_path, 25)[1], whole[1])
    steps = [line["step"] for line in read_metrics(tmp_path / "train" / "metrics.jsonl")]
    assert steps == [5, 10, 15, 20, 25]


def test_finished_run_does_nothing_more(whole):
    folder, state = whole
    step, again = run(folder, 25)
    assert step == 25
    assert_same(again, state)


def test_seed_that_was_drawn_is_kept(tmp_path):
    run(tmp_path / "a", 4, random_seed=None)
    saved = checkpoints.CheckpointManager(tmp_path / "a", read_only=True).restore_json(4, "run")
    resumed = run(tmp_path / "a", 8, random_seed=None)[1]
    assert_same(resumed, run(tmp_path / "b", 8, random_seed=saved["seed"])[1])


def test_a_damaged_checkpoint_stops_a_resumed_run_until_it_is_moved(whole, tmp_path):
    shutil.copytree(whole[0], tmp_path, dirs_exist_ok=True)
    (tmp_path / "checkpoint_25" / "run" / "metadata").write_bytes(b"")
    shutil.rmtree(tmp_path / "checkpoint_20" / "state")
    for option in (True, False):
        with pytest.raises(checkpoints.CheckpointError, match="checkpoint_10 before it is whole"):
            run(tmp_path, 25, dry_run=option)
    for step in (20, 25):
        shutil.rmtree(tmp_path / f"checkpoint_{step}")
    assert_same(run(tmp_path, 25)[1], whole[1])


def test_a_resumed_run_takes_no_other_seed_for_want_of_its_own(whole, tmp_path):
    folder = tmp_path / "checkpoint_25"
    shutil.copytree(whole[0] / "checkpoint_25", folder)
    shutil.rmtree(folder / "run")
    remove_lists(folder)
    with pytest.raises(checkpoints.CheckpointError, match="no folder `run`, with its seed"):
        run(tmp_path, 30)


@pytest.fixture
def half(whole, tmp_path):
    """A copy of the run as it was at step 10, with a task to be changed."""
    shutil.copytree(whole[0] / "checkpoint_10", tmp_path / "checkpoint_10")
    yield tmp_path
    TaskRegistry.remove(toy.TASK)
    toy.register()


def remove_lists(folder):
    """Make a checkpoint one of earlier versions, which say less of what they hold."""
    for name in ("files.json", "commit_success.txt", "*/commit_success.txt"):
        for path in folder.glob(name):
            path.unlink()


@pytest.mark.parametrize("listed", [True, False])
def test_a_run_does_not_begin_its_data_again_in_silence(half, listed):
    shutil.rmtree(half / "checkpoint_10" / "dataset")
    if not listed:
        remove_lists(half / "checkpoint_10")
    with pytest.raises(checkpoints.CheckpointError, match=r"checkpoint_10: .*dataset"):
        run(half, 25)
    restore = utils.RestoreCheckpointConfig(f"{half}/checkpoint_10", restore_dataset=True)
    start = utils.CheckpointConfig(restore=restore)
    with pytest.raises(checkpoints.CheckpointError, match=r"checkpoint_10: .*dataset"):
        run(half / "new", 25, checkpoint_cfg=start)


@pytest.mark.parametrize(
    ("examples", "message"),
    [
        (toy.examples(65, 0), "examples: saved {'toy_counting': 64}, now {'toy_counting': 65}"),
        (toy.examples(64, 7), "task 'toy_counting' reads other examples than those"),
    ],
)
def test_a_run_does_not_go_on_with_other_data_of_the_same_name(half, whole, examples, message):
    task = TaskRegistry.get(toy.TASK)
    TaskRegistry.remove(toy.TASK)
    features, source = task.output_features, {"train": examples}
    TaskRegistry.add(toy.TASK, source=source, output_features=features)
    with pytest.raises(checkpoints.CheckpointError) as error:
        run(half, 25)
    assert message in str(error.value)
    assert f"{half}/checkpoint_10" in str(error.value)
    assert "begin a new run (another MODEL_DIR)" in str(error.value)
    TaskRegistry.remove(toy.TASK)
    TaskRegistry.add(task)
    assert_same(run(half, 25)[1], whole[1])


def test_damaged_logs_do_not_stop_a_run(whole, tmp_path):
    run(tmp_path, 7)
    log = tmp_path / "train" / "metrics.jsonl"
    kept = log.read_bytes()
    log.write_bytes(b"\x00\x00\xff\n[1]\n7\nnull\n{}\n" + kept + b'{"step": "x"}\n\x80{"st')
    assert_same(run(tmp_path, 25)[1], whole[1])
    assert log.read_bytes().startswith(kept)
    assert [line["step"] for line in read_metrics(log)] == [5, 7, 10, 15, 20, 25]


def test_relative_steps_count_from_the_first_step_also_after_a_resume(whole, tmp_path):
    restore = utils.RestoreCheckpointConfig(str(whole[0]))
    options = {
        "checkpoint_cfg": utils.CheckpointConfig(utils.SaveCheckpointConfig(), restore),
        "relative_steps": 6,
        "actions": {"TRAIN": [SignalAt(30, signal.SIGTERM)]},
        "stats_period": 1,
    }
    assert run(tmp_path, 0, **options)[0] in (30, 31)
    assert run(tmp_path, 0, **options)[0] == 31


def test_a_new_run_goes_on_with_the_data_of_another(whole, tmp_path):
    def without_slots(state_dict, parameter_infos):  # with upstream's arguments
        assert parameter_infos.keys() == state_dict.keys()
        return {"target": state_dict["target"]}, {"target": parameter_infos["target"]}

    start = str(whole[0] / "checkpoint_10")
    restore = utils.RestoreCheckpointConfig(start, mode="specific", restore_dataset=True)
    save = utils.SaveCheckpointConfig(state_transformation_fns=[without_slots])
    step, state = run(tmp_path, 25, checkpoint_cfg=utils.CheckpointConfig(save, restore))
    assert step == 25
    assert_same(state, whole[1])
    written = checkpoints.load_t5x_checkpoint(tmp_path, 25)
    assert written.keys() == {"target"}
    assert_same(written["target"], state["target"])


class StopAt(BaseAction):
    def __init__(self, step):
        self.step = step

    def run(self, step, metrics):
        return step >= self.step


def test_actions_end_a_run(tmp_path):
    assert run(tmp_path, 25, actions={"TRAIN": [StopAt(10)]})[0] == 10
    with pytest.raises(ValueError, match=r"modes .'TRAINING'"):
        run(tmp_path, 25, actions={"TRAINING": []})


def test_early_stopping_and_nan():
    stop = EarlyStoppingAction(("t", "loss"), "min", patience=2, atol=0.1)
    losses = [3.0, 2.0, 1.95, 1.99]
    assert [stop.run(0, {"t": {"loss": x}}) for x in losses] == [False, False, False, True]
    highest = EarlyStoppingAction(("t", "f1"), "max", patience=1)
    assert [highest.run(0, {"t": {"f1": x}}) for x in (0.1, 0.2, 0.1)] == [False, False, True]
    nan = TerminateOnNanAction("t")
    assert not nan.run(0, {"t": {"loss": 1.0}})
    assert nan.run(0, {"t": {"loss": float("nan")}})
    with pytest.raises(ValueError, match=r"only .'t': .'loss'"):
        TerminateOnNanAction("t", "los").run(0, {"t": {"loss": 1.0}})


def test_a_state_that_is_nan_replaces_no_checkpoint(tmp_path, capsys):
    def make_trainer(**kwargs):
        rate = lambda step: jnp.where(step < 12, 0.05, jnp.nan)  # noqa: E731
        return Trainer(learning_rate_fn=rate, **kwargs)

    save = utils.SaveCheckpointConfig(period=5, keep=1)
    step, _ = run(
        tmp_path,
        40,
        trainer_cls=make_trainer,
        checkpoint_cfg=utils.CheckpointConfig(save),
        actions={"TRAIN": [TerminateOnNanAction("train")]},
    )
    assert step == 15
    assert [path.name for path in tmp_path.glob("checkpoint_*")] == ["checkpoint_10"]
    assert "ended at step 15 of 40, by TerminateOnNanAction" in capsys.readouterr().out


def growing(rate):
    """A trainer whose learning rate is `rate` from step 12 on."""

    def make_trainer(**kwargs):
        return Trainer(learning_rate_fn=lambda step: jnp.where(step < 12, 0.05, rate), **kwargs)

    return make_trainer


@pytest.mark.parametrize("period", [1, 5])
def test_a_run_that_diverges_ends_with_its_last_finite_checkpoint(whole, tmp_path, period):
    save = utils.CheckpointConfig(utils.SaveCheckpointConfig(period=period, keep=1))
    options = {"checkpoint_cfg": save, "eval_period": 0}
    with pytest.raises(TrainingError) as error:
        run(tmp_path, 40, trainer_cls=growing(1e30), **options)
    last = 12 if period == 1 else 10
    message = str(error.value)
    assert f"{tmp_path}: the state is NaN or infinite since step 13 (seen at step" in message
    assert f"checkpoint_{last} is the last one" in message
    assert [path.name for path in tmp_path.glob("checkpoint_*")] == [f"checkpoint_{last}"]
    assert_same(run(tmp_path, 25, **options)[1], whole[1])


def test_a_run_told_to_go_on_saves_no_state_that_is_not_finite(tmp_path):
    save = utils.CheckpointConfig(utils.SaveCheckpointConfig(period=5, keep=1))
    options = {"trainer_cls": growing(float("nan")), "checkpoint_cfg": save}
    assert run(tmp_path, 25, end_when_diverged=False, **options)[0] == 25
    assert [path.name for path in tmp_path.glob("checkpoint_*")] == ["checkpoint_10"]


def test_evaluations_that_cannot_be_stop_the_run_before_it_starts(tmp_path):
    absent = utils.DatasetConfig(toy.TASK, LENGTHS, "absent", 8, False, seed=42)
    for dry_run in (False, True):
        with pytest.raises(ValueError, match="no split 'absent'"):
            run(tmp_path, 25, train_eval_dataset_cfg=absent, eval_period=10, dry_run=dry_run)
    assert not list(tmp_path.glob("checkpoint_*"))


def test_says_what_it_will_not_do(tmp_path, capsys):
    absent = utils.DatasetConfig(toy.TASK, LENGTHS, "absent", 8, False, seed=42)
    run(tmp_path, 5, infer_eval_dataset_cfg=absent, profile_steps=(5, 6))
    said = capsys.readouterr().out
    assert f"no task of {toy.TASK} with metric_fns has the split 'absent'" in said
    assert "no profile: its steps, counted from 0, come after the last one" in said


# ---------------------------------------------------------------------- command line


@pytest.fixture
def command_line(tmp_path, monkeypatch):
    monkeypatch.setenv("MUSAX_CACHE_DIR", str(tmp_path / "cache"))

    def main(*flags):
        return train.main(["--gin_file=tests/t5x/toy.gin", *flags])

    yield main
    gin.clear_config()
    gin.config._LOCATION_PREFIXES[:] = [""]


def test_dry_run_prints_the_run_and_writes_nothing(command_line, tmp_path, capsys):
    folder = tmp_path / "run"
    assert command_line(f"--gin.MODEL_DIR={folder}", "--gin.TRAIN_STEPS=50", "--dry_run") == 0
    printed = capsys.readouterr().out
    for text in (
        "{'data': 1, 'model': 1}",
        "embedding  16x8   float32  128    (vocab, embed)  (model, None)",
        "total: 4 parameters, 512 numbers",
        "decoder_input_tokens   8x8    int32  (data)",
        "step 50: 0.05",
        "Starts from\n  a new initialization",
    ):
        assert text in printed
    assert not folder.exists()


def test_dry_run_says_what_a_run_starts_from(whole, tmp_path, capsys):
    folder, _ = whole
    run(folder, 30, dry_run=True)
    assert (
        f"Starts from\n  {folder}/checkpoint_25, which this run resumes" in capsys.readouterr().out
    )
    start = utils.RestoreCheckpointConfig(f"{folder}/checkpoint_20")
    run(tmp_path, 30, dry_run=True, checkpoint_cfg=utils.CheckpointConfig(restore=start))
    assert f"Starts from\n  {folder}/checkpoint_20" in capsys.readouterr().out
    start = utils.RestoreCheckpointConfig(str(tmp_path / "absent"))
    with pytest.raises(checkpoints.CheckpointError, match="absent"):
        run(tmp_path, 30, dry_run=True, checkpoint_cfg=utils.CheckpointConfig(restore=start))
    other = toy.ToyModel(optimizers.sgd(0.1))
    with pytest.raises(checkpoints.CheckpointError, match="does not fit the model"):
        run(folder, 30, dry_run=True, model=other)


def test_divergence_ends_the_process_with_status_1(command_line, tmp_path, capsys):
    rate = "--gin.utils.create_learning_rate_scheduler.base_learning_rate=1e30"
    flags = ("--gin.TRAIN_STEPS=50", "--gin.EVAL_PERIOD=0", rate)
    assert command_line(f"--gin.MODEL_DIR={tmp_path}/run", *flags) == 1
    assert "NaN or infinite since step 1 (seen at step 10)" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["file", "file/below", "link"])
def test_a_model_dir_that_cannot_be_is_told_in_one_line(command_line, tmp_path, capsys, name):
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to("absent/folder")
    for more in ([], ["--dry_run"]):
        flags = [f"--gin.MODEL_DIR={tmp_path}/{name}", "--gin.TRAIN_STEPS=5", *more]
        assert command_line(*flags) == 2
        message = capsys.readouterr().err
        assert message.startswith(f"t5x.train: {tmp_path}/{name}: cannot be used as MODEL_DIR (")
        assert message.count("\n") == 1
        gin.clear_config()


def test_a_full_disk_under_the_logs_ends_the_run_with_one_line(command_line, tmp_path, capsys):
    (tmp_path / "run" / "train").mkdir(parents=True)
    (tmp_path / "run" / "train" / "metrics.jsonl").symlink_to("/dev/full")
    flags = [f"--gin.MODEL_DIR={tmp_path}/run", "--gin.TRAIN_STEPS=5", "--gin.EVAL_PERIOD=0"]
    assert command_line(*flags) == 1
    message = capsys.readouterr().err
    assert message.startswith("t5x.train: No space left on device: ")
    assert "/train/metrics.jsonl'. Nothing is half-written" in message
    assert message.count("\n") == 1


def test_mistake_on_the_command_line_is_told_in_one_line(command_line, capsys):
    assert command_line("--gin.MODEL_DIR=/tmp/x", "--gin.TRAIN_STEP=5") == 2
    assert "Did you mean TRAIN_STEPS" in capsys.readouterr().err


COMMAND = """
import sys
from t5x.train import main
status = main(sys.argv[1:])
assert not {"tensorflow", "seqio", "clu"} & set(sys.modules)
sys.exit(status)
"""


def test_process_ends_with_status_0_on_sigterm(tmp_path):
    folder = tmp_path / "run"
    flags = ["--gin_file=tests/t5x/toy.gin", f"--gin.MODEL_DIR={folder}"]
    command = [sys.executable, "-c", COMMAND, *flags]
    environment = {**os.environ, "MUSAX_CACHE_DIR": str(tmp_path / "cache")}
    process = subprocess.Popen([*command, "--gin.TRAIN_STEPS=1000000"], env=environment)
    log = folder / "training_eval" / toy.TASK / "metrics.jsonl"
    deadline = time.monotonic() + 500
    while not (log.is_file() and log.stat().st_size):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=500) == 0
    step = checkpoints.loading.checkpoint_step(checkpoints.latest_checkpoint(folder))
    assert step >= 10
    assert "toy.ToyModel.dropout_rate = 0.1" in (folder / "config.gin").read_text()


class JoinedShards:
    """The batches that two processes train on together, for one process."""

    def __init__(self, cfg, shard_id, num_shards, converter):
        assert (shard_id, num_shards) == (0, 1)
        self.shards = [utils.get_dataset(cfg, shard, 2, converter) for shard in range(2)]
        self.element_spec = {
            name: ((2 * shape[0], *shape[1:]), dtype)
            for name, (shape, dtype) in self.shards[0].element_spec.items()
        }

    def __iter__(self):
        return self

    def __next__(self):
        first, second = map(next, self.shards)
        return {name: np.concatenate([first[name], second[name]]) for name in first}

    def get_state(self):
        return {}

    def close(self):
        for shard in self.shards:
            shard.close()


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path):
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "MUSAX_CACHE_DIR": str(tmp_path / "cache"), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "t5x.train", "--gin_file=tests/t5x/toy.gin"]
    command += [f"--gin.MODEL_DIR={tmp_path}/two", "--gin.TRAIN_STEPS=4", "--gin.EVAL_PERIOD=0"]
    command += ["--gin.toy.ToyModel.dropout_rate=0.0", f"--coordinator_address=localhost:{port}"]
    command += ["--process_count=2"]
    processes = [
        subprocess.Popen([*command, f"--process_index={index}"], env=environment)
        for index in range(2)
    ]
    assert [process.wait(timeout=500) for process in processes] == [0, 0]
    together = checkpoints.load_state(tmp_path / "two")
    alone = run(
        tmp_path / "one", 4, model=toy.ToyModel(toy.optimizer()), get_dataset_fn=JoinedShards
    )[1]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-5, 1e-5), together, alone)
    states = json.loads(next((tmp_path / "two/checkpoint_4/dataset").iterdir()).read_text())
    assert [p["settings"]["shard_index"] for p in states["processes"]] == [0, 1]
    assert len(read_metrics(tmp_path / "two/train/metrics.jsonl")) == 1
