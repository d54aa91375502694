"""The steps of MT3's notebook, as the guide spells them out."""

import re
from pathlib import Path

import gin
import numpy as np
import pytest

from mt3.inference import Transcriber
from mt3.model_config import ModelConfig
from mt3.network import T5Config
from mt3.segments import SegmentConfig
from mt3.vocabularies import VocabularyConfig
from musax.events.spec import NOTES_WITH_TIES
from t5x import checkpoints
from tests.tiny_mt3 import tiny_params

GUIDE = Path(__file__).resolve().parent.parent.parent / "docs" / "mt3.md"
SIZES = {
    "emb_dim": 8,
    "num_heads": 2,
    "head_dim": 4,
    "mlp_dim": 8,
    "num_encoder_layers": 1,
    "num_decoder_layers": 1,
}


@pytest.fixture(scope="module")
def inference_model():
    """The class in the guide's code block."""
    section = GUIDE.read_text().partition("### Step by step, as in MT3's notebook")[2]
    block = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert block is not None
    names = {}
    exec(block.group(1), names)
    gin.clear_config()
    yield names["InferenceModel"]
    gin.clear_config()
    gin.config._LOCATION_PREFIXES[:] = [""]


def test_the_guides_steps_are_those_of_the_transcriber(inference_model, tmp_path):
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
    model = inference_model(tmp_path / "checkpoint_5", "mt3", sizes)
    audio = np.random.default_rng(0).normal(0, 0.1, 256 * 128 + 5000).astype(np.float32)
    notes = model(audio)
    reference = Transcriber(config, params, "tiny").transcribe(
        audio, 16000, decode="t5x_beam1", max_dangling_seconds=None, batch_size=2
    )
    assert len(notes)
    assert sorted(notes.tolist()) == sorted(reference.notes.tolist())
