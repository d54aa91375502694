"""Training examples from takes (`musax.datasets.rendered_midi`): random segments, augmented.

Preprocessors, in order: `augment_take`, `cut_segments` (one take, many segments with their tokens),
`vary_features`, `finish_targets`. Effects and spectrogram are computed once for a take, since they
cost more than everything else; each segment then gets a level and a colour of its own.
"""

from collections.abc import Iterator

import numpy as np

from mt3.segments import SegmentConfig, segment_features
from musax.audio import to_float
from musax.datasets.rendered_midi import take_notes
from musax.events.codec import Codec
from musax.events.spec import EncodingSpec
from musax.events.tokenize import notes_to_tokens
from musax.rendering.augment import AugmentConfig, augment
from musax.spectrograms import SpectrogramConfig, compute_spectrogram

_LOG_OF_DB = np.log(10) / 20


def augment_take(
    take: dict[str, np.ndarray], rng: np.random.Generator, *, config: AugmentConfig | None
) -> dict[str, np.ndarray]:
    """Convert `audio` to float32; add room, colour, noise and gain if `config` is given."""
    audio = to_float(take["audio"], "a take's audio")
    if config is not None:
        audio = augment(audio, int(take["sample_rate"]), rng, config)
    return {**take, "audio": audio}


def cut_segments(
    take: dict[str, np.ndarray],
    rng: np.random.Generator,
    *,
    count: int,
    segment: SegmentConfig,
    spectrogram: SpectrogramConfig,
    codec: Codec,
    spec: EncodingSpec,
) -> Iterator[dict[str, np.ndarray]]:
    """Yield `count` segments of a take, each starting at a random frame.

    Yields `inputs` float32 [input_frames, F] and `targets` int32 [L], codec ids.

    Raises:
      ValueError: if the take has another sample rate than the spectrogram.
    """
    if int(take["sample_rate"]) != spectrogram.sample_rate:
        raise ValueError(
            f"a take at {int(take['sample_rate'])} Hz, but the spectrogram needs "
            f"{spectrogram.sample_rate} Hz; prepare the dataset with --sample-rate"
        )
    notes, audio = take_notes(take), take["audio"]
    hop, length = spectrogram.hop_width, segment.samples(spectrogram)
    before, after = segment.margins(spectrogram)
    if segment.centred:
        whole = compute_spectrogram(np.pad(audio, (before, after)), spectrogram, pad="none")
        whole = (whole + np.float32(segment.offset)) * np.float32(segment.scale)
    for first in rng.integers(0, max(1, (len(audio) - length) // hop + 1), count):
        if segment.centred:
            inputs = whole[first : first + segment.input_frames].copy()
        else:
            piece = audio[first * hop : first * hop + length]
            inputs = segment_features(piece, segment, spectrogram)
        onset_s = first * hop / spectrogram.sample_rate
        tokens = notes_to_tokens(
            notes, onset_s, onset_s + segment.seconds(spectrogram), codec, spec, align="segment"
        )
        yield {"inputs": inputs, "targets": tokens}


def vary_features(
    example: dict[str, np.ndarray],
    rng: np.random.Generator,
    *,
    segment: SegmentConfig,
    spectrogram: SpectrogramConfig,
    level_db: tuple[float, float],
    colour_db: float,
) -> dict[str, np.ndarray]:
    """Add a random level and smooth colour to a segment's log spectrum, above the floor.

    Args:
      level_db: range of the level.
      colour_db: standard deviation of the colour at 3 to 8 points along the bands.
    """
    inputs = example["inputs"]
    bands = np.linspace(0, 1, inputs.shape[1])
    points = int(rng.integers(3, 9))
    colour = rng.normal(0, rng.uniform(0, colour_db), points)
    change = rng.uniform(*level_db) + np.interp(bands, np.linspace(0, 1, points), colour)
    inputs = inputs + (change * _LOG_OF_DB * segment.scale).astype(np.float32)
    floor = (np.log(spectrogram.log_floor) + segment.offset) * segment.scale
    return {**example, "inputs": np.maximum(inputs, np.float32(floor), out=inputs)}


def finish_targets(
    example: dict[str, np.ndarray], sequence_length: dict[str, int], *, first_id: int, eos_id: int
) -> dict[str, np.ndarray] | None:
    """Convert codec ids to vocabulary ids with EOS; None if they do not fit `sequence_length`."""
    if len(example["targets"]) + 1 > sequence_length["targets"]:
        return None
    targets = np.append(example["targets"] + first_id, eos_id).astype(np.int32)
    return {**example, "targets": targets}
