"""Makes a model folder of a training run: `python -m perceiver_ar.export RUN_DIR OUT_DIR`.

The run's `config.gin` says what the model is (the macros MODEL and ENCODING, as
configs/perceiver_ar/pop909.gin sets them), its last checkpoint holds the parameters.
`perceiver_ar.inference.Composer.from_pretrained(OUT_DIR)` reads the result.
"""

import dataclasses
from pathlib import Path

import jax
import numpy as np

from musax.exporting import run_export
from musax.pretrained import save_model_folder
from perceiver_ar.model_config import ModelConfig
from t5x.checkpoints.loading import checkpoint_step, load_params, run_checkpoint
from t5x.run_config import read_macros


def read_run_config(run_dir: str | Path) -> ModelConfig:
    """The configuration of the model that a run trained.

    Raises:
      FileNotFoundError: there is no `config.gin`.
      ValueError: it lacks one of the macros.
    """
    model, encoding = read_macros(run_dir, "MODEL", "ENCODING")
    # How it was trained is of no use once it is.
    network = dataclasses.replace(
        model.module.config, dtype="float32", dropout_prob=0.0, remat_policy="none"
    )
    return ModelConfig(network, encoding)


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
      FileNotFoundError: the run has no such checkpoint.
    """
    checkpoint = run_checkpoint(run_dir, step)
    config = read_run_config(run_dir)
    params = jax.tree.map(lambda x: np.asarray(x, dtype), load_params(checkpoint))
    return save_model_folder(
        out_dir, params, config.to_json(), card, {"step": str(checkpoint_step(checkpoint))}
    )


if __name__ == "__main__":
    run_export(export, __doc__)
