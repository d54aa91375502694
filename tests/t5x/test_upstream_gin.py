"""Configurations as users of upstream wrote them run unmodified."""

from pathlib import Path

import gin
import jax
import pytest

from t5x import eval as eval_script
from t5x import export, infer, train
from t5x.checkpoints.loading import all_checkpoints
from t5x.data import Feature, TaskRegistry
from t5x.data.preprocessors import append_eos, tokenize
from t5x.files import read_json_lines
from t5x.loggers import read_metrics
from tests.t5x.upstream import tasks

FOLDER = Path(__file__).parent / "upstream"


@pytest.fixture(autouse=True)
def own_gin():
    yield
    gin.clear_config()
    gin.config._LOCATION_PREFIXES[:] = [""]
    jax.clear_caches()


def run(script, name, *flags):
    return script.main([f"--gin_file={FOLDER / name}", *flags])


def trains(name, folder, *flags):
    """Dry-runs, takes two steps, and returns the last logged line of training."""
    flags = (*flags, "--gin.TRAIN_STEPS=2", f"--gin.MODEL_DIR={folder}")
    assert run(train, name, *flags, "--dry_run") == 0
    assert not Path(folder).exists()
    assert run(train, name, *flags) == 0
    return read_metrics(Path(folder) / "train" / "metrics.jsonl")[-1]


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """(folder of a run of `pretrain_t5.gin`, its last logged line)."""
    folder = tmp_path_factory.mktemp("upstream") / "run"
    return folder, trains("pretrain_t5.gin", folder)


def test_pretraining(pretrained):
    folder, line = pretrained
    assert line["step"] == 2
    assert line["loss"] > 0
    assert "weight_rms/decoder/logits_dense/kernel" in line
    assert line["learning_rate"] < 1.0
    log = folder / "training_eval" / tasks.TASK / "metrics.jsonl"
    assert [x["step"] for x in read_metrics(log)] == [1, 2]


@pytest.mark.slow
def test_run_without_the_shipped_files(tmp_path):
    line = trains("whole_run.gin", tmp_path / "run")
    assert line["learning_rate"] == pytest.approx(0.001)
    log = tmp_path / "run" / "inference_eval" / tasks.TASK / "metrics.jsonl"
    assert {"accuracy", "likelihood"} <= read_metrics(log)[-1].keys()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["decoder_only.gin", "scanned_t5.gin"])
def test_other_networks(tmp_path, name):
    assert trains(name, tmp_path / "run")["step"] == 2


def shipped(script, run_file, *flags):
    """Runs a shipped run file for the model of `pretrain_t5.gin`."""
    return script.main(
        [
            f"--gin_file={FOLDER}/user_model.gin",
            f"--gin_file=t5x/configs/runs/{run_file}",
            f"--gin.MIXTURE_OR_TASK_NAME={tasks.TASK}",
            "--gin.TASK_FEATURE_LENGTHS={'inputs': 8, 'targets': 8}",
            *flags,
        ]
    )


@pytest.mark.slow
def test_shipped_runs_on_its_checkpoint(pretrained, tmp_path):
    checkpoint = f"--gin.CHECKPOINT_PATH={pretrained[0]}/checkpoint_2"
    flags = (checkpoint, "--gin.SPLIT='validation'", "--gin.BATCH_SIZE=8")
    flags = (*flags, "--gin.USE_CACHED_TASKS=False")
    assert shipped(eval_script, "eval.gin", f"--gin.EVAL_OUTPUT_DIR={tmp_path}/e", *flags) == 0
    metrics = read_json_lines(tmp_path / "e" / "inference_eval" / f"{tasks.TASK}-metrics.jsonl")
    assert metrics[0]["step"] == 2
    assert shipped(infer, "infer.gin", f"--gin.INFER_OUTPUT_DIR={tmp_path}/i", *flags) == 0
    lines = read_json_lines(tmp_path / "i" / f"{tasks.TASK}-predict.jsonl-00000-of-00001")
    assert [line["inputs"]["inputs_pretokenized"] for line in lines] == tasks.WORDS[48:]
    pytest.importorskip("flatbuffers")
    flags = (checkpoint, f"--gin.EXPORT_OUTPUT_DIR={tmp_path}/x", "--dry_run")
    assert shipped(export, "export.gin", *flags) == 0


@pytest.mark.slow
def test_finetuning_from_its_checkpoint(pretrained, tmp_path):
    flags = (
        f"--gin.INITIAL_CHECKPOINT_PATH={pretrained[0]}/checkpoint_2",
        f"--gin.MODEL_DIR={tmp_path}/run",
        "--gin.TRAIN_STEPS=3",
        "--gin.EVAL_STEPS=1",
        "--gin.BATCH_SIZE=8",
        "--gin.USE_CACHED_TASKS=False",
        "--gin.EVALUATOR_NUM_EXAMPLES=4",
    )
    assert shipped(train, "finetune.gin", *flags) == 0
    assert [p.name for p in all_checkpoints(tmp_path / "run")] == ["checkpoint_3"]
    predictions = tmp_path / "run" / "inference_eval" / f"{tasks.TASK}-000003.jsonl"
    assert len(read_json_lines(predictions)) == 4


# ---------------------------------------------------------------------- with seqio


def test_seqio_task_and_evaluator(pretrained, tmp_path):
    pytest.importorskip("seqio")
    from tests.t5x.upstream.seqio_tasks import TASK

    flags = [f"--gin.INITIAL_CHECKPOINT_PATH={pretrained[0]}/checkpoint_2"]
    flags += ["--gin.TRAIN_STEPS=3", f"--gin.MODEL_DIR={tmp_path}/run"]
    assert run(train, "finetune_seqio.gin", *flags, "--dry_run") == 0
    assert run(train, "finetune_seqio.gin", *flags) == 0
    folder = tmp_path / "run" / "inference_eval"
    line = read_metrics(folder / TASK / "metrics.jsonl")[-1]
    assert {"accuracy", "likelihood"} <= line.keys()
    assert len(read_json_lines(folder / f"{TASK}-000003.jsonl")) == 4
    assert (tmp_path / "run" / "training_eval" / TASK / "metrics.jsonl").is_file()


def test_seqio_evaluation_and_inference(pretrained, tmp_path):
    pytest.importorskip("seqio")
    from tests.t5x.upstream.seqio_tasks import TASK

    checkpoint = f"--gin.CHECKPOINT_PATH={pretrained[0]}/checkpoint_2"
    flags = (checkpoint, f"--gin.EVAL_OUTPUT_DIR={tmp_path}/e")
    assert run(eval_script, "eval_seqio.gin", *flags, "--dry_run") == 0
    assert run(eval_script, "eval_seqio.gin", *flags) == 0
    lines = read_json_lines(tmp_path / "e" / "inference_eval" / f"{TASK}-000002.jsonl")
    assert len(lines) == 16
    flags = (checkpoint, f"--gin.INFER_OUTPUT_DIR={tmp_path}/i")
    assert run(infer, "infer_seqio.gin", *flags) == 0
    lines = read_json_lines(tmp_path / "i" / f"{TASK}-predict_with_aux.jsonl-00000-of-00001")
    assert [line["inputs"]["inputs_pretokenized"] for line in lines] == tasks.WORDS[48:]
    assert [line["id"] for line in lines] == list(range(16))
    assert len(lines[0]["prediction_tokens"]) == 8
    assert "scores" in lines[0]["aux"]


def test_seqio_sentencepiece(tmp_path, capsys):
    seqio = pytest.importorskip("seqio")
    from sentencepiece import SentencePieceTrainer

    (tmp_path / "words.txt").write_text("\n".join(tasks.WORDS))
    SentencePieceTrainer.Train(
        input=str(tmp_path / "words.txt"),
        model_prefix=str(tmp_path / "words"),
        vocab_size=20,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
    )
    model = str(tmp_path / "words.model")
    feature = Feature(seqio.SentencePieceVocabulary(model, 100))
    words = [{"inputs": word, "targets": word[::-1]} for word in tasks.WORDS]
    TaskRegistry.remove("upstream_user_pieces")
    TaskRegistry.add(
        "upstream_user_pieces",
        source={"train": words, "validation": words},
        preprocessors=[tokenize, append_eos],
        output_features={"inputs": feature, "targets": feature},
    )
    line = trains(
        "sentencepiece_seqio.gin", tmp_path / "run", f"--gin.SENTENCEPIECE_MODEL_FILE={model}"
    )
    assert line["step"] == 2
    flags = (
        f"--gin.SENTENCEPIECE_MODEL_FILE={model}",
        f"--gin.MIXTURE_OR_TASK_NAME={tasks.TASK}",
        "--gin.TRAIN_STEPS=2",
        f"--gin.MODEL_DIR={tmp_path}/other",
    )
    assert run(train, "sentencepiece_seqio.gin", *flags) == 2
    assert "input vocabulary of the data" in capsys.readouterr().err
