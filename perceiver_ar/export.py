"""Makes a model folder of a training run: `python -m perceiver_ar.export RUN_DIR OUT_DIR`.

The run's `config.gin` says what the model is (the macros MODEL and ENCODING, as
configs/perceiver_ar/pop909.gin sets them), its last checkpoint holds the parameters.
`perceiver_ar.inference.Composer.from_pretrained(OUT_DIR)` reads the result.
"""

import dataclasses
import functools
import sys
from pathlib import Path

from musax.exporting import Trained, export_trained, run_export
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


def read_run(run_dir: str | Path, step: int | None = None) -> Trained:
    """What a run trained; see `read_run_config` and `t5x.checkpoints.loading.run_checkpoint`."""
    checkpoint = run_checkpoint(run_dir, step)
    config = read_run_config(run_dir)
    return Trained(config, load_params(checkpoint), checkpoint_step(checkpoint))


#: Writes the model folder of a run, see `musax.exporting.export_trained`.
export = functools.partial(export_trained, read_run)

#: Runs the command line; `main(argv=None)` returns the exit status.
main = functools.partial(run_export, export, __doc__)

if __name__ == "__main__":
    sys.exit(main())
