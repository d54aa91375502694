"""The steps of MT3's notebook, as the guide spells them out."""

import re
from pathlib import Path
from typing import Any

import gin
import numpy as np
import pytest
import soundfile

from mt3.inference import Transcriber
from mt3.model_config import ModelConfig
from mt3.network import T5Config
from mt3.segments import SegmentConfig
from mt3.vocabularies import VocabularyConfig
from musax.events.spec import NOTES_WITH_TIES
from musax.midi import load_midi
from t5x import checkpoints
from tests.tiny_mt3 import tiny_params

GUIDE = Path(__file__).resolve().parent.parent.parent / "docs" / "mt3.md"
SIZES: dict[str, Any] = {
    "emb_dim": 8,
    "num_heads": 2,
    "head_dim": 4,
    "mlp_dim": 8,
    "num_encoder_layers": 1,
    "num_decoder_layers": 1,
}


@pytest.fixture
def blocks():
    """The guide's code blocks: the class, and its use."""
    section = GUIDE.read_text().partition("### Step by step, as in MT3's notebook")[2]
    found = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    gin.clear_config()
    yield found[:2]
    gin.clear_config()
    gin.config._LOCATION_PREFIXES[:] = [""]


def test_the_guides_steps_are_those_of_the_transcriber(blocks, tmp_path, monkeypatch):
    config = ModelConfig(
        network=T5Config(vocab_size=1536, mlp_activations=("gelu", "linear"), **SIZES),
        vocabulary=VocabularyConfig(num_velocity_bins=1),
        segment=SegmentConfig(frames=256),
        targets_length=1024,
        spec=NOTES_WITH_TIES,
    )
    params = tiny_params(config)
    manager = checkpoints.CheckpointManager(tmp_path)
    manager.save(5, {"target": params, "state": {"step": np.int32(5)}})
    manager.wait()
    manager.close()
    sizes = [f"network.T5Config.{name} = {value}" for name, value in SIZES.items()]
    names: dict[str, Any] = {}
    exec(blocks[0], names)
    model = names["InferenceModel"](tmp_path / "checkpoint_5", "mt3", sizes)
    audio = np.random.default_rng(0).normal(0, 0.1, 256 * 128 + 5000).astype(np.float32)
    notes = model(audio)
    reference = Transcriber(config, params, "tiny").transcribe(
        audio,
        16000,
        decode="t5x_beam1",
        max_dangling_seconds=None,
        batch_size=2,
        velocity=None,
    )
    assert len(notes)
    assert sorted(notes.tolist()) == sorted(reference.notes.tolist())

    monkeypatch.chdir(tmp_path)
    soundfile.write("song.wav", audio, 16000, subtype="FLOAT")
    monkeypatch.setitem(names, "InferenceModel", {"checkpoints/mt3": model}.get)
    exec(blocks[1], names)
    assert len(load_midi("song.mid")) > 0
