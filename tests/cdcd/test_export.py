"""Model folders of runs; one is trained for a few steps, others are made up."""

import json

import jax
import numpy as np
import pytest

from cdcd import export as export_module
from cdcd.config import NoiseRange
from cdcd.contents import Bytes, Letters, Melody, Pieces
from cdcd.export import export
from cdcd.inference import Writer
from cdcd.text import text_task
from cdcd.warping import Warping
from musax import cli
from musax.events.melody import MelodyVocabulary
from musax.runs import TrainedRun
from t5x import train
from t5x.checkpoints import load_state
from t5x.data.features import Feature
from t5x.data.sources import FunctionSource
from t5x.data.tasks import Task
from t5x.data.vocabularies import PassThroughVocabulary
from tests.cdcd.tiny import clear_gin
from tests.piece_model import write_piece_model
from tests.tiny_cdcd import LENGTH, tiny_config, tiny_params

SIZES = {
    "LENGTH": 16,
    "TASK_FEATURE_LENGTHS": {"targets": 16},
    "TRAIN_STEPS": 4,
    "AVERAGE_DECAY": 0.9,
    "BATCH_SIZE": 4,
    "EMBED_DIM": 8,
    "WIDTH": 16,
    "LAYERS": 1,
    "HEADS": 2,
    "MLP_DIM": 24,
    "EVAL_PERIOD": 0,
}


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """MODEL_DIR of a run."""
    monkeypatch.setenv("MUSAX_CACHE_DIR", str(tmp_path / "cache"))
    for split in ("train", "validation"):
        (tmp_path / "data" / split).mkdir(parents=True)
        (tmp_path / "data" / split / "a.txt").write_text("the lazy dog jumps over " * 20)
    settings = SIZES | {"DATA_DIR": tmp_path / "data", "MODEL_DIR": tmp_path / "run"}
    flags = [f"--gin.{name}={value}" for name, value in settings.items()]
    assert train.main(["--gin_file=configs/cdcd/letters.gin", *flags]) == 0
    yield tmp_path / "run"
    clear_gin()


def test_a_run_becomes_a_model_of_its_averages(trained, tmp_path):
    card = tmp_path / "card.md"
    card.write_text("# A phrase\n")
    arguments = [str(trained), str(tmp_path / "model"), "--card", str(card)]
    assert cli.main(["export", *arguments]) == 0
    assert (tmp_path / "model" / "README.md").read_text() == "# A phrase\n"
    writer = Writer.from_pretrained(tmp_path / "model")
    assert writer.config.contents == Letters()
    assert writer.config.length == 16
    assert writer.config.noise == NoiseRange(0.5, 150.0)
    state = load_state(trained)
    averages = state["state"]["param_states"]["ema"]["trunk"]
    jax.tree.map(np.testing.assert_array_equal, writer.params["trunk"], averages)
    curves = state["flax_mutables"]["warp_ema"]
    jax.tree.map(np.testing.assert_array_equal, writer.params["warp"], dict(curves))
    assert np.any(writer.params["warp"]["lu"] != state["target"]["warp"]["lu"])
    assert len(writer.compose(steps=2)[0].text) == 16


# ------------------------------------------------------------------- what is written, of any model


@pytest.fixture
def run_of(monkeypatch):
    """Makes `load_run` return a run of a configuration whose tokens are of a task."""

    def make(config, task):
        params = tiny_params(config)
        made = TrainedRun(config.model(), params, task, task, config.length, 7)
        monkeypatch.setattr(export_module, "load_run", lambda run_dir, step: made)
        return params

    return make


def melody_like():
    return Task("m", FunctionSource({}), [], {"targets": Feature(MelodyVocabulary())})


def texts(tmp_path, vocabulary):
    return text_task(str(tmp_path), LENGTH, vocabulary, purpose="evaluate")


@pytest.mark.parametrize("kind", ["cdcd", "mdlm", "ar"])
def test_every_kind_is_read_as_written(kind, run_of, tmp_path):
    config = tiny_config(Melody(), kind, dropout_rate=0.1, dtype="bfloat16", remat_policy="full")
    params = run_of(config, melody_like())
    folder = export("run", tmp_path / "model", "# A card\n", dtype="float16")
    writer = Writer.from_pretrained(folder)
    assert writer.config.kind == kind
    assert writer.config.contents == Melody()
    network = writer.config.network
    assert (network.dropout_rate, network.dtype, network.remat_policy) == (0.0, "float32", "none")
    table = np.asarray(params["token_embed"]["embedding"])
    np.testing.assert_allclose(writer.params["token_embed"]["embedding"], table, rtol=1e-3)
    assert (folder / "README.md").read_text() == "# A card\n"


def test_noise_warping_and_self_conditioning_are_kept(run_of, tmp_path):
    run_of(tiny_config(), texts(tmp_path, "letters"))
    model = export_module.load_run("run", None).model
    model.warping, model.self_conditioning = Warping(enabled=False), False
    values = json.loads((export("run", tmp_path / "m", "") / "config.json").read_text())
    assert values["noise"] == {"low": 0.18, "high": 53.0}
    assert values["warping"] == {"enabled": False}
    assert values["self_conditioning"] is False
    assert values["tokens"] == {"kind": "letters"}
    writer = Writer.from_pretrained(tmp_path / "m")
    assert writer.config.contents == Letters()


def test_bytes_and_pieces(run_of, tmp_path):
    run_of(tiny_config(Bytes()), texts(tmp_path, "bytes"))
    assert Writer.from_pretrained(export("run", tmp_path / "b", "")).config.contents == Bytes()
    path = write_piece_model(tmp_path / "small.model", ["a cat and a dog"] * 20, 12)
    config = tiny_config(Pieces(path))
    run_of(config, texts(tmp_path, path))
    for _ in range(2):  # once more, into the folder that is there
        folder = export("run", tmp_path / "p", "")
    (tmp_path / "small.model").unlink()
    (made,) = Writer.from_pretrained(folder).compose(prompt="a cat", steps=2)
    assert made.text.startswith("a cat")


def test_tokens_that_nothing_is_known_of(run_of, tmp_path):
    feature = Feature(PassThroughVocabulary(30))
    run_of(tiny_config(), Task("t", FunctionSource({}), [], {"targets": feature}))
    with pytest.raises(ValueError, match=r"PassThroughVocabulary.*: expected the vocabulary"):
        export("run", tmp_path / "m", "")
