"""Inference over a data set: every example once, in order, whatever happens to the process."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import gin
import jax
import numpy as np
import pytest

from t5x import infer as infer_script
from t5x import utils
from t5x.checkpoints import save_safetensors
from t5x.data import ByteVocabulary, Feature, Task
from t5x.files import read_json_lines
from t5x.gin_utils import GinError
from t5x.inference.data import TaskReader
from t5x.inference.writing import write_inferences_to_file
from t5x.partitioning import PjitPartitioner
from tests.t5x import toy

LENGTHS = {"targets": 8}
SHARD = "-00000-of-00001"


@pytest.fixture(scope="module")
def params():
    model = toy.ToyModel(None)
    return model.get_initial_variables(jax.random.PRNGKey(0), {"decoder_input_tokens": (1, 8)})[
        "params"
    ]


@pytest.fixture(scope="module")
def checkpoint(params, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    save_safetensors(path, jax.device_get(params))
    return path


def infer(checkpoint, output, mode="predict", **options):
    arguments = {
        "model": toy.ToyModel(None),
        "dataset_cfg": utils.DatasetConfig(toy.TASK, LENGTHS, "validation", 4, False, seed=0),
        "restore_checkpoint_cfg": utils.RestoreCheckpointConfig(str(checkpoint), "specific"),
        "partitioner": PjitPartitioner(1),
        "output_dir": str(output),
        "checkpoint_period": 1,
        "summarize_config_fn": None,
    }
    return infer_script.infer(mode=mode, **{**arguments, **options})


def whole_batch():
    rows = [example["targets"] for example in toy.examples(16, 1)]
    targets = np.stack([np.pad(row, (0, 8 - len(row))) for row in rows])
    return {
        "decoder_target_tokens": targets,
        "decoder_input_tokens": np.pad(targets, ((0, 0), (1, 0)))[:, :-1],
        "decoder_loss_weights": (targets > 0).astype(np.int32),
    }


@pytest.mark.parametrize(("period", "chunked"), [(1, True), (3, False), (100, True)])
def test_predictions_in_order_with_ids(checkpoint, params, tmp_path, period, chunked):
    outputs = infer(checkpoint, tmp_path, checkpoint_period=period, merge_chunked_results=chunked)
    name = f"{toy.TASK}-predict.jsonl{SHARD}"
    if chunked:
        assert outputs == [str(tmp_path / name)]
        assert sorted(p.name for p in tmp_path.iterdir()) == [name, f"{name}.COMPLETED"]
        lines = read_json_lines(outputs[0])
    else:
        chunks = sorted(tmp_path.glob(f"tmp-*/{name}-chunk?????"))
        assert len(chunks) == 2
        lines = [line for chunk in chunks for line in read_json_lines(chunk)]
    assert [line["id"] for line in lines] == list(range(16))
    expected = toy.ToyModel(None).predict_batch(params, whole_batch())
    assert [line["prediction"] for line in lines] == expected.tolist()


def test_scores_and_auxiliary_values(checkpoint, params, tmp_path):
    model, batch = toy.ToyModel(None), whole_batch()
    lines = read_json_lines(infer(checkpoint, tmp_path, "score")[0])
    np.testing.assert_allclose(
        [line["score"] for line in lines], model.score_batch(params, batch), rtol=1e-5
    )
    lines = read_json_lines(infer(checkpoint, tmp_path, "predict_with_aux")[0])
    predictions, aux = model.predict_batch_with_aux(params, batch)
    assert [line["prediction"] for line in lines] == predictions.tolist()
    np.testing.assert_allclose([line["aux"]["scores"] for line in lines], aux["scores"], rtol=1e-5)


def test_shards_share_the_examples(checkpoint, tmp_path):
    ids = []
    for shard in range(3):
        output = infer(checkpoint, tmp_path, shard_id=shard, num_shards=3)
        assert output[0].endswith(f"-0000{shard}-of-00003")
        ids.append([line["id"] for line in read_json_lines(output[0])])
    assert ids == [list(range(shard, 16, 3)) for shard in range(3)]
    with pytest.raises(ValueError, match=r"shard_id=3 is not in \[0, num_shards=3\)"):
        infer(checkpoint, tmp_path, shard_id=3, num_shards=3)


KILLED = """
import os, signal, sys
from t5x.infer import write_inferences_to_file
from tests.t5x.test_infer import infer

def write(path, inferences, examples, mode, vocabulary):
    if path.endswith(sys.argv[3]):
        open(path, "w").write('{"id": 8, "predic')
        os.kill(os.getpid(), signal.SIGKILL)
    write_inferences_to_file(path, inferences, examples, mode, vocabulary)

infer(sys.argv[1], sys.argv[2], write_fn=write)
"""


def test_kill_9_loses_doubles_and_repeats_nothing(checkpoint, tmp_path):
    whole = infer(checkpoint, tmp_path / "whole")[0]
    command = [sys.executable, "-c", KILLED, str(checkpoint), str(tmp_path / "killed")]
    process = subprocess.run([*command, "chunk00002"], check=False)
    assert process.returncode == -signal.SIGKILL

    def interrupted(path, inferences, examples, mode, vocabulary):
        if path.endswith("chunk00003"):
            Path(path).write_text('{"id": 12')
            raise KeyboardInterrupt
        write_inferences_to_file(path, inferences, examples, mode, vocabulary)

    with pytest.raises(KeyboardInterrupt):
        infer(checkpoint, tmp_path / "killed", write_fn=interrupted)
    inferred = []

    def write(path, inferences, examples, mode, vocabulary):
        inferred.extend(example["_id"] for example in examples)
        write_inferences_to_file(path, inferences, examples, mode, vocabulary)

    output = infer(checkpoint, tmp_path / "killed", write_fn=write)[0]
    assert inferred == [12, 13, 14, 15]
    with open(output, "rb") as a, open(whole, "rb") as b:
        assert a.read() == b.read()
    # And once it is done, nothing is done again.
    infer(checkpoint, tmp_path / "killed", write_fn=write)
    assert len(inferred) == 4


def test_output_of_another_configuration_is_not_continued(checkpoint, tmp_path):
    infer(checkpoint, tmp_path)
    with pytest.raises(GinError, match="checkpoint_period: 1 there, 2 now"):
        infer(checkpoint, tmp_path, checkpoint_period=2)


@pytest.mark.parametrize(
    ("message", "options"),
    [
        ("mode is 'guess'", {"mode": "guess"}),
        ("checkpoint_period is 0", {"checkpoint_period": 0}),
        (
            "no task_feature_lengths",
            {"dataset_cfg": utils.DatasetConfig(toy.TASK, None, "validation", 4, False)},
        ),
        (
            "pack=True",
            {"dataset_cfg": utils.DatasetConfig(toy.TASK, LENGTHS, "train", 4, False, pack=True)},
        ),
    ],
)
def test_clear_errors(checkpoint, tmp_path, message, options):
    with pytest.raises(GinError, match=message):
        infer(checkpoint, tmp_path, **options)


class OtherVocabulary(toy.ToyModel):
    output_vocabulary = ByteVocabulary()


def test_another_vocabulary_than_the_models_is_named(checkpoint, tmp_path):
    with pytest.raises(GinError, match=r"output vocabulary of the data.*is not the model's"):
        infer(checkpoint, tmp_path, model=OtherVocabulary(None))


def test_reader_continues_inside_a_raw_example():
    rows = {"test": [{"n": 2}, {"n": 0}, {"n": 1}, {"n": 3}]}
    task = Task("parts", rows, [lambda example: [{"x": i} for i in range(int(example["n"]))]])
    reader = TaskReader(task, utils.DatasetConfig(task, {}, "test", 1, False), 0, 1)
    everything = list(reader.read())
    assert [(e["_id"], e.get("_part")) for e, _ in everything] == [
        (0, 0),
        (0, 1),
        (2, None),
        (3, 0),
        (3, 1),
        (3, 2),
    ]
    for number, (_, position) in enumerate(everything, start=1):
        assert list(reader.read(position)) == everything[number:]


def test_text_files_as_tasks(tmp_path):
    features = {"targets": Feature(ByteVocabulary())}
    (tmp_path / "a.txt").write_text("ab\nc\n")
    (tmp_path / "b.jsonl").write_text('{"question": "é"}\n{"question": "x", "answer": "y"}\n')
    cfg = utils.DatasetConfig(
        infer_script.create_task_from_text_file(tmp_path / "a.txt", features),
        {"targets": 4},
        "infer",
        2,
        False,
    )
    assert cfg.name == infer_script.create_task_from_text_file(tmp_path / "a.txt", features)
    read = [example for example, _ in infer_script.make_readers(cfg, 0, 1)[0].read()]
    assert [e["targets"].tolist() for e in read] == [[100, 101, 1], [102, 1]]
    assert [e["targets_pretokenized"] for e in read] == ["ab", "c"]
    features = {"inputs": Feature(ByteVocabulary()), "targets": Feature(ByteVocabulary())}
    cfg.mixture_or_task_name = infer_script.create_task_from_text_file(
        [tmp_path / "b.jsonl"], features, inputs_key="question", task_id="questions"
    )
    assert cfg.name == "questions"
    read = [example for example, _ in infer_script.make_readers(cfg, 0, 1)[0].read()]
    assert [e["inputs"].tolist() for e in read] == [[198, 172, 1], [123, 1]]
    assert [e["targets"].tolist() for e in read] == [[1], [1]]


def test_lines_have_the_inputs_that_are_asked_for(tmp_path):
    examples = [{"_id": 7, "_part": 1, "inputs": np.arange(3), "inputs_pretokenized": "hi"}]
    path = tmp_path / "lines.jsonl"

    def line(**options):
        write_inferences_to_file(
            path,
            ([np.asarray([100, 101, 1])], {}),
            examples,
            "predict",
            ByteVocabulary(),
            **options,
        )
        return json.loads(path.read_text())

    expected = {"id": 7, "part": 1, "inputs": {"inputs_pretokenized": "hi"}, "prediction": "ab"}
    assert line() == expected
    assert line(output_ids=True)["prediction_tokens"] == [100, 101, 1]
    assert line(include_all_inputs=True)["inputs"] == {
        "inputs": [0, 1, 2],
        "inputs_pretokenized": "hi",
    }
    assert line(input_fields_to_include=["inputs"])["inputs"] == {"inputs": [0, 1, 2]}
    with pytest.raises(ValueError, match=r"no \['input'\] in the example"):
        line(input_fields_to_include=["input"])


def test_command_line(checkpoint, tmp_path, capsys):
    flags = [
        "--gin_file=tests/t5x/toy_model.gin",
        "--gin_file=t5x/configs/runs/infer.gin",
        f"--gin.MIXTURE_OR_TASK_NAME={toy.TASK}",
        "--gin.MIXTURE_OR_TASK_MODULE=tests.t5x.toy",
        "--gin.TASK_FEATURE_LENGTHS={'targets': 8}",
        "--gin.SPLIT=validation",
        "--gin.BATCH_SIZE=4",
        f"--gin.CHECKPOINT_PATH={checkpoint}",
        f"--gin.INFER_OUTPUT_DIR={tmp_path}/out",
        "--gin.infer.num_shards=2",
        "--shard_id=1",
    ]
    try:
        assert infer_script.main([*flags, "--dry_run"]) == 0
        assert "decoder_input_tokens   4x8" in capsys.readouterr().out
        assert not os.path.exists(tmp_path / "out")
        assert infer_script.main(flags) == 0
    finally:
        gin.clear_config()
        gin.config._LOCATION_PREFIXES[:] = [""]
    lines = read_json_lines(tmp_path / "out" / f"{toy.TASK}-predict.jsonl-00001-of-00002")
    assert [line["id"] for line in lines] == list(range(1, 16, 2))
    assert "infer.mode = 'predict'" in (tmp_path / "out" / "config.gin").read_text()
