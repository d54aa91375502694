"""The tasks MT3 trains on."""

import functools
from pathlib import Path

import gin
import numpy as np

from mt3 import mixing, preprocessors, rendered
from mt3.segments import SegmentConfig
from mt3.vocabularies import VocabularyConfig, build_codec, vocabulary_from_codec
from musax.events.spec import EncodingSpec
from musax.rendering.augment import AugmentConfig
from musax.spectrograms import SpectrogramConfig
from t5x.data.features import ContinuousFeature, Feature
from t5x.data.sources import ArrayRecordSource, Source
from t5x.data.tasks import Task, TaskRegistry
from t5x.data.vocabularies import EOS_ID, NUM_SPECIAL_IDS


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
    """Return the transcription task of takes that `musax prepare rendered-midi` wrote.

    Args:
      directory: the folder of shards; its splits are those with shards.
      spectrogram_config, segment: the network's input.
      vocab_config, spec: its output.
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
            "musax prepare rendered-midi"
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
                eos_id=EOS_ID,
            ),
        ],
        output_features={
            "inputs": ContinuousFeature(dtype=np.float32, rank=2),
            "targets": Feature(vocabulary=vocabulary),
        },
    )


@gin.configurable(module="mt3.tasks")  # pyright: ignore[reportCallIssue]
def construct_task_name(
    task_prefix: str,
    spectrogram_config: SpectrogramConfig | None = None,
    vocab_config: VocabularyConfig | None = None,
    task_suffix: str | None = None,
) -> str:
    """Return upstream's name for a task, such as `maestrov3_notes_ties_vb1_train`.

    Settings that are not defaults add their abbreviation.
    """
    settings = (spectrogram_config or SpectrogramConfig(), vocab_config or VocabularyConfig())
    parts = [task_prefix, *(config.abbrev_str for config in settings), task_suffix]
    return "_".join(part for part in parts if part)


def add_transcription_task(
    dataset_name: str,
    source: Source,
    *,
    spectrogram_config: SpectrogramConfig | None = None,
    vocab_config: VocabularyConfig | None = None,
    onsets_only: bool = False,
    include_ties: bool = False,
    task_suffix: str = "train",
    training: bool = True,
    skip_too_long: bool = False,
) -> Task:
    """Register the reference's transcription task on a source of recordings with notes.

    Args:
      dataset_name: such as "maestrov3"; the task is named as upstream names it,
        `{dataset}_{onsets|notes}[_ties][_settings]_{suffix}`.
      source: its examples hold `audio` float32 [n], `sample_rate` in Hz and `notes` (or the note
        columns). Chunks of about 16 s are right for training, since an epoch takes one random
        segment of each.
      spectrogram_config, vocab_config: upstream's by default.
      onsets_only: targets without offsets.
      include_ties: segments begin with the notes that sound on.
      training: random segments with targets, mixed if gin sets
        `mixing.mix_transcription_examples.max_examples_per_mix`; otherwise consecutive segments
        without targets, for inference.
      skip_too_long: leave out examples whose targets do not fit instead of stopping.
    """
    spectrogram_config = spectrogram_config or SpectrogramConfig()
    vocab_config = vocab_config or VocabularyConfig()
    codec = build_codec(vocab_config)
    spec = EncodingSpec(offsets=not onsets_only, ties=include_ties)
    prefix = f"{dataset_name}_{'onsets' if onsets_only else 'notes'}"
    prefix += "_ties" if include_ties else ""
    steps = _training_steps if training else _inference_steps
    return TaskRegistry.add(
        construct_task_name(prefix, spectrogram_config, vocab_config, task_suffix),
        source=source,
        preprocessors=[
            _with_note_table,
            *steps(source, spectrogram_config, codec, spec),
            functools.partial(
                preprocessors.compute_spectrograms, spectrogram_config=spectrogram_config
            ),
            functools.partial(preprocessors.handle_too_long, skip=skip_too_long),
            preprocessors.tokenize_and_append_eos,
        ],
        output_features={
            "inputs": ContinuousFeature(dtype=np.float32, rank=2),
            "targets": Feature(vocabulary=vocabulary_from_codec(codec)),
        },
    )


def _with_note_table(example: dict) -> dict:
    return example if "notes" in example else preprocessors.notes_from_columns(example)


def _training_steps(source: Source, spectrogram_config, codec, spec: EncodingSpec) -> list:
    segment = functools.partial(
        preprocessors.random_segment, spectrogram_config=spectrogram_config, codec=codec, spec=spec
    )

    def prepare(example, rng, sequence_length):
        return segment(_with_note_table(example), rng, sequence_length)

    return [
        segment,
        functools.partial(
            mixing.mix_transcription_examples,
            others=functools.partial(source.sequence, "train"),
            prepare=prepare,
            codec=codec,
        ),
        functools.partial(preprocessors.map_midi_programs, codec=codec),
        functools.partial(preprocessors.remove_redundant_state_changes, codec=codec),
    ]


def _inference_steps(source: Source, spectrogram_config, codec, spec: EncodingSpec) -> list:
    del source
    return [
        functools.partial(
            preprocessors.tokenize, spectrogram_config=spectrogram_config, codec=codec, spec=spec
        ),
        preprocessors.split_tokens_to_inputs_length,
        preprocessors.add_dummy_targets,
    ]
