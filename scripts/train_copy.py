#!/usr/bin/env python
"""Trains Perceiver AR to copy 8,192 tokens on a CPU, on short sequences first.

Each stage is a run of `t5x.train` with configs/perceiver_ar/copy_8192.gin in a folder of its own,
named by the length of its sequences, and begins with what the one before has learnt. Called again,
it goes on where it stopped.

Example:
  scripts/train_copy.py runs/copy_8192
"""

import argparse
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

CONFIG = "configs/perceiver_ar/copy_8192.gin"


class Stage(NamedTuple):
    """Length of sequences, latents, sequences of a batch, and steps."""

    length: int
    latents: int
    batch: int
    steps: int


STAGES = (
    Stage(128, 64, 32, 400),
    Stage(256, 128, 16, 150),
    Stage(512, 256, 8, 150),
    Stage(1024, 512, 4, 150),
    Stage(2048, 512, 4, 150),
    Stage(4096, 512, 4, 150),
    Stage(8192, 512, 4, 400),
)
WARMUP_STEPS = 100


def stage_flags(stages: Sequence[Stage], folder: Path) -> Iterator[list[str]]:
    """Flags of `t5x.train` for each stage; the learning rate falls in the last one."""
    begins, before = 0, None
    for stage in stages:
        ends = begins + stage.steps
        lengths = {"inputs": stage.length, "targets": stage.length}
        last = stage == stages[-1]
        macros = {
            "MODEL_DIR": str(folder / str(stage.length)),
            "RESTORE_FROM": [] if before is None else str(before),
            "LENGTH": stage.length,
            "NUM_LATENTS": stage.latents,
            "TASK_FEATURE_LENGTHS": lengths,
            # With as many latents as there is to predict, all of it in every example.
            "CROPPING": "none"
            if 2 * stage.latents >= stage.length
            else "equal_position_likelihood",
            "BATCH_SIZE": stage.batch,
            "STAGE_BEGINS": begins if last else WARMUP_STEPS,
            "TRAIN_STEPS": ends,
            "DECAY_STEPS": stage.steps,
            "LEARNING_RATE_KIND": "cosine" if last else "constant",
        }
        yield [f"--gin.{name}={value!r}" for name, value in macros.items()]
        begins, before = ends, folder / str(stage.length)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs all stages; returns the exit status of the first that fails, or 0."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the runs go")
    parser.add_argument(
        "--stages",
        type=lambda text: Stage(*map(int, text.split(":"))),
        nargs="+",
        default=STAGES,
        metavar="LENGTH:LATENTS:BATCH:STEPS",
        help="instead of the usual ones",
    )
    args, others = parser.parse_known_args(arguments)
    command = [sys.executable, "-m", "t5x.train", f"--gin_file={CONFIG}"]
    for flags in stage_flags(args.stages, args.folder):
        status = subprocess.run([*command, *flags, *others], check=False).returncode
        if status:
            return status
    return 0


if __name__ == "__main__":
    sys.exit(main())
