import numpy as np
import pytest

from drums import checkpoints
from drums.features import DrumFeatures
from drums.inference import Transcriber
from drums.model_config import ModelConfig
from drums.network import OafDrumsConfig
from t5x.checkpoints import CheckpointError, save_safetensors
from tests.tiny_drum_model import tiny_variables


def flat(tree, prefix=()):
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from flat(value, (*prefix, name))
        else:
            yield (*prefix, name), value


def as_tree(variables):
    """The variables without the optimizer's slots, nested by '/'."""
    tree = {}
    for name, value in variables.items():
        if not name.endswith("/Adam"):
            *above, last = name.split("/")
            node = tree
            for part in above:
                node = node.setdefault(part, {})
            node[last] = value
    return tree


@pytest.fixture(scope="module")
def variables():
    """Variables as the TensorFlow checkpoint has them, unused ones included."""
    tree = tiny_variables(ModelConfig(OafDrumsConfig(), DrumFeatures()))
    found = {checkpoints.tf_name(names): value for names, value in flat(tree)}
    extra = ("global_step", "frame/conv0/weights", "offsets/fc_end/biases", "beta1_power")
    slots = {f"{name}/Adam": value for name, value in found.items()}
    return tree, {**found, **slots, **{name: np.zeros(3, np.float32) for name in extra}}


def test_names(variables):
    _, tf = variables
    lstm = "onsets/lstm/stack_bidirectional_rnn/cell_0/bidirectional_rnn/bw/basic_lstm_cell/kernel"
    assert tf[lstm].shape == (320, 256)
    assert checkpoints.our_name(lstm) == ("params", "onsets", "lstm", "bw", "kernel")
    for name in (
        "onsets/conv0/weights",
        "velocity/conv2/BatchNorm/moving_variance",
        "onsets/onset_logits/biases",
        "velocity/onset_velocities/weights",
    ):
        assert name in tf
        assert checkpoints.tf_name(checkpoints.our_name(name)) == name


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_imported_models_run(variables, tmp_path, suffix):
    tree, tf = variables
    path = tmp_path / f"variables{suffix}"
    if suffix == ".npz":
        np.savez(path, **tf)
    else:
        save_safetensors(path, as_tree(tf))
    folder = checkpoints.import_checkpoint(path, tmp_path / "oaf-drums")
    model = Transcriber.from_pretrained(folder)
    assert model.config.is_oaf
    assert model.config.features.hop_width == 512
    loaded = dict(flat(model._predict._variables))
    for names, value in flat(tree):
        np.testing.assert_array_equal(loaded[names], value)
    audio = np.random.default_rng(0).normal(0, 0.1, 30000).astype(np.float32)
    assert len(model.outputs(audio, 44100).onsets) == 1 + 30000 // 512


def test_missing_variables_are_named(variables, tmp_path):
    _, tf = variables
    kept = {k: v for k, v in tf.items() if not k.startswith("velocity/fc_end")}
    np.savez(tmp_path / "v.npz", **kept)
    with pytest.raises(CheckpointError, match=r"missing: params/velocity/fc_end/biases"):
        checkpoints.import_checkpoint(tmp_path / "v.npz", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_other_files(tmp_path):
    (tmp_path / "v.npz").write_bytes(b"junk")
    with pytest.raises(CheckpointError, match=r"v\.npz: not an \.npz"):
        checkpoints.read_variables(tmp_path / "v.npz")
