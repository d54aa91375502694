"""The tasks drum models train on: takes with exact notes, rendered before or as they are read."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from drums import preprocessors
from drums.features import DrumFeatures
from drums.vocabularies import FULL
from musax.datasets.groove import read_groove
from musax.datasets.rendered_drums import RenderedDrums
from musax.rendering.augment import AugmentConfig
from t5x.data.features import ContinuousFeature, Feature
from t5x.data.sources import ArrayRecordSource, FunctionSource, Source
from t5x.data.tasks import Task
from t5x.data.vocabularies import PassThroughVocabulary

SPLITS = ("train", "validation", "test")


def prepared_takes(directory: str) -> Source:
    """Return the source of takes that `musax prepare rendered-drums` wrote.

    Raises:
      FileNotFoundError: there are no shards.
    """
    folder = Path(directory)
    splits = {
        split: str(folder / f"{split}-*.array_record")
        for split in SPLITS
        if any(folder.glob(f"{split}-*.array_record"))
    }
    if not splits:
        raise FileNotFoundError(
            f"{directory}: no train-*.array_record there; make them with "
            "musax prepare rendered-drums"
        )
    return ArrayRecordSource(splits)


def rendered_takes(
    groove: str,
    kits: Sequence[str],
    *,
    num_takes: int = 20000,
    seconds: float = 12.0,
    seed: int = 0,
    **options: Any,
) -> Source:
    """Return the source of takes rendered on the fly: Groove performances on drum kits.

    Args:
      groove: folder of the Groove MIDI Dataset.
      kits: names or paths, see `musax.rendering.drum_kits`.
      num_takes, seconds, seed, options: see `RenderedDrums`; validation and test have a twentieth
        of the takes.
    """

    def make(split: str) -> RenderedDrums:
        number = num_takes if split == "train" else max(1, num_takes // 20)
        performances = read_groove(groove, split)
        return RenderedDrums(
            performances, tuple(kits), num_takes=number, seconds=seconds, seed=seed, **options
        )

    return FunctionSource({split: functools.partial(make, split) for split in SPLITS})


def _real(rank: int) -> ContinuousFeature:
    return ContinuousFeature(dtype=np.float32, rank=rank)


def drum_task(
    source: Source,
    *,
    features: DrumFeatures,
    level: str = FULL,
    frames: int = 200,
    pieces_per_take: int = 2,
    neighbour: float = 0.5,
    augment: AugmentConfig | None = None,
    level_db: tuple[float, float] = (0.0, 0.0),
    name: str = "drums",
) -> Task:
    """Return the task of pieces of takes for `DrumModel`; arguments as in `cut_pieces`.

    Args:
      source: of takes.
      frames: length of a piece.
      pieces_per_take: random pieces cut from a take in an epoch.
      augment: effects on a piece, in every split; None leaves it as it was rendered.
      level_db: range of a take's playback level, dB below full scale.
      name: of the task.
    """
    cut = functools.partial(
        preprocessors.cut_pieces,
        features=features,
        level=level,
        frames=frames,
        count=pieces_per_take,
        neighbour=neighbour,
        augmentation=augment,
        level_db=level_db,
    )
    return Task(
        name,
        source=source,
        preprocessors=[cut],
        output_features={
            "audio": _real(2),
            **{key: _real(2) for key in ("onsets", "velocities", "offsets", "weights")},
        },
    )


def oaf_drums_task(
    source: Source,
    *,
    features: DrumFeatures,
    level: str = "8-hit",
    seconds: float = 1.0,
    chunks: int = 12,
    name: str = "oaf_drums",
) -> Task:
    """Return the task of spliced chunks for `drums.models.OafDrumsModel`; see `splice_chunks`."""
    splice = functools.partial(
        preprocessors.splice_chunks,
        features=features,
        others=functools.partial(source.sequence, "train"),
        level=level,
        seconds=seconds,
        count=chunks,
    )
    return Task(
        name,
        source=source,
        preprocessors=[splice],
        output_features={
            "audio": _real(2),
            "onsets": _real(2),
            "velocities": _real(2),
            "lengths": Feature(PassThroughVocabulary(0), add_eos=False, rank=0),
        },
    )
