"""Exported programs: the same results without the model's code."""

import functools
import json
import os
import subprocess
import sys

import gin
import jax
import numpy as np
import pytest

from t5x import decoding, export, export_lib, models, utils
from t5x.checkpoints import save_safetensors
from t5x.data import ByteVocabulary, PassThroughVocabulary
from t5x.examples.t5 import network
from t5x.files import read_json_lines
from t5x.gin_utils import GinError
from t5x.run_exported import FORMAT, ExportedModel
from t5x.run_exported import main as run_exported
from tests.t5x.networks import TINY, tiny_t5

LENGTHS = {"inputs": 7, "targets": 6}

pytest.importorskip("flatbuffers", reason="jax.export serializes with flatbuffers")


GREEDY = functools.partial(decoding.temperature_sample, temperature=0.0)


def make_model(decode_fn=GREEDY):
    vocabulary = PassThroughVocabulary(TINY.vocab_size, 1)
    return models.EncoderDecoderModel(
        network.Transformer(TINY), vocabulary, vocabulary, None, decode_fn
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(checkpoint, parameters, batch)."""
    _, params, batch = tiny_t5(batch=3)
    path = tmp_path_factory.mktemp("trained") / "model.safetensors"
    save_safetensors(path, jax.device_get(params))
    return path, params, batch


def save(trained, folder, **options):
    arguments = {
        "model": make_model(),
        "restore_checkpoint_cfg": utils.RestoreCheckpointConfig(str(trained[0]), "specific"),
        "output_dir": str(folder),
        "task_feature_lengths": LENGTHS,
        "native_lowering_platforms": ["cpu"],
    }
    return export_lib.save(**{**arguments, **options})


@pytest.mark.parametrize("ask", [len, lambda tokens: 2 if tokens.shape[0] > 2 else 1])
def test_models_that_ask_for_the_batch_size_need_one(trained, tmp_path, ask):
    model = make_model()

    def predict(params, batch, **options):
        tokens = batch["encoder_input_tokens"]
        return tokens * ask(tokens), {}

    model.predict_batch_with_aux = predict
    with pytest.raises(GinError, match=r"(?s)any batch size.*give save.batch_size"):
        save(trained, tmp_path, model=model)
    assert not list(tmp_path.iterdir())
    save(trained, tmp_path, model=model, batch_size=3)


ALONE = """
import json, sys
import numpy as np
from t5x.run_exported import FORMAT, ExportedModel
model = ExportedModel(sys.argv[1])
with np.load(sys.argv[2]) as inputs:
    batch = dict(inputs)
outputs = {f"{f}/{k}": v for f in model.functions for k, v in model(f, batch).items()}
np.savez(sys.argv[3], **outputs)
ours = {m for m in sys.modules if m.split(".")[0] in ("t5x", "musax", "mt3", "flax", "gin")}
assert ours == {"t5x", "t5x.moved", "t5x.unsupported", "t5x.run_exported"}, ours
assert "tensorflow" not in sys.modules
"""


def test_any_batch_size_without_the_models_code(trained, tmp_path):
    _, params, batch = trained
    folder = save(trained, tmp_path, validation_examples=[batch])
    assert os.path.exists(f"{folder}/params.safetensors")
    np.savez(tmp_path / "in.npz", **batch)
    command = [sys.executable, "-c", ALONE, folder, tmp_path / "in.npz", tmp_path / "out.npz"]
    subprocess.run(command, check=True)
    with np.load(tmp_path / "out.npz") as file:
        outputs = dict(file)
    model = make_model()
    prediction, aux = jax.jit(model.predict_batch_with_aux)(params, batch)
    np.testing.assert_array_equal(outputs["predict/prediction"], prediction)
    np.testing.assert_allclose(outputs["predict/scores"], aux["scores"], 1e-4, 1e-4)
    expected = jax.jit(model.score_batch)(params, batch)
    np.testing.assert_allclose(outputs["score/score"], expected, 1e-4, 1e-4)
    # What the other rows are makes no difference, nor how many there are.
    one = {name: x[1:2] for name, x in batch.items()}
    np.testing.assert_array_equal(
        ExportedModel(folder)("predict", one)["prediction"], prediction[1:2]
    )


def test_parameters_may_be_inside(trained, tmp_path):
    _, params, batch = trained
    folder = save(trained, tmp_path, params_inside=True, inference_mode="score")
    assert not os.path.exists(f"{folder}/params.safetensors")
    expected = jax.jit(make_model().score_batch)(params, batch)
    np.testing.assert_allclose(ExportedModel(folder)("score", batch)["score"], expected, 1e-4, 1e-4)


def test_fixed_batch_size_cuts_and_fills(trained, tmp_path):
    _, params, batch = trained
    options = {"model": make_model(decoding.beam_search), "batch_size": 2}
    folder = save(trained, tmp_path, inference_mode="predict", **options)
    assert sorted(os.listdir(folder)) == [
        "params.safetensors",
        "predict.bin",
        "predict.stablehlo",
        "signature.json",
    ]
    exported = ExportedModel(folder)
    inputs = exported.signature["functions"]["predict"]["inputs"]
    assert inputs["encoder_input_tokens"] == {"shape": [2, 7], "dtype": "int32", "optional": False}
    assert inputs["decoder_input_tokens"]["optional"]
    got = exported("predict", {"encoder_input_tokens": batch["encoder_input_tokens"]})
    expected = jax.jit(make_model(decoding.beam_search).predict_batch)(params, batch)
    np.testing.assert_array_equal(got["prediction"], expected)


@pytest.mark.slow
def test_command_line_takes_text_and_gives_text(tmp_path, capsys):
    config = network.T5Config(**{**vars(TINY), "vocab_size": 384})
    _, params, _ = tiny_t5(config)
    path = tmp_path / "model.safetensors"
    save_safetensors(path, jax.device_get(params))
    model = models.EncoderDecoderModel(
        network.Transformer(config),
        ByteVocabulary(),
        ByteVocabulary(),
        None,
        GREEDY,
    )
    folder = save((path,), tmp_path, model=model)
    capsys.readouterr()
    (tmp_path / "in.jsonl").write_text(
        '{"inputs": "héllo", "targets": "ab"}\n{"inputs": "ab", "targets": [100, 1]}\n'
    )
    command = [folder, f"--inputs={tmp_path}/in.jsonl"]
    assert run_exported([*command, "--function=score"]) == 0
    scores = [json.loads(line)["score"] for line in capsys.readouterr().out.splitlines()]
    batch = {
        "encoder_input_tokens": [
            [107, 198, 172, 111, 111, 114, 1],
            [100, 101, 1, 0, 0, 0, 0],
        ],
        "decoder_target_tokens": [[100, 101, 1, 0, 0, 0], [100, 1, 0, 0, 0, 0]],
        "decoder_input_tokens": [[0, 100, 101, 1, 0, 0], [0, 100, 1, 0, 0, 0]],
        "decoder_loss_weights": [[1, 1, 1, 0, 0, 0], [1, 1, 0, 0, 0, 0]],
    }
    batch = {name: np.asarray(x, np.int32) for name, x in batch.items()}
    np.testing.assert_allclose(scores, model.score_batch(params, batch), 1e-4, 1e-4)
    assert run_exported([*command, f"--output={tmp_path}/out.jsonl"]) == 0
    lines = read_json_lines(tmp_path / "out.jsonl")
    expected = model.predict_batch(params, batch)
    assert [line["prediction"] for line in lines] == [
        ByteVocabulary().decode(row.tolist()) for row in np.asarray(expected)
    ]
    assert run_exported([folder]) == 0
    assert json.loads(capsys.readouterr().out)["task_features"]["inputs"]["length"] == 7


def test_mistakes_are_told(trained, tmp_path, capsys):
    folder = save(trained, tmp_path, inference_mode="score")
    exported, batch = ExportedModel(folder), trained[2]
    for message, name, inputs in (
        (r"no function 'predict', only \['score'\]", "predict", batch),
        (r"no inputs \['tokens'\]", "score", {"tokens": [[1]]}),
        (r"missing inputs \['decoder_", "score", {"encoder_input_tokens": np.ones((1, 7))}),
        (
            r"shape \(3, 6\), expected \(3, 7\)",
            "score",
            {**batch, "encoder_input_tokens": np.ones((3, 6))},
        ),
    ):
        with pytest.raises(ValueError, match=message):
            exported(name, inputs)
    with pytest.raises(GinError, match="exists; remove it"):
        save(trained, tmp_path)
    with pytest.raises(GinError, match="inference_mode is 'guess'"):
        save(trained, tmp_path / "a", inference_mode="guess")
    with pytest.raises(GinError, match="create_preprocessor_fn builds upstream's TensorFlow"):
        save(trained, tmp_path / "a", create_preprocessor_fn=len)
    assert run_exported([str(tmp_path)]) == 2
    assert "signature.json: no such file" in capsys.readouterr().err


def test_command_line(trained, tmp_path, capsys):
    (tmp_path / "t5.gin").write_text(
        "from __gin__ import dynamic_registration\n"
        "from t5x import data\n"
        "from t5x import decoding\n"
        "from t5x import models\n"
        "from t5x.examples.t5 import network\n"
        "include 't5x/examples/t5/t5_1_1/tiny.gin'\n"
        "include 't5x/configs/runs/export.gin'\n"
        "VOCABULARY = @data.PassThroughVocabulary()\n"
        "data.PassThroughVocabulary.size = 24\n"
        "data.PassThroughVocabulary.eos_id = 1\n"
        "models.EncoderDecoderModel.decode_fn = @decoding.temperature_sample\n"
        "decoding.temperature_sample.temperature = 0.0\n"
        "network.T5Config:\n"
        "  vocab_size = 24\n  emb_dim = 16\n  num_heads = 2\n  head_dim = 8\n  mlp_dim = 24\n"
        "  num_encoder_layers = 1\n  num_decoder_layers = 1\n"
    )
    flags = [
        f"--gin_file={tmp_path}/t5.gin",
        "--gin.TASK_FEATURE_LENGTHS={'inputs': 7, 'targets': 6}",
        f"--gin.CHECKPOINT_PATH={trained[0]}",
        f"--gin.EXPORT_OUTPUT_DIR={tmp_path}/exported",
        "--gin.BATCH_SIZE=3",
    ]
    try:
        assert export.main([*flags, "--dry_run"]) == 0
        assert "encoder_input_tokens" in capsys.readouterr().out
        assert not os.path.exists(tmp_path / "exported")
        assert export.main(flags) == 0
    finally:
        gin.clear_config()
        gin.config._LOCATION_PREFIXES[:] = [""]
    exported = ExportedModel(tmp_path / "exported" / "model")
    np.testing.assert_array_equal(
        exported("predict", trained[2])["prediction"],
        jax.jit(make_model().predict_batch)(trained[1], trained[2]),
    )
    assert exported.signature["platforms"] == ["cpu", "cuda", "tpu"]


@pytest.mark.parametrize("batch_size", [None, 3])
def test_saved_model(trained, tmp_path, batch_size):
    tf = pytest.importorskip("tensorflow")
    _, params, batch = trained
    try:
        folder = save(trained, tmp_path, saved_model=True, batch_size=batch_size)
    except GinError as error:
        assert not list(tmp_path.iterdir())
        pytest.skip(str(error))
    loaded = tf.saved_model.load(folder)
    tensors = {name: tf.constant(x) for name, x in batch.items()}
    got = loaded.signatures["predict"](seed=tf.constant(0, tf.uint32), **tensors)
    np.testing.assert_array_equal(got["prediction"], make_model().predict_batch(params, batch))
    got = loaded.signatures["score"](seed=tf.constant(0, tf.uint32), **tensors)
    np.testing.assert_allclose(got["score"], make_model().score_batch(params, batch), 1e-4, 1e-4)


def test_saved_model_without_tensorflow_says_what_to_install(trained, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(GinError, match="extra `seqio`"):
        save(trained, tmp_path, saved_model=True)
    assert not list(tmp_path.iterdir())


SIGNATURE = {
    "format": FORMAT,
    "functions": {"predict": {"file": "../x", "inputs": {}}},
    "params_file": "/etc/passwd",
    "batch_size": None,
    "task_features": None,
}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "format None"),
        ("{", "not JSON"),
        (json.dumps(SIGNATURE | {"format": 0}), "format 0"),
        (json.dumps(SIGNATURE | {"functions": {"predict": 3}}), "functions.predict lacks"),
        (json.dumps(SIGNATURE | {"batch_size": "x"}), "batch_size is missing or of another kind"),
        (json.dumps({"format": FORMAT}), "functions is missing"),
    ],
)
def test_signatures_that_are_wrong_are_told(text, message, tmp_path):
    (tmp_path / "signature.json").write_text(text)
    with pytest.raises(ValueError, match=f"signature.json: .*{message}"):
        ExportedModel(tmp_path)


def test_a_signature_names_files_of_its_folder_alone(tmp_path):
    (tmp_path / "signature.json").write_text(json.dumps(SIGNATURE))
    model = ExportedModel(tmp_path)
    with pytest.raises(ValueError, match=r"'\.\./x' is no name of a file in the folder"):
        model("predict", {"x": np.zeros(1)})
    with pytest.raises(ValueError, match=r"'/etc/passwd' is no name of a file in the folder"):
        _ = model.params
