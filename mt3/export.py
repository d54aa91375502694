"""Write the model folder of a run: `python -m mt3.export RUN_DIR OUT_DIR [--card CARD.md]`.

The run's `config.gin` defines the model (the macros MODEL, SPECTROGRAM_CONFIG, SEGMENT_CONFIG,
VOCAB_CONFIG, EVENT_SPEC and TASK_FEATURE_LENGTHS, as configs/mt3/tiny_piano.gin sets them), its
last checkpoint holds the parameters. `mt3.inference.Transcriber.from_pretrained(OUT_DIR)` reads
the result.
"""

import dataclasses
import functools
import sys
from pathlib import Path

from mt3.model_config import ModelConfig
from musax.exporting import export_run, read_run, run_export
from musax.trust import read_macros


def read_run_config(run_dir: str | Path) -> ModelConfig:
    """Return the configuration of the model that a run trained.

    Raises:
      FileNotFoundError: no `config.gin`.
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


#: Writes the model folder of a run, see `musax.exporting.export_run`.
export = functools.partial(export_run, functools.partial(read_run, read_run_config))

#: Runs the command line; `main(argv=None)` returns the exit status.
main = functools.partial(run_export, export, __doc__)

if __name__ == "__main__":
    sys.exit(main())
