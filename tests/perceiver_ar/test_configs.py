"""The copy task, trained by its own command until it copies."""

import json
import subprocess
import sys

import numpy as np

from perceiver_ar import tasks
from perceiver_ar.config import PerceiverARConfig
from perceiver_ar.generation import generate
from perceiver_ar.sampler import Sampler
from t5x.checkpoints import load_params

SYMBOLS, LENGTH = 16, 32


def train(run, *options):
    command = [sys.executable, "-m", "t5x.train", "--gin_file=configs/perceiver_ar/copy.gin"]
    command += [f"--gin.MODEL_DIR='{run}'", f"--gin.NUM_SYMBOLS={SYMBOLS}", *options]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_a_trained_model_copies(tmp_path):
    run = tmp_path / "run"
    options = ["--gin.TRAIN_STEPS=400", "--gin.train_script.train.eval_period=400"]
    train(run, *options)
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
