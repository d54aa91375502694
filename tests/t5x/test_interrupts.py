"""Ctrl-C while an entry point is imported."""

import os
import signal
import subprocess
import sys

import pytest

from t5x import interrupts

SLOW_IMPORT = """
import os, signal
os.kill(os.getpid(), signal.SIGINT)
raise ImportError("an extension module found an exception")
"""


@pytest.fixture(autouse=True)
def _handler_of_a_new_process():
    """Workers that run tests in parallel ignore SIGINT, and so would their children."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    "module", ["t5x.train", "t5x.eval", "t5x.infer", "t5x.export", "t5x.main", "musax"]
)
def test_the_process_ends_without_a_word(module, tmp_path):
    (tmp_path / "jax.py").write_text(SLOW_IMPORT)
    command = [sys.executable, "-m", module]
    command += {"t5x.main": ["--run_mode=train"], "musax": ["train"]}.get(module, [])
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (-signal.SIGINT, "", "")


@pytest.mark.parametrize("handler", [signal.SIG_IGN, signal.default_int_handler])
def test_a_handler_comes_back_and_an_ignored_signal_stays_ignored(handler):
    signal.signal(signal.SIGINT, handler)
    with interrupts.ending_the_process():
        ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    assert ignored == (handler is signal.SIG_IGN)
    assert signal.getsignal(signal.SIGINT) is handler
