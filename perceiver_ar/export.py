"""Export a training run as a model folder: `python -m perceiver_ar.export RUN_DIR OUT_DIR`.

The run's `config.gin` defines the model (the macros MODEL and ENCODING, as
configs/perceiver_ar/pop909.gin sets them), its last checkpoint holds the parameters.
`perceiver_ar.inference.Composer.from_pretrained(OUT_DIR)` reads the result.
"""

import dataclasses
import functools
import sys
from pathlib import Path

from musax.exporting import export_run, read_run, run_export
from musax.trust import read_macros
from perceiver_ar.model_config import ModelConfig


def read_run_config(run_dir: str | Path) -> ModelConfig:
    """Return the configuration of the model that a run trained.

    Raises:
      FileNotFoundError: no `config.gin`.
      ValueError: it lacks one of the macros.
    """
    model, encoding = read_macros(run_dir, "MODEL", "ENCODING")
    # Options of training do not matter for inference.
    network = dataclasses.replace(
        model.module.config, dtype="float32", dropout_prob=0.0, remat_policy="none"
    )
    return ModelConfig(network, encoding)


#: Writes the model folder of a run, see `musax.exporting.export_run`.
export = functools.partial(export_run, functools.partial(read_run, read_run_config))

#: Runs the command line; `main(argv=None)` returns the exit status.
main = functools.partial(run_export, export, __doc__)

if __name__ == "__main__":
    sys.exit(main())
