"""Export a training run as a model folder: `python -m cdcd.export RUN_DIR OUT_DIR`.

The run's `config.gin` defines the model (macros of configs/cdcd/train.gin), its last
checkpoint holds the parameters; the average of them is taken where the run kept one.
`cdcd.inference.Writer.from_pretrained(OUT_DIR)` reads the result.
"""

import dataclasses
import functools
import sys
from pathlib import Path

from cdcd.contents import Pieces, contents_of
from cdcd.model_config import ModelConfig, kind_of
from cdcd.runs import load_run
from musax.exporting import ExportedRun, export_run, run_export
from musax.runs import TrainedRun


def run_config(run: TrainedRun) -> ModelConfig:
    """Return the configuration of the model that a run trained.

    Raises:
      ValueError: the model is not one of `model_config.MODELS`, or its vocabulary is unknown.
    """
    kind = kind_of(run.model)
    # How it was trained is of no use once it is.
    network = dataclasses.replace(
        run.model.module.config, dtype="float32", dropout_rate=0.0, remat_policy="none"
    )
    contents = contents_of(run.evaluate_task.output_features["targets"].vocabulary)
    config = ModelConfig(kind, run.length, network, contents)
    if kind != "cdcd":
        return config
    return dataclasses.replace(
        config,
        noise=run.model.noise,
        warping=run.model.warping,
        self_conditioning=run.model.self_conditioning,
    )


def read_run(run_dir: str | Path, step: int | None = None) -> ExportedRun:
    """Return configuration and model of a run; see `run_config` and `cdcd.runs.load_run`."""
    run = load_run(run_dir, step)
    config = run_config(run)
    files = {}
    if isinstance(config.contents, Pieces):
        model = Path(config.contents.model)
        files[model.name] = model.read_bytes()
    return ExportedRun(config, run.params, run.step, files)


#: Writes the model folder of a run, see `musax.exporting.export_run`.
export = functools.partial(export_run, read_run)

#: Runs the command line; `main(argv=None)` returns the exit status.
main = functools.partial(run_export, export, __doc__)

if __name__ == "__main__":
    sys.exit(main())
