"""The configurations: the copy task trained until it copies, the others shown."""

import json

import numpy as np
import pytest

from perceiver_ar import tasks
from perceiver_ar.config import PerceiverARConfig
from perceiver_ar.generation import generate
from perceiver_ar.sampler import Sampler
from t5x.checkpoints import load_params
from t5x.examples.shakespeare.plays import load_plays
from tests import running

SYMBOLS, LENGTH = 8, 8


def train(run, *options, config="copy", **settings):
    config = f"configs/perceiver_ar/{config}.gin"
    return running.train(config, f"--gin.MODEL_DIR='{run}'", *options, **settings)


def test_a_trained_model_copies(tmp_path):
    run = tmp_path / "run"
    settings = {
        "NUM_SYMBOLS": SYMBOLS,
        "LENGTH": LENGTH,
        "NUM_LATENTS": LENGTH // 2,
        "TASK_FEATURE_LENGTHS": {"inputs": LENGTH, "targets": LENGTH},
        "config.PerceiverARConfig.input_idx_size": (LENGTH + 1,),
        "tasks.copy_task.max_position": LENGTH,
        "BATCH_SIZE": 32,
        "TRAIN_STEPS": 300,
        "WARMUP_STEPS": 20,
        "LEARNING_RATE": 0.005,
        "train_script.train.eval_period": 300,
    }
    train(run, settings=settings)
    lines = (run / "training_eval" / "copy" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["accuracy"] > 0.99

    # The same by sampling: the mirror image is written token by token behind the random half.
    config = PerceiverARConfig(
        num_classes=259,
        max_context_length=LENGTH,
        z_index_dim=LENGTH // 2,
        input_embed_dim=64,
        num_z_channels=64,
        num_transformers_per_block=1,
        num_cross_attend_heads=4,
        num_transformer_heads=4,
        position_encoding_type="absolute",
        input_idx_size=(LENGTH + 1,),
    )
    sequences = [tasks.copy_example("test", i, LENGTH, SYMBOLS)["tokens"] for i in range(32)]
    prompts = [tokens[: LENGTH // 2] for tokens in sequences]
    found, _ = generate(Sampler(config, LENGTH - 1), load_params(run), prompts, temperature=0.0)
    copied = found[:, 0, LENGTH // 2 :] == np.stack(sequences)[:, LENGTH // 2 :]
    assert copied.mean() > 0.99


def test_a_dry_run_shows_the_model(tmp_path):
    shown = train(tmp_path / "run", "--dry_run")
    assert "139,907" in shown
    assert "decoder_positions" in shown


def write_data(config, folder):
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    if config == "text":
        (folder / "play.txt").write_text(load_plays()["hamlet"][:9000])
    elif config == "image64":
        image = pytest.importorskip("PIL.Image")
        image.fromarray(rng.integers(0, 256, (80, 70, 3), np.uint8)).save(folder / "picture.png")
    else:
        np.save(folder / "codes.npy", rng.integers(0, 1024, (400, 24)))


@pytest.mark.parametrize(
    ("config", "data", "parameters", "batch"),
    [
        ("text", "DATA_DIR", "165,335,299", "2x8192x1"),
        ("image64", "IMAGES", "770,094,339", "2x12288x3"),  # as many as the reference has
        ("audio_codes", "DATA_DIR", "215,166,979", "2x8192x1"),
    ],
)
def test_other_configurations(config, data, parameters, batch, tmp_path):
    for split in ("train", "validation"):
        write_data(config, tmp_path / "data" / split)
    settings = {
        data: f"'{tmp_path / 'data'}'",
        "BATCH_SIZE": 2,
        "config.PerceiverARConfig.scan_layers": True,  # one layer is traced for all
    }
    shown = train(tmp_path / "run", "--dry_run", config=config, settings=settings)
    assert parameters in shown
    assert batch in shown
