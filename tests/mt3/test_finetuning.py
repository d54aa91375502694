"""The guide's lines on own recordings, run as they are written, for two steps."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from musax.audio import save_audio
from musax.cli import main
from musax.midi import load_midi, save_midi
from musax.notes import make_notes
from musax.rendering.virtual_piano import VirtualPiano
from tests.running import run_main

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "mt3.md"
FEW_STEPS = [f"--gin.{name}=2" for name in ("TRAIN_STEPS", "DECAY_STEPS", "BATCH_SIZE")]


def lines():
    """The commands of the section, as arguments of `musax`."""
    section = GUIDE.read_text().partition("### Fine-tune on your recordings")[2]
    block = re.search(r"```shell\n(.*?)```", section, re.DOTALL)
    assert block is not None
    return [shlex.split(line) for line in block.group(1).replace("\\\n", " ").splitlines()]


@pytest.mark.slow
def test_the_guides_lines_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("recordings").mkdir()
    onset = np.arange(0.5, 18.0, 0.5)
    notes = make_notes(onset, onset + 0.4, 60 + np.arange(len(onset)) % 12)
    audio = VirtualPiano(np.random.default_rng(0), 16000, longest_s=1.0).render(notes, seconds=20.0)
    for name in ("a", "b"):
        save_audio(f"recordings/{name}.wav", audio, 16000)
        save_midi(f"recordings/{name}.mid", notes)
    save_audio("song.wav", audio, 16000)
    for command in lines():
        assert command[0] == "musax"
        more = FEW_STEPS if command[1] == "train" else []
        status, printed = run_main(main, *command[1:], *more)
        assert status == 0, printed
    # Two steps leave the model that it began with: it hears the notes.
    assert abs(len(load_midi("song.mid")) - len(notes)) < 12
