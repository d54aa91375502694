import json

import pytest

from cdcd.contents import Bytes, Letters, Melody, Pieces
from cdcd.model_config import MODELS, ModelConfig, kind_of, read_model_config
from cdcd.warping import Warping
from musax.model_config import ModelConfigError
from tests.piece_model import write_piece_model
from tests.tiny_cdcd import save_tiny_model, tiny_config


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("contents", [Letters(), Bytes(), Melody(90.0)])
def test_a_configuration_is_read_as_written(kind, contents):
    config = tiny_config(contents, kind)
    if kind != "cdcd":  # others have no noise
        config = ModelConfig(kind, config.length, config.network, contents)
    values = json.loads(json.dumps(config.to_json()))
    assert ModelConfig.from_json(values) == config
    assert "activation" not in values["network"]
    assert ("noise" in values) == (kind == "cdcd")
    assert kind_of(config.model()) == kind


def test_other_models_are_no_kind():
    with pytest.raises(ValueError, match="the model is a dict: expected one of CDCDModel, Masked"):
        kind_of({})


def test_the_warping_is_kept():
    config = tiny_config()
    values = config.to_json() | {"warping": {"enabled": False, "beta": [1, 2]}}
    read = ModelConfig.from_json(values)
    assert read.warping == Warping(enabled=False, beta=(1, 2))
    assert ModelConfig.from_json(json.loads(json.dumps(read.to_json()))) == read


def test_pieces_lie_in_the_folder(tmp_path):
    path = write_piece_model(tmp_path / "some.model", ["a cat and a dog"] * 20, 12)
    config = tiny_config(Pieces(path))
    folder = save_tiny_model(tmp_path / "folder", config)
    assert config.to_json()["tokens"] == {"kind": "pieces", "model": "some.model"}
    with pytest.raises(ModelConfigError, match=r"folder/config\.json: SentencePiece model .*some"):
        read_model_config(folder)
    (folder / "some.model").write_bytes((tmp_path / "some.model").read_bytes())
    assert read_model_config(folder).contents == Pieces(str(folder / "some.model"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"system": "mt3"}, "model.json: \"system\" is 'mt3', expected 'cdcd'"),
        ({"networks": {}}, "model.json: unknown field networks; did you mean 'network'"),
        ({"kind": "sedd"}, "model.json: kind='sedd': expected one of cdcd"),
        ({"kind": None}, "model.json: kind=None: expected a string"),
        ({"length": 0}, "model.json: length=0: expected a positive"),
        ({"length": "16"}, "length='16': expected a whole number"),
        ({"network": None}, "network=None: expected an object"),
        ({"network": {"vocab_size": 10}}, "model.json: network.vocab_size=10: expected 30"),
        ({"network": {"vocab_size": 30, "widht": 3}}, "network.widht; did you mean 'width'"),
        ({"network": {"vocab_size": 30, "width": 0}}, "model.json: network: width=0"),
        ({"tokens": {"kind": "lettres"}}, "tokens.kind='lettres': expected one of letters"),
        ({"tokens": {"kind": "letters", "size": 3}}, "unknown field tokens.size"),
        ({"tokens": {"kind": "melody", "tempo": -1}}, "tokens: tempo=-1: expected a positive"),
        ({"tokens": {"kind": "pieces"}}, "tokens.model=None: expected the name of a file"),
        ({"tokens": {"kind": "pieces", "model": "../x"}}, "tokens.model='../x'"),
        (
            {"network": {"vocab_size": 30, "num_layers": "4"}},
            "network.num_layers='4': expected a",
        ),
        ({"network": {"vocab_size": 30, "num_layers": []}}, r"network.num_layers=\[\]: expected a"),
        ({"warping": {"beta": [1]}}, r"warping.beta=\[1\]: expected a list of 2"),
        ({"noise": {"low": float("nan")}}, "noise.low=nan: expected a finite number"),
        ({"noise": {"low": 2, "high": 1}}, "model.json: noise: noise from low=2"),
        ({"warping": {"bins": 3}}, "unknown field warping.bins; did you mean 'num_bins'"),
        ({"self_conditioning": "yes"}, "self_conditioning='yes': expected true or false"),
    ],
)
def test_wrong_configurations(change, message):
    values = tiny_config().to_json() | change
    with pytest.raises(ModelConfigError, match=message):
        ModelConfig.from_json(values, "model.json")


def test_other_kinds_have_no_noise():
    values = tiny_config(kind="ar").to_json() | {"noise": {}}
    with pytest.raises(ModelConfigError, match="unknown field noise"):
        ModelConfig.from_json(values)
