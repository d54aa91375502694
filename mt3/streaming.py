"""A stream of samples cut into segments, in memory that does not grow with the recording."""

import dataclasses
import math
from collections.abc import Iterable, Iterator

import numpy as np

from mt3.segments import SegmentConfig
from musax.events.decode import segment_start_time
from musax.spectrograms import SpectrogramConfig


@dataclasses.dataclass(frozen=True)
class StreamedSegment:
    """One segment of a recording.

    Attributes:
      start_time: what shift 0 in its tokens means, s.
      end_time: end of the audio it covers, s.
      audio: float32 [before + samples + after] for `mt3.segments.segment_features`; the last one of
        a recording may be shorter unless segments are centred.
    """

    start_time: float
    end_time: float
    audio: np.ndarray

    @property
    def silent(self) -> bool:
        """Whether every sample is 0."""
        return not self.audio.any()


def steps_per_segment(
    segment: SegmentConfig, spectrogram: SpectrogramConfig, steps_per_second: float
) -> int:
    """Return the number of token steps in which the events of one segment may lie.

    Centred segments, which may begin at any sample, follow each other by whole steps, so that every
    moment rounds to a step of exactly one of them. Others may begin anywhere within a step.
    """
    steps = segment.seconds(spectrogram) * steps_per_second
    return max(1, math.floor(steps + 1e-6)) if segment.centred else math.ceil(steps - 1e-6)


def segment_stride(
    segment: SegmentConfig, spectrogram: SpectrogramConfig, steps_per_second: float
) -> int:
    """Return the samples from the start of a segment to the start of the next."""
    if not segment.centred:
        return segment.samples(spectrogram)
    steps = steps_per_segment(segment, spectrogram, steps_per_second)
    return round(steps * spectrogram.sample_rate / steps_per_second)


def stream_segments(
    chunks: Iterable[np.ndarray],
    segment: SegmentConfig,
    spectrogram: SpectrogramConfig,
    steps_per_second: float,
) -> Iterator[StreamedSegment]:
    """Cut a recording into consecutive segments.

    Centred segments follow each other by `segment_stride` and cover the last sample. Others follow
    the reference: the recording gets `hop - length % hop` zeros first (so always at least one), the
    last segment is the remainder, and segments start at the token step of their first frame.

    Args:
      chunks: float32 [n] pieces of the recording, in order and of any lengths.
      segment, spectrogram: how to cut.
      steps_per_second: of the tokens, Hz.
    """
    before, after = segment.margins(spectrogram)
    needed = before + segment.samples(spectrogram) + after
    stride = segment_stride(segment, spectrogram, steps_per_second)
    buffer, count, total = np.zeros(before, np.float32), 0, 0

    def make(audio: np.ndarray) -> StreamedSegment:
        start = count * stride / spectrogram.sample_rate
        end = start + stride / spectrogram.sample_rate
        if not segment.centred:
            start = segment_start_time(float(np.float32(start)), steps_per_second)
        return StreamedSegment(start, end, audio)

    for chunk in chunks:
        total += len(chunk)
        buffer = np.concatenate([buffer, chunk])
        position = 0
        while len(buffer) - position >= needed:
            yield make(buffer[position : position + needed].copy())
            position += stride
            count += 1
        buffer = buffer[position:]
    if not segment.centred:
        hop = spectrogram.hop_width
        yield make(np.pad(buffer, (0, hop - len(buffer) % hop)))
        return
    while count * stride < total:
        yield make(np.pad(buffer, (0, max(0, needed - len(buffer))))[:needed])
        buffer = buffer[stride:]
        count += 1
