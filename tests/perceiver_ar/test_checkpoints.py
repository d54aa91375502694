import json
import sys

import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from perceiver_ar import checkpoints
from perceiver_ar.config import PerceiverARConfig
from t5x.checkpoints import CheckpointError, load_safetensors
from tests.perceiver_ar.reference import ABSOLUTE, TINY, tiny


def same(a, b):
    a, b = flatten_dict(dict(a)), flatten_dict(dict(b))
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name])


@pytest.mark.parametrize(
    "changes",
    [
        ABSOLUTE,
        {"initial_query_embed_style": "mlp"},
        {"scan_layers": True},
        {"additional_cross_attend_after_layers": (1,)},
    ],
)
def test_there_and_back(changes):
    config, _, params = tiny(**changes)
    theirs = checkpoints.to_haiku(params, config)
    assert "perceiver_ar/~/self_attention_1/attention/linear_3:w" in theirs
    same(checkpoints.from_haiku(theirs, config), params)


def test_nested_dicts_as_haiku_has_them():
    config, _, params = tiny()
    nested = {}
    for name, value in checkpoints.to_haiku(params, config).items():
        module, _, last = name.partition(":")
        nested.setdefault(module, {})[last] = value
    same(checkpoints.from_haiku(nested, config), params)


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_files(tmp_path, suffix, monkeypatch):
    config, _, params = tiny()
    theirs = checkpoints.to_haiku(params, config)
    path = tmp_path / f"params.{suffix}"
    if suffix == "npz":
        np.savez(path, **theirs)
    else:
        from safetensors.numpy import save_file

        save_file(theirs, path)
    (tmp_path / "config.json").write_text(json.dumps(TINY))
    out = tmp_path / "ours.safetensors"
    monkeypatch.setattr(sys, "argv", ["x", str(path), str(tmp_path / "config.json"), str(out)])
    checkpoints.main()
    same(load_safetensors(out)[0], params)


def test_everything_that_does_not_fit_is_named():
    config, _, params = tiny()
    theirs = checkpoints.to_haiku(params, config)
    del theirs["perceiver_ar/~/linear:b"]
    theirs["perceiver_ar/~/self_attention_2/layer_norm:scale"] = np.ones(16)
    theirs["perceiver_ar/~/logits:w"] = np.ones((3, 3))
    with pytest.raises(CheckpointError) as error:
        checkpoints.from_haiku(theirs, config)
    for part in (
        "missing: perceiver_ar/~/linear:b",
        "left over: perceiver_ar/~/self_attention_2/layer_norm:scale",
        "logits:w is (3, 3), expected (16, 19)",
    ):
        assert part in str(error.value)


def test_unknown_names_and_unreadable_files_are_said(tmp_path):
    config = PerceiverARConfig(**{**TINY, "num_latents_per_position": 2})
    with pytest.raises(CheckpointError, match="num_latents_per_position"):
        checkpoints.from_haiku({}, config)
    path = tmp_path / "broken.npz"
    path.write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match=r"broken\.npz"):
        checkpoints.read_haiku(path)
