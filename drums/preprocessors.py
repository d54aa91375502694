"""Training examples from rendered or recorded takes.

A take is `{"audio": samples [N], "sample_rate": Hz, **note columns}`, see
`musax.datasets.rendered_drums`. Letters in shapes: S chunks, N samples, T frames, K classes.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from drums.features import DrumFeatures
from drums.labels import class_targets, reference_rolls
from musax.audio import to_float
from musax.datasets.rendered_midi import take_notes
from musax.notes import shift_notes
from musax.rendering.augment import AugmentConfig, augment, from_db

Take = dict[str, np.ndarray]
#: Audio before a piece that effects process too, so that the reverberation is already there, s.
LEAD_SECONDS = 0.4


def peak_normalize(audio: np.ndarray) -> np.ndarray:
    """Scale so that the loudest sample is 1; silence stays silent."""
    peak = float(np.abs(audio).max(initial=0.0))
    return audio / np.float32(peak) if peak > 0 else audio


def check_rate(take: Take, features: DrumFeatures) -> None:
    """Raise ValueError unless a take has the sample rate of the features."""
    if int(take["sample_rate"]) != features.sample_rate:
        raise ValueError(
            f"a take at {int(take['sample_rate'])} Hz, but the features need "
            f"{features.sample_rate} Hz; prepare the dataset with --sample-rate"
        )


def cut_pieces(
    take: Take,
    rng: np.random.Generator,
    *,
    features: DrumFeatures,
    level: str,
    frames: int,
    count: int,
    neighbour: float = 0.5,
    augmentation: AugmentConfig | None = None,
    level_db: tuple[float, float] = (0.0, 0.0),
) -> Iterator[Take]:
    """Yield `count` random pieces of a take for `drums.models.DrumModel`.

    Args:
      features: must have padding="none": a piece has the samples under its frames.
      level: of the targets.
      frames: T.
      neighbour: see `class_targets`.
      augmentation: effects on each piece; None for none.
      level_db: range of the peak of the take, dB of full scale.

    Yields:
      `audio` float32 [1, N]; `onsets`, `velocities`, `offsets`, `weights` float32 [T, K].

    Raises:
      ValueError: another sample rate.
    """
    check_rate(take, features)
    audio, notes = peak_normalize(to_float(take["audio"], "a take's audio")), take_notes(take)
    hop, half = features.hop_width, features.fft_size // 2
    length, lead = features.samples_of(frames), round(LEAD_SECONDS * features.sample_rate)
    for _ in range(count):
        first = int(rng.integers(0, max(1, len(audio) - length)))
        begin = max(0, first - lead)
        piece = audio[begin : first + length]
        if augmentation is not None:
            piece = augment(piece, features.sample_rate, rng, augmentation)
        piece = piece[first - begin :] * np.float32(from_db(rng.uniform(*level_db)))
        # The first frame is centred half a frame into the piece.
        near = shift_notes(notes, -(first + half) / features.sample_rate)
        near = near[(near["onset"] > -0.1) & (near["onset"] < frames * hop / features.sample_rate)]
        targets = class_targets(near, level, features.frames_per_second, frames, neighbour)
        yield {
            "audio": np.pad(piece, (0, length - len(piece)))[None].astype(np.float32),
            **targets._asdict(),
        }


def splice_chunks(
    take: Take,
    rng: np.random.Generator,
    *,
    features: DrumFeatures,
    others: Callable[[], Sequence[Take]],
    level: str = "8-hit",
    seconds: float = 1.0,
    count: int = 12,
    max_frames: int = 1200,
) -> Take:
    """Return a training example of OaF Drums: chunks of `count` records, joined in time.

    Args:
      take: the record of the first chunk.
      features: the reference's.
      others: returns the sequence of records that the other chunks are drawn from.
      level: of the targets.
      seconds: length of a chunk.
      count: S.
      max_frames: T is at most this.

    Returns:
      `audio` float32 [S, N]; `onsets`, `velocities` float32 [T, 88]; `lengths` int32, frames.

    Raises:
      ValueError: another sample rate.
    """
    records = others()
    takes = [take, *(records[int(i)] for i in rng.integers(0, len(records), count - 1))]
    frames = min(int(seconds * features.frames_per_second), max_frames // count)
    chunks = [_random_chunk(t, rng, features, level, seconds, frames) for t in takes]
    audio, onsets, velocities = zip(*chunks)
    return {
        "audio": np.stack(audio),
        "onsets": np.concatenate(onsets),
        "velocities": np.concatenate(velocities),
        "lengths": np.int32(frames * count),  # type: ignore[dict-item]
    }


def _random_chunk(
    take: Take,
    rng: np.random.Generator,
    features: DrumFeatures,
    level: str,
    seconds: float,
    frames: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return audio [N], onsets and velocities [frames, 88] of a random second of a record."""
    check_rate(take, features)
    audio, notes = peak_normalize(to_float(take["audio"], "a take's audio")), take_notes(take)
    length = round(seconds * features.sample_rate)
    audio = np.pad(audio, (0, max(0, length - len(audio))))
    first = int(rng.integers(0, len(audio) - length + 1))
    near = shift_notes(notes, -first / features.sample_rate)
    # Velocities are relative to the whole record's loudest.
    loudest = int(notes["velocity"].max(initial=1))
    rate = features.frames_per_second
    rolls = reference_rolls(near[near["onset"] >= 0], rate, frames, loudest, level=level)
    return audio[first : first + length], *rolls
