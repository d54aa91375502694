"""Evaluation of checkpoints, apart from training."""

import gin
import jax
import jax.numpy as jnp
import pytest

from t5x import eval as eval_script
from t5x import train, utils
from t5x.checkpoints import CheckpointError
from t5x.data import ByteVocabulary
from t5x.files import read_json_lines
from t5x.gin_utils import GinError
from t5x.loggers import read_metrics
from t5x.partitioning import PjitPartitioner
from t5x.trainer import Trainer
from tests.t5x import toy

LENGTHS = {"targets": 8}


def make_trainer(**kwargs):
    kwargs.setdefault("learning_rate_fn", lambda step: jnp.float32(0.05))
    return Trainer(**kwargs)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run with the checkpoints 4, 8 and 12, and its own evaluations at 8."""
    folder = tmp_path_factory.mktemp("run")
    data = utils.DatasetConfig(toy.TASK, LENGTHS, "validation", 8, False, seed=42)
    train.train(
        model=toy.ToyModel(toy.optimizer(), dropout_rate=0.1),
        train_dataset_cfg=utils.DatasetConfig(toy.TASK, LENGTHS, "train", 8, True),
        train_eval_dataset_cfg=data,
        infer_eval_dataset_cfg=data,
        checkpoint_cfg=utils.CheckpointConfig(utils.SaveCheckpointConfig(period=4)),
        partitioner=PjitPartitioner(1),
        trainer_cls=make_trainer,
        model_dir=str(folder),
        total_steps=12,
        eval_period=8,
        random_seed=3,
        summarize_config_fn=None,
    )
    return folder


def evaluate(folder, output, mode="all", **options):
    arguments = {
        "model": toy.ToyModel(None),
        "dataset_cfg": utils.DatasetConfig(toy.TASK, LENGTHS, "validation", 8, False, seed=42),
        "restore_checkpoint_cfg": utils.RestoreCheckpointConfig(str(folder), mode),
        "partitioner": PjitPartitioner(1),
        "output_dir": str(output),
        "summarize_config_fn": None,
    }
    return eval_script.evaluate(**{**arguments, **options})


def test_all_checkpoints_by_step_as_inside_training(trained, tmp_path):
    results = evaluate(trained, tmp_path, training_evaluator_cls=make_trainer)
    assert list(results) == [4, 8, 12]
    for kind, mode in (("training_eval", "TRAIN_EVAL"), ("inference_eval", "INFER_EVAL")):
        own = {x["step"]: x for x in read_metrics(trained / kind / toy.TASK / "metrics.jsonl")}
        apart = read_metrics(tmp_path / kind / toy.TASK / "metrics.jsonl")
        assert [line["step"] for line in apart] == [4, 8, 12]
        assert list((tmp_path / kind / toy.TASK).glob("events*"))
        for name in own[8].keys() & {"loss", "accuracy", "exact"}:
            assert results[8][mode][toy.TASK][name] == pytest.approx(own[8][name], rel=1e-5)


def test_checkpoints_that_are_done_are_left_out(trained, tmp_path):
    assert list(evaluate(trained / "checkpoint_8", tmp_path, "specific")) == [8]
    assert list(evaluate(trained, tmp_path, "latest")) == [12]
    assert list(evaluate(trained, tmp_path)) == [4]
    assert evaluate(trained, tmp_path) == {}
    done = (tmp_path / f"eval.{toy.TASK}.ckpt").read_text().splitlines()
    assert done == [str(trained / f"checkpoint_{step}") for step in (8, 12, 4)]
    log = tmp_path / "inference_eval" / toy.TASK / "metrics.jsonl"
    assert [line["step"] for line in read_metrics(log)] == [8, 12, 4]


@pytest.fixture
def command_line(trained, tmp_path):
    def main(*flags):
        return eval_script.main(
            [
                "--gin_file=tests/t5x/toy_model.gin",
                "--gin_file=t5x/configs/runs/eval.gin",
                f"--gin.MIXTURE_OR_TASK_NAME={toy.TASK}",
                "--gin.MIXTURE_OR_TASK_MODULE=tests.t5x.toy",
                "--gin.TASK_FEATURE_LENGTHS={'targets': 8}",
                "--gin.SPLIT='validation'",
                "--gin.BATCH_SIZE=8",
                f"--gin.EVAL_OUTPUT_DIR={tmp_path}/out",
                *flags,
            ]
        )

    yield main
    gin.clear_config()
    gin.config._LOCATION_PREFIXES[:] = [""]


def test_command_line_writes_predictions(command_line, trained, tmp_path):
    flags = [f"--gin.CHECKPOINT_PATH={trained}/checkpoint_8", "--gin.JSON_WRITE_N_RESULTS=5"]
    assert command_line(*flags) == 0
    folder = tmp_path / "out" / "inference_eval"
    lines = read_json_lines(folder / f"{toy.TASK}-000008.jsonl")
    assert len(lines) == 5
    expected = [x["targets"].tolist() for x in toy.examples(16, 1)[:5]]
    assert [line["input"]["targets"] for line in lines] == expected
    assert [line["target"] for line in lines] == expected
    assert all(len(line["prediction"]) == 8 for line in lines)
    metrics = read_json_lines(folder / f"{toy.TASK}-metrics.jsonl")
    assert [line["step"] for line in metrics] == [8]
    assert "toy.ToyModel.dropout_rate" in (tmp_path / "out" / "config.gin").read_text()


def test_dry_run_and_mistakes(command_line, trained, tmp_path, capsys):
    assert command_line(f"--gin.CHECKPOINT_PATH={trained}/checkpoint_8", "--dry_run") == 0
    printed = capsys.readouterr().out
    assert "total: 4 parameters" in printed
    assert f"{trained}/checkpoint_8" in printed
    assert not (tmp_path / "out").exists()
    assert command_line(f"--gin.CHECKPOINT_PATH={tmp_path}/none") == 2
    assert "no checkpoint here" in capsys.readouterr().err
    assert eval_script.main(["--gin.CHECKPOINT_PATH"]) == 2
    assert "--gin.NAME=VALUE" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("message", "option", "value"),
    [
        ("path is empty", "restore_checkpoint_cfg", utils.RestoreCheckpointConfig([])),
        (
            "no task with metric_fns has the split 'other'",
            "dataset_cfg",
            utils.DatasetConfig(toy.TASK, LENGTHS, "other", 8, False),
        ),
        (
            "fallback_init_rng",
            "restore_checkpoint_cfg",
            utils.RestoreCheckpointConfig("anywhere", fallback_to_scratch=True),
        ),
    ],
)
def test_clear_errors(trained, tmp_path, message, option, value):
    with pytest.raises(GinError, match=message):
        evaluate(trained, tmp_path, **{option: value})


class Wider(toy.ToyModel):
    def __init__(self):
        super().__init__(None)
        self.module = toy.ToyNetwork(mlp=24)


class OtherVocabulary(toy.ToyModel):
    output_vocabulary = ByteVocabulary()


def test_another_vocabulary_than_the_models_is_named(trained, tmp_path):
    with pytest.raises(GinError, match=r"output vocabulary of the data.*is not the model's"):
        evaluate(trained, tmp_path, model=OtherVocabulary(None))


def test_checkpoint_of_another_model_says_what_differs(trained, tmp_path):
    with pytest.raises(
        CheckpointError, match=r"target/wi is \(8, 16\), the model expects \(8, 24\)"
    ):
        evaluate(trained, tmp_path, model=Wider())
    assert not list(tmp_path.iterdir())
    jax.clear_caches()
