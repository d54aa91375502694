"""Train Perceiver AR to copy 8,192 or 131,072 tokens, on short sequences first.

Each stage is a run of `t5x.train` with configs/perceiver_ar/copy_staged.gin in its own folder,
named by the length of its sequences, and starts from the parameters of the one before. A second
call continues where the first one stopped. Other options are those of `t5x.train`.

Examples:
  # ten minutes on two cores of a laptop
  python -m perceiver_ar.copy_stages runs/copy_8192

  # for a GPU
  python -m perceiver_ar.copy_stages runs/copy_131072 --length 131072 \\
      --gin.ATTENTION_KERNEL='"fused"'
"""

import argparse
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

CONFIG = "configs/perceiver_ar/copy_staged.gin"


class Stage(NamedTuple):
    """Length of sequences, latents, sequences of a batch, and steps."""

    length: int
    latents: int
    batch: int
    steps: int


_UP_TO_4096 = (
    Stage(128, 64, 32, 400),
    Stage(256, 128, 16, 150),
    Stage(512, 256, 8, 150),
    Stage(1024, 512, 4, 150),
    Stage(2048, 512, 4, 150),
    Stage(4096, 512, 4, 150),
)
#: By the length of the last stage.
STAGES = {
    8192: (*_UP_TO_4096, Stage(8192, 512, 4, 400)),
    131_072: (
        *_UP_TO_4096,
        Stage(8192, 512, 4, 150),
        Stage(16_384, 512, 4, 150),
        Stage(32_768, 512, 4, 150),
        Stage(65_536, 512, 2, 200),
        Stage(131_072, 512, 2, 1500),
    ),
}
WARMUP_STEPS = 100


def stage_flags(stages: Sequence[Stage], folder: Path) -> Iterator[list[str]]:
    """Yield flags of `t5x.train` for each stage; the learning rate decays in the last one."""
    begins, before = 0, None
    longest = stages[-1].length
    for stage in stages:
        ends = begins + stage.steps
        lengths = {"inputs": stage.length, "targets": stage.length}
        last = stage == stages[-1]
        macros = {
            "MODEL_DIR": str(folder / str(stage.length)),
            "RESTORE_FROM": [] if before is None else str(before),
            "LENGTH": stage.length,
            "MIDDLE": longest // 2,
            "MAX_POSITION": longest,
            "TABLES": (longest + 1,),
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


def stages_done(stages: Sequence[Stage], folder: Path) -> int:
    """Return how many stages are done: up to the last that has its last checkpoint."""
    done, ends = 0, 0
    for number, stage in enumerate(stages, 1):
        ends += stage.steps
        if (folder / str(stage.length) / f"checkpoint_{ends}").is_dir():
            done = number
    return done


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all stages; return the exit status of the first that fails, or 0."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="where the runs go")
    parser.add_argument(
        "--length", type=int, choices=STAGES, default=8192, help="of the last stage"
    )
    parser.add_argument(
        "--stages",
        type=lambda text: Stage(*map(int, text.split(":"))),
        nargs="+",
        metavar="LENGTH:LATENTS:BATCH:STEPS",
        help="instead of the usual ones",
    )
    args, others = parser.parse_known_args(arguments)
    stages = args.stages or STAGES[args.length]
    command = [sys.executable, "-m", "t5x.train", f"--gin_file={CONFIG}"]
    flags_of_stages = list(stage_flags(stages, args.folder))
    for flags in flags_of_stages[stages_done(stages, args.folder) :]:
        status = subprocess.run([*command, *flags, *others], check=False).returncode
        if status:
            return status
    return 0


if __name__ == "__main__":
    sys.exit(main())
