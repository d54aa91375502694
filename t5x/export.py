"""Save a model as a program that runs without its code: `python -m t5x.export --gin_file=...`.

StableHLO through `jax.export` with the weights beside it, for any batch size, on CPU, GPU and TPU;
or a TensorFlow SavedModel. `python -m t5x.run_exported FOLDER --inputs FILE` runs the former.
"""

if __name__ == "__main__":  # before the imports that take long
    from t5x import interrupts

    interrupts.end_the_process()

import sys
from collections.abc import Sequence

from t5x import command_line
from t5x.export_lib import save

_EXAMPLE = """python -m t5x.export \\
      --gin_file=my_model.gin --gin_file=t5x/configs/runs/export.gin \\
      --gin.TASK_FEATURE_LENGTHS="{'inputs': 512, 'targets': 114}" \\
      --gin.CHECKPOINT_PATH=runs/first/checkpoint_10000 --gin.EXPORT_OUTPUT_DIR=exported"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    return command_line.run(save, argv, program="t5x.export", description=__doc__, example=_EXAMPLE)


if __name__ == "__main__":
    sys.exit(main())
