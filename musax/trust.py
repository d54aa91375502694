"""What the configuration of a training run may do when it is read; the option `--trust`.

See `t5x.gin_limits`.
"""

import argparse
from pathlib import Path
from typing import Any

from musax.pretrained import SYSTEMS

_CALLED = """
    musax.datasets.pieces musax.datasets.splits musax.diffusion musax.events
    musax.rendering.augment musax.spectrograms
"""
# Modules of the packages on papers.
_ROOMS = """
    attention baselines blocks config contents feature_converter features labels layers masks
    melodies mixing model_config models music network optimizers plain_decoder positions
    preprocessors segments spectrograms tasks text vocabularies warping
    translation.model translation.network translation.pronunciation
    audio_codes.audio_codes_task images.image_task images.image_positions
"""


def read_macros(run_dir: str | Path, *names: str) -> list[Any]:
    """Return the values of macros of a run, as `t5x.run_config.read_macros`; it may use musax."""
    from t5x import run_config
    from t5x.gin_limits import T5X, Allowed

    papers = tuple(system.runs.partition(".")[0] for system in SYSTEMS.values())
    rooms = tuple(f"{paper}.{room}" for paper in papers for room in _ROOMS.split())
    ours = Allowed(("musax", *papers), (*_CALLED.split(), *rooms))
    return run_config.read_macros(run_dir, *names, allowed=T5X | ours)


def add_trust(parser: argparse.ArgumentParser) -> None:
    """Add `--trust` to a parser."""
    parser.add_argument(
        "--trust",
        action="store_true",
        help="let config.gin of a run import and call anything, as a program does; without it, "
        "only our packages' models and data",
    )
