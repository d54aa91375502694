"""Write the model folder of a training run: `python -m drums.export RUN_DIR OUT_DIR [--card CARD]`.

The run's `config.gin` defines the model (the macros MODEL, FEATURES and LEVEL, as
configs/drums/small.gin sets them), its last checkpoint holds the arrays. `--tune DATA_DIR` finds
thresholds and velocity curves on the validation takes there.
"""

import argparse
import dataclasses
import functools
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np

from drums.inference import Transcriber
from drums.model_config import ModelConfig
from drums.network import DrumNetworkConfig
from drums.tasks import prepared_takes
from drums.tuning import Record, tune
from drums.vocabularies import FULL
from musax.audio import to_float
from musax.datasets.rendered_midi import take_notes
from musax.exporting import ExportedRun, export_run, run_export
from musax.trust import read_macros
from t5x.checkpoints import load_state
from t5x.checkpoints.loading import checkpoint_step, run_checkpoint


def read_run_config(run_dir: str | Path) -> ModelConfig:
    """Return the configuration of the model that a run trained.

    Raises:
      FileNotFoundError: no `config.gin`.
      ValueError: it lacks one of the macros.
    """
    model, features, level = read_macros(run_dir, "MODEL", "FEATURES", "LEVEL")
    oaf = not hasattr(model, "level")
    network = model.module.config
    if isinstance(network, DrumNetworkConfig):
        network = dataclasses.replace(network, dtype="float32")  # whatever it was trained in
    return ModelConfig(network, features, FULL if oaf else level)


def validation_records(transcriber: Transcriber, data_dir: str, limit: int) -> Iterator[Record]:
    """Yield the outputs of the model in the first `limit` validation takes, and their notes."""
    takes = prepared_takes(data_dir).sequence("validation")
    for i in range(min(limit, len(takes))):
        take = takes[i]
        audio = to_float(take["audio"])
        yield transcriber.outputs(audio, int(take["sample_rate"])), take_notes(take)


def read_run(
    run_dir: str | Path,
    step: int | None = None,
    *,
    tune_on: str | None = None,
    takes: int = 200,
    dtype: str = "float32",
) -> ExportedRun:
    """Return the model of a run's checkpoint, its thresholds tuned if asked for; see `export`."""
    checkpoint = run_checkpoint(run_dir, step)
    state = load_state(checkpoint)
    variables = {"params": state["target"], "batch_stats": state["flax_mutables"]["batch_stats"]}
    variables = jax.tree.map(lambda x: np.asarray(x, dtype), variables)
    config = read_run_config(run_dir)
    if tune_on is not None:
        transcriber = Transcriber(config, variables, checkpoint)
        records = list(validation_records(transcriber, tune_on, takes))
        rate = config.features.frames_per_second
        config = dataclasses.replace(config, picking=tune(records, config.level, rate))
    return ExportedRun(config, variables, checkpoint_step(checkpoint))


def export(
    run_dir: str | Path,
    out_dir: str | Path,
    card: str,
    step: int | None = None,
    dtype: str = "float32",
    tune_on: str | None = None,
    takes: int = 200,
) -> Path:
    """Write the model folder of a run; return its path.

    Args:
      run_dir, out_dir, card, step, dtype: see `musax.exporting.export_run`.
      tune_on: folder of takes whose validation split is tuned on.
      takes: number of those takes.

    Raises:
      FileNotFoundError: no such checkpoint, or no takes.
      ValueError: see `musax.exporting.export_run`.
    """
    read = functools.partial(read_run, tune_on=tune_on, takes=takes, dtype=dtype)
    return export_run(read, run_dir, out_dir, card, step, dtype)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--tune",
        dest="tune_on",
        metavar="DATA_DIR",
        help="takes that `musax prepare rendered-drums` wrote",
    )
    parser.add_argument("--takes", type=int, default=200, help="validation takes to tune on")


#: Runs the command line; `main(argv=None)` returns the exit status.
main = functools.partial(run_export, export, __doc__, _add_arguments)

if __name__ == "__main__":
    sys.exit(main())
