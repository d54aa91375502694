"""Signals before there is anything to save, and while a run waits."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from t5x import train, utils
from t5x.checkpoints import latest_checkpoint
from t5x.data import prefetch
from t5x.training import preemption
from t5x.training.preemption import Interrupted, StopRequest, prompt_end
from tests.running import run_main
from tests.t5x import toy
from tests.t5x.test_train import LENGTHS, run

SIGNALS = (signal.SIGTERM, signal.SIGINT)


@pytest.fixture(autouse=True)
def _handlers_of_a_new_process():
    """Workers that run tests in parallel ignore SIGINT."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def send(number):
    os.kill(os.getpid(), number)
    for _ in range(100):  # Python calls handlers between its instructions
        pass


class AtTheEnd:
    """Sends a signal from a destructor, where no exception gets out."""

    def __init__(self, number):
        self.number = number

    def __del__(self):
        send(self.number)


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("lost", [False, True])
def test_before_the_first_step_a_signal_ends_the_run_at_once(tmp_path, number, lost):
    before = [signal.getsignal(each) for each in SIGNALS], signal.set_wakeup_fd(-1)

    def get_dataset(*args):
        if lost:
            AtTheEnd(number)
        else:
            send(number)
        return utils.get_dataset(*args)

    with pytest.raises(Interrupted) as error:
        run(tmp_path, 200, get_dataset_fn=get_dataset)
    assert error.value.status == 128 + number
    assert not list(tmp_path.glob("checkpoint_*"))
    assert not (tmp_path / ".lock").exists()
    assert ([signal.getsignal(each) for each in SIGNALS], signal.set_wakeup_fd(-1)) == before
    assert threading.active_count() < 50


def test_the_command_tells_it_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(train, "Evaluations", lambda *args: send(signal.SIGTERM))
    flags = ["--gin_file=tests/t5x/toy.gin", f"--gin.MODEL_DIR={tmp_path}", "--gin.TRAIN_STEPS=9"]
    status, printed = run_main(train.main, *flags)
    assert status == 128 + signal.SIGTERM
    assert printed.splitlines()[-1].startswith("t5x.train: ended by SIGTERM; nothing is half-writt")


STUCK = """
import hashlib
from t5x.training import preemption
preemption.GRACE = 0.2
with preemption.prompt_end():
    print("ready", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)  # as compiling: minutes without Python
"""


@pytest.mark.parametrize("number", SIGNALS)
def test_a_process_that_does_not_hear_ends_too(number):
    process = subprocess.Popen(
        [sys.executable, "-c", STUCK], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.5)  # by now it is in the long call
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert errors.startswith(f"ended by {number.name}; ")
    assert len(errors.splitlines()) == 1


def test_handlers_of_others_stay():
    heard = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        with prompt_end(), prompt_end():
            send(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == [signal.SIGTERM]


class Endless:
    """Batches of an evaluation without end; a signal comes with the tenth."""

    def __init__(self, batches):
        self.batches, self.count = batches, 0

    def __iter__(self):
        return self

    def __next__(self):
        self.count += 1
        if self.count == 10:
            send(signal.SIGTERM)
        return next(self.batches)

    def close(self):
        self.batches.close()


def test_an_evaluation_is_broken_off_and_the_run_saved(tmp_path, monkeypatch):
    monkeypatch.setattr(preemption, "PATIENCE", 0.2)

    def get_datasets(cfg, *args):
        found = utils.get_training_eval_datasets(cfg, *args[:1], 10**9, *args[2:])
        return {name: Endless(batches) for name, batches in found.items()}

    evaluation = utils.DatasetConfig(toy.TASK, LENGTHS, "validation", 8, False, seed=42)
    step, _ = run(
        tmp_path,
        10**9,
        eval_period=5,
        train_eval_dataset_cfg=evaluation,
        train_eval_get_dataset_fn=get_datasets,
    )
    assert step in (5, 6)
    assert latest_checkpoint(tmp_path).name == f"checkpoint_{step}"


def test_data_that_never_comes_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(prefetch, "_CLOSING_SECONDS", 0.1)
    monkeypatch.setattr(preemption, "PATIENCE", 0.2)
    release = threading.Event()

    class Hanging:
        def __init__(self, batches):
            self.batches, self.element_spec, self.count = batches, batches.element_spec, 0
            self.get_state, self.close = batches.get_state, batches.close

        def __next__(self):
            self.count += 1
            if self.count == 8:
                threading.Timer(0.5, send, [signal.SIGTERM]).start()
                release.wait()
            return next(self.batches)

    try:
        step, _ = run(
            tmp_path, 10**9, get_dataset_fn=lambda *args: Hanging(utils.get_dataset(*args))
        )
    finally:
        release.set()
    assert step == 7
    assert latest_checkpoint(tmp_path).name == "checkpoint_7"


def test_an_evaluation_that_soon_ends_is_kept():
    with StopRequest() as stop:
        assert stop.interruptible(lambda: send(signal.SIGTERM) or 7) == 7
        assert stop.interruptible(lambda: 8) == 8
        assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_a_second_signal_ends_at_once():
    with StopRequest() as stop:
        send(signal.SIGTERM)
        assert stop.requested
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)
    assert not StopRequest.active
