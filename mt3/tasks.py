"""The tasks MT3 trains on."""

import functools
from pathlib import Path

import numpy as np

from mt3 import rendered
from mt3.segments import SegmentConfig
from mt3.vocabularies import VocabularyConfig, build_codec, vocabulary_from_codec
from musax.events.spec import EncodingSpec
from musax.rendering.augment import AugmentConfig
from musax.spectrograms import SpectrogramConfig
from t5x.data.features import ContinuousFeature, Feature
from t5x.data.sources import ArrayRecordSource
from t5x.data.tasks import Task
from t5x.data.vocabularies import NUM_SPECIAL_IDS


def rendered_midi_task(
    directory: str,
    *,
    spectrogram_config: SpectrogramConfig,
    vocab_config: VocabularyConfig,
    segment: SegmentConfig,
    spec: EncodingSpec,
    augment: AugmentConfig | None = None,
    level_db: tuple[float, float] = (0.0, 0.0),
    colour_db: float = 0.0,
    segments_per_take: int = 32,
) -> Task:
    """Transcription of takes that `scripts/prepare_dataset.py rendered_midi` wrote.

    Args:
      directory: the folder of shards; its splits are those whose shards are there.
      spectrogram_config, segment: what the network sees.
      vocab_config, spec: what it writes.
      augment: effects on a take, in every split; None leaves it as it was rendered.
      level_db, colour_db: variation of each segment, see `mt3.rendered.vary_features`.
      segments_per_take: random segments cut from a take in an epoch.

    Raises:
      FileNotFoundError: if there are no shards.
    """
    splits = {
        split: str(Path(directory) / f"{split}-*.array_record")
        for split in ("train", "valid", "test")
        if any(Path(directory).glob(f"{split}-*.array_record"))
    }
    if not splits:
        raise FileNotFoundError(
            f"{directory}: no train-*.array_record there; make them with "
            "scripts/prepare_dataset.py rendered_midi"
        )
    codec = build_codec(vocab_config)
    vocabulary = vocabulary_from_codec(codec)
    seen = {"segment": segment, "spectrogram": spectrogram_config}
    return Task(
        f"rendered_midi_{Path(directory).name}",
        source=ArrayRecordSource(splits),
        preprocessors=[
            functools.partial(rendered.augment_take, config=augment),
            functools.partial(
                rendered.cut_segments, count=segments_per_take, codec=codec, spec=spec, **seen
            ),
            functools.partial(
                rendered.vary_features, level_db=level_db, colour_db=colour_db, **seen
            ),
            functools.partial(
                rendered.finish_targets,
                first_id=NUM_SPECIAL_IDS,
                eos_id=vocabulary.eos_id,
            ),
        ],
        output_features={
            "inputs": ContinuousFeature(dtype=np.float32, rank=2),
            "targets": Feature(vocabulary=vocabulary),
        },
    )
