"""Makes a model folder of a training run: `python -m mt3.export RUN_DIR OUT_DIR [--card CARD.md]`.

The run's `config.gin` says what the model is (the macros MODEL, SPECTROGRAM_CONFIG, SEGMENT_CONFIG,
VOCAB_CONFIG, EVENT_SPEC and TASK_FEATURE_LENGTHS, as configs/mt3/tiny_piano.gin sets them), its
last checkpoint holds the parameters. `mt3.inference.Transcriber.from_pretrained(OUT_DIR)` reads
the result.
"""

import dataclasses
from pathlib import Path

import jax
import numpy as np

from mt3.model_config import ModelConfig
from musax.exporting import run_export
from musax.pretrained import save_model_folder
from t5x.checkpoints.loading import checkpoint_step, load_params, run_checkpoint
from t5x.run_config import read_macros


def read_run_config(run_dir: str | Path) -> ModelConfig:
    """The configuration of the model that a run trained.

    Raises:
      FileNotFoundError: if there is no `config.gin`.
      ValueError: if it lacks one of the macros.
    """
    model, vocabulary, spectrogram, segment, lengths, spec = read_macros(
        run_dir,
        "MODEL",
        "VOCAB_CONFIG",
        "SPECTROGRAM_CONFIG",
        "SEGMENT_CONFIG",
        "TASK_FEATURE_LENGTHS",
        "EVENT_SPEC",
    )
    # Where parameters start from is of no use once they are trained.
    network = dataclasses.replace(model.module.config, shift_token_range=None, dropout_rate=0.0)
    return ModelConfig(
        network=network,
        vocabulary=vocabulary,
        spectrogram=spectrogram,
        segment=segment,
        targets_length=lengths["targets"],
        spec=spec,
    )


def export(
    run_dir: str | Path,
    out_dir: str | Path,
    card: str,
    step: int | None = None,
    dtype: str = "float32",
) -> Path:
    """Writes the model folder; returns its path.

    Args:
      run_dir: MODEL_DIR of the run.
      out_dir: where the folder goes.
      card: the model card, Markdown.
      step: of the checkpoint; None takes the last.
      dtype: in which parameters are stored.

    Raises:
      FileNotFoundError: if the run has no such checkpoint.
    """
    checkpoint = run_checkpoint(run_dir, step)
    config = read_run_config(run_dir)
    params = jax.tree.map(lambda x: np.asarray(x, dtype), load_params(checkpoint))
    return save_model_folder(
        out_dir, params, config.to_json(), card, {"step": str(checkpoint_step(checkpoint))}
    )


if __name__ == "__main__":
    run_export(export, __doc__)
