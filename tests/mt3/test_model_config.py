"""config.json of a model folder, and the layouts of released checkpoints."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from mt3.model_config import ModelConfig, read_model_config, recognise_layout
from mt3.segments import SegmentConfig
from musax.events.spec import EncodingSpec
from musax.model_config import ModelConfigError
from t5x.checkpoints import CheckpointError
from tests.tiny_mt3 import tiny_config
from tests.vectors import golden_dir

CONFIGS = {
    "piano": tiny_config(),
    "reference": tiny_config(EncodingSpec(ties=True), SegmentConfig(frames=256)),
    "onsets": tiny_config(EncodingSpec(offsets=False), SegmentConfig(8, 1, True, 4.0, 0.25)),
    "canonical": tiny_config(EncodingSpec(canonical=True)),
    "bfloat16": tiny_config().__class__(tiny_config().network.replace(dtype=jnp.bfloat16)),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_round_trip_through_a_file(name, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(CONFIGS[name].to_json()))
    assert read_model_config(path) == CONFIGS[name]
    assert read_model_config(json.loads(path.read_text())) == CONFIGS[name]


def test_only_changed_fields_of_the_network_are_written():
    network = CONFIGS["piano"].to_json()["network"]
    assert network["emb_dim"] == 16
    assert not {"dtype", "dropout_rate", "conv_channels"} & set(network)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"network": {"vocab_size": 128, "emb_dims": 3}}, "network.emb_dims.*'emb_dim'"),
        ({"target_length": 3}, "target_length.*'targets_length'"),
        ({"spec": {"ties": True}}, "spec.ties"),
        ({"spec": {"program_granularity": "fine"}}, "granularity 'fine'"),
        ({"segment_audio": "whole"}, "segment_audio='whole': expected one of 'own', 'context'"),
        ({"context_frames": 3, "segment_audio": "own"}, "context"),
        ({"input_norm": {"mean": 3}}, "input_norm.mean"),
        ({"spectrogram": {"lo_hz": 9000.0}}, "lo_hz"),
        ({"system": "drums"}, "\"system\" is 'drums', expected 'mt3'"),
        ({"format": 7}, "format=7: expected 1"),
        ({"network": {}}, "vocab_size"),
        ({"network": [1]}, r"network=\[1\]: expected an object"),
        ({"network": {"vocab_size": "128"}}, "network.vocab_size='128': expected a whole number"),
        ({"network": {"vocab_size": 128, "mlp_activations": 3}}, "expected a list of strings"),
        ({"network": {"vocab_size": 128, "dtype": "float33"}}, "network.dtype='float33'"),
        ({"targets_length": 12.5}, "targets_length=12.5: expected a whole number"),
        ({"spec": {"use_ties": "no"}}, "spec.use_ties='no': expected true or false"),
        ({"system": []}, r"\"system\" is \[\], expected 'mt3'"),
    ],
)
def test_wrong_fields_are_named(change, message, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(CONFIGS["piano"].to_json() | change))
    with pytest.raises(ModelConfigError, match=message) as error:
        read_model_config(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("content", ["", "[1]", "{"])
def test_files_that_hold_no_object(content, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(content)
    with pytest.raises(ModelConfigError, match=str(path)):
        read_model_config(path)
    with pytest.raises(ModelConfigError, match="absent"):
        read_model_config(tmp_path / "absent.json")


def released():
    return json.loads((golden_dir("mt3") / "param_trees.json").read_text())


@pytest.mark.parametrize("name", released())
def test_released_layouts_are_recognised(name):
    layout = released()[name]
    flat = {key: np.broadcast_to(np.float32(0), shape) for key, shape in layout["params"].items()}
    config = recognise_layout(traverse_util.unflatten_dict(flat, sep="/"), name)
    for field, value in layout["config"].items():
        found = getattr(config.network, field)
        assert found == (tuple(value) if isinstance(value, list) else value), field
    piano = name.startswith("ismir2021")
    assert config.vocabulary.num_velocity_bins == (127 if piano else 1)
    assert config.segment == SegmentConfig(frames=512 if piano else 256)
    assert config.spec == EncodingSpec(ties=not piano, granularity="flat" if piano else "full")
    assert config.targets_length == 1024


@pytest.mark.parametrize("change", ["rows", "missing"])
def test_other_checkpoints_ask_for_a_configuration(change):
    flat = {k: np.zeros(s) for k, s in small_release(1536).items()}
    if change == "rows":
        flat["decoder/token_embedder/embedding"] = np.zeros((384, 16))
    else:
        del flat["encoder/layers_0/attention/query/kernel"]
    with pytest.raises(CheckpointError, match=r"here.*config\.json"):
        recognise_layout(traverse_util.unflatten_dict(flat, sep="/"), "here")


def small_release(rows, dim=16, mlp=32):
    """Names and shapes of a release with one layer of width 16."""
    attention = {f"{k}/kernel": (dim, 64) for k in ("query", "key", "value")}
    attention["out/kernel"] = (64, dim)
    mlps = {"mlp/wi_0/kernel": (dim, mlp), "mlp/wi_1/kernel": (dim, mlp)}
    mlps["mlp/wo/kernel"] = (mlp, dim)
    encoder = {f"attention/{k}": v for k, v in attention.items()} | mlps
    encoder |= {f"pre_{k}_layer_norm/scale": (dim,) for k in ("attention", "mlp")}
    decoder = {f"self_attention/{k}": v for k, v in attention.items()} | mlps
    decoder |= {f"encoder_decoder_attention/{k}": v for k, v in attention.items()}
    norms = ("self_attention", "cross_attention", "mlp")
    decoder |= {f"pre_{k}_layer_norm/scale": (dim,) for k in norms}
    return (
        {f"encoder/layers_0/{k}": v for k, v in encoder.items()}
        | {f"decoder/layers_0/{k}": v for k, v in decoder.items()}
        | {
            "encoder/continuous_inputs_projection/kernel": (8, dim),
            "encoder/encoder_norm/scale": (dim,),
            "decoder/token_embedder/embedding": (rows, dim),
            "decoder/decoder_norm/scale": (dim,),
            "decoder/logits_dense/kernel": (dim, rows),
        }
    )


@pytest.mark.parametrize(
    ("part", "field", "value", "message"),
    [
        ("vocabulary", "steps_per_second", 0, "steps_per_second=0"),
        ("vocabulary", "max_shift_seconds", 1e308, "infinity|expected"),
        ("vocabulary", "num_velocity_bins", -1, "velocity"),
        ("network", "emb_dim", 10**9, "width 1000000000 are more than any"),
        (None, "segment_frames", 10**9, "100000000. frames of a segment"),
    ],
)
def test_sizes_that_cannot_be_are_told(part, field, value, message):
    values = json.loads(json.dumps(tiny_config().to_json()))
    (values if part is None else values.setdefault(part, {}))[field] = value
    with pytest.raises(ModelConfigError, match=f"config.json: .*({message})"):
        ModelConfig.from_json(values, "config.json")
