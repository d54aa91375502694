"""Model folders: finding, loading and writing them."""

import json
import shutil

import jax
import numpy as np
import pytest

from musax import pretrained
from musax.model_config import ModelConfigError
from musax.pretrained import PretrainedError
from t5x.checkpoints import CheckpointError, load_safetensors, save_safetensors

CONFIG = {"system": "mt3", "network": {}}
PARAMS = {"encoder": {"scale": np.arange(3, dtype=np.float32)}}


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """Two folders of models that come before the shipped ones."""
    shelves = [tmp_path / "first", tmp_path / "second"]
    monkeypatch.setenv("MUSAX_PRETRAINED", ":".join(map(str, shelves)))
    for name, readme in [("test-piano", "# Piano\n\nTiny piano.\n"), ("test-organ", "")]:
        pretrained.save_model_folder(shelves[0] / name, PARAMS, CONFIG, readme)
    pretrained.save_model_folder(shelves[1] / "test-piano", PARAMS, CONFIG, "Hidden.")
    return shelves[0]


def test_models_are_listed_with_their_cards(shelf):
    found = {model.name: model for model in pretrained.list_models()}
    assert found["test-piano"].summary == "Tiny piano."
    assert found["test-piano"].path == shelf / "test-piano"
    assert found["test-organ"].summary == found["test-organ"].licence == ""
    assert found["test-piano"].system == "mt3"
    assert found["test-piano"].tasks == ("transcribe",)
    assert found["test-piano"].size == (shelf / "test-piano" / "model.safetensors").stat().st_size
    assert list(found) == sorted(found)


def test_cards_give_a_whole_sentence_and_the_licence_of_the_data(shelf):
    card = """---
data_licence: "CC BY 4.0 (Maestro)"
tags: [piano]
---

# Piano

![a picture](a.png)

Notes of [pianos](https://e.org), from about 3.5 hours
of **real** recordings! It knows `no` drums.
"""
    (shelf / "test-piano" / "README.md").write_text(card)
    info = next(model for model in pretrained.list_models() if model.name == "test-piano")
    assert info.summary == "Notes of pianos, from about 3.5 hours of real recordings!"
    assert info.licence == "CC BY 4.0 (Maestro)"


def test_shipped_models_have_tasks_licences_and_defaults():
    for info in pretrained.list_models():
        if info.path.parent.name == "pretrained":
            assert info.tasks, info
            assert info.licence, info
            assert info.summary.endswith("."), info
            assert info.size > 1e5
    for task, names in pretrained.DEFAULT_MODELS.items():
        listed = [model.name for model in pretrained.list_models(task)]
        assert set(names) <= set(listed)
        assert all(
            task in pretrained.SYSTEMS[pretrained.system_of(pretrained.resolve(n))].tasks
            for n in listed
        )
    assert set(pretrained.DEFAULT_MODELS) == set(pretrained.TASKS)


def test_names_and_folders_resolve(shelf):
    assert pretrained.resolve("test-piano") == shelf / "test-piano"
    assert pretrained.resolve(shelf / "test-organ") == shelf / "test-organ"
    assert (
        pretrained.resolve(shelf / "test-organ" / "model.safetensors").name == "model.safetensors"
    )


@pytest.mark.parametrize("name", ["", "test-pian", "a/b", "../harp"])
def test_unknown_names_list_the_known_ones(shelf, name):
    with pytest.raises(PretrainedError, match="test-organ, test-piano") as error:
        pretrained.resolve(name)
    assert ("did you mean 'test-piano'?" in str(error.value)) == (name == "test-pian")


def test_the_class_of_the_system_loads_the_folder(shelf, monkeypatch):
    system = pretrained.System("tests.musax.test_pretrained:Recorder", ("transcribe",))
    monkeypatch.setitem(pretrained.SYSTEMS, "mt3", system)
    monkeypatch.setitem(pretrained.DEFAULT_MODELS, "transcribe", ("test-organ",))
    folder = shelf / "test-piano"
    assert pretrained.load("test-piano").folder == folder
    assert pretrained.load(folder / "model.safetensors").folder == folder / "model.safetensors"
    assert pretrained.load("test-piano", task="transcribe").folder == folder
    assert pretrained.load(task="transcribe").folder == shelf / "test-organ"
    plain = shelf / "released"
    plain.mkdir()
    assert pretrained.load(plain).folder == plain


def test_models_of_other_tasks_are_refused_before_anything_is_loaded(shelf):
    with pytest.raises(PretrainedError) as error:
        pretrained.load("test-organ", task="drums")
    assert str(error.value).startswith(
        "test-organ: a model of mt3 (transcribe); drums needs one of"
    )
    assert "drums-small" in str(error.value)
    for name in ("test-organ", None):
        with pytest.raises(PretrainedError, match="'transcibe': no such task; did you mean 'trans"):
            pretrained.load(name, task="transcibe")
    with pytest.raises(PretrainedError, match=r"'sing': no such task\. Known tasks: transcribe, "):
        pretrained.list_models("sing")
    with pytest.raises(PretrainedError, match="name of a model, or a task"):
        pretrained.load()
    with pytest.raises(PretrainedError, match="did you mean 'test-organ'"):
        pretrained.check_task("test-orga", "transcribe")
    assert pretrained.check_task("test-organ", "transcribe") == shelf / "test-organ"


class Recorder:
    def __init__(self, folder):
        self.folder = folder

    @classmethod
    def from_pretrained(cls, folder):
        return cls(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not readable JSON"),
        ("[]", "JSON object"),
        (
            '{"system": "mt4"}',
            r"config\.json: \"system\" is 'mt4'.*did you mean 'mt3'.*Known: cdcd",
        ),
        ("{}", "None"),
        ('{"system": []}', r'config\.json: "system" is \[\]: expected a system'),
        ('{"system": {"mt3": 1}}', '"system" is {'),
        ('{"system": 3}', '"system" is 3'),
        ("[" * 100_000, "not readable JSON"),
    ],
)
def test_damaged_configurations_are_named(shelf, text, message):
    path = shelf / "test-piano" / "config.json"
    path.write_text(text)
    with pytest.raises(PretrainedError, match=message) as error:
        pretrained.load("test-piano")
    assert "test-piano" in str(error.value)
    assert "\n" not in str(error.value)
    with pytest.raises(PretrainedError, match=message):
        pretrained.check_task("test-piano", "transcribe")
    info = next(model for model in pretrained.list_models() if model.name == "test-piano")
    assert (info.system, info.tasks) == ("?", ())


def test_a_folder_without_configuration_is_explained(tmp_path):
    with pytest.raises(PretrainedError, match=r"config\.json: missing.*model\.safetensors"):
        pretrained.read_config(tmp_path)


def test_saved_folders_hold_what_was_given(tmp_path):
    folder = pretrained.save_model_folder(
        tmp_path / "deep" / "model", PARAMS, CONFIG, "# Card\n", metadata={"steps": "7"}
    )
    assert sorted(p.name for p in folder.iterdir()) == sorted(pretrained.MODEL_FILES)
    params, metadata = load_safetensors(folder / "model.safetensors")
    np.testing.assert_array_equal(params["encoder"]["scale"], PARAMS["encoder"]["scale"])
    assert metadata == {"steps": "7"}
    assert json.loads((folder / "config.json").read_text()) == CONFIG
    assert (folder / "README.md").read_text() == "# Card\n"


def test_saving_again_replaces_the_files_and_keeps_others(tmp_path):
    folder = pretrained.save_model_folder(tmp_path / "model", PARAMS, CONFIG, "old")
    (folder / "notes.txt").write_text("mine")
    pretrained.save_model_folder(folder, PARAMS, CONFIG, "new")
    assert (folder / "README.md").read_text() == "new"
    assert (folder / "notes.txt").read_text() == "mine"
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_a_failed_save_leaves_nothing(tmp_path):
    with pytest.raises(TypeError):
        pretrained.save_model_folder(tmp_path / "m", PARAMS, {**CONFIG, "x": object()}, "card")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(PretrainedError, match="system"):
        pretrained.save_model_folder(tmp_path / "m", PARAMS, {}, "card")
    (tmp_path / "file").write_text("")
    with pytest.raises(PretrainedError, match="is a file"):
        pretrained.save_model_folder(tmp_path / "file", PARAMS, CONFIG, "card")


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("model", pretrained.list_models(), ids=lambda model: model.name)
def test_models_that_are_not_finite_are_refused(model, value, tmp_path):
    folder = tmp_path / model.name
    shutil.copytree(model.path, folder)
    params, metadata = load_safetensors(folder / "model.safetensors")
    params = jax.tree.map(lambda x: np.full_like(x, value), params)
    save_safetensors(folder / "model.safetensors", params, metadata)
    with pytest.raises(CheckpointError, match=f"{folder}: .* hold NaN or infinite numbers"):
        pretrained.load(folder)


def test_models_that_are_not_finite_are_not_written(tmp_path):
    params = {"encoder": {"scale": np.float16([1, 2, np.inf])}}
    with pytest.raises(CheckpointError, match=r"1 of 1 arrays .* such as encoder/scale"):
        pretrained.save_model_folder(tmp_path / "model", params, CONFIG, "")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("num_layers", 10**6, r"network.num_layers=1000000: expected at most 2\d, as many as the"),
        ("width", 10**12, r"network.width=1000000000000: expected a whole number below 2\*\*31"),
        ("embed_dim", 10**30, r"network.embed_dim=10+: expected a whole number below 2\*\*31"),
        ("dropout_rate", 10**400, r"network.dropout_rate=1000.*: expected a finite number"),
        ("num_fourier", -1, r"no network has these sizes"),
        ("vocab_size", 10**7, r"the model expects \(10000000, 8\)"),
        ("embed_dim", 10**9, r"network.embed_dim=1000000000: expected 16777216 or less"),
        ("num_heads", 0, r"network: num_heads=0: expected a positive number"),
    ],
)
def test_sizes_of_a_configuration_are_checked_before_a_network_is_built(
    field, value, message, tmp_path
):
    from tests import tiny_cdcd

    tiny_cdcd.save_tiny_model(tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    content = json.loads(path.read_text())
    content["network"][field] = value
    path.write_text(json.dumps(content))
    with pytest.raises((ModelConfigError, CheckpointError), match=message):
        pretrained.load(tmp_path / "model")
