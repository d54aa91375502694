"""Segments of a recording, which the network transcribes one by one."""

import dataclasses

import numpy as np

from musax.spectrograms import SpectrogramConfig, compute_spectrogram, pad_features


@dataclasses.dataclass(frozen=True)
class SegmentConfig:
    """A segment and the features of it that the network gets.

    Attributes:
      frames: length of a segment, spectrogram frames (MT3: 256; ISMIR 2021: 512).
      context_frames: input frames on each side of a segment, centred ones only.
      centred: False computes the spectrogram from the segment's own samples, as the reference does
        in training and inference: frame j covers samples j·hop …, with zeros after the segment.
        True centres frame j on sample (j - context_frames)·hop of the recording, so that neighbours
        are seen across the border.
      offset, scale: features are (log_mel + offset) · scale.
    """

    frames: int = 256
    context_frames: int = 0
    centred: bool = False
    offset: float = 0.0
    scale: float = 1.0

    def __post_init__(self):
        if self.frames <= 0 or self.context_frames < 0:
            raise ValueError(f"{self}: frames must be positive and context_frames not negative")
        if self.context_frames and not self.centred:
            raise ValueError(f"{self}: only centred segments have context frames")

    @property
    def input_frames(self) -> int:
        """Number of input frames of the network."""
        return self.frames + 2 * self.context_frames

    def samples(self, spectrogram: SpectrogramConfig) -> int:
        """Return the length of a segment, samples."""
        return self.frames * spectrogram.hop_width

    def seconds(self, spectrogram: SpectrogramConfig) -> float:
        """Return the length of a segment, s."""
        return self.samples(spectrogram) / spectrogram.sample_rate

    def margins(self, spectrogram: SpectrogramConfig) -> tuple[int, int]:
        """Return how many samples `segment_features` needs before the segment and after it."""
        if not self.centred:
            return 0, 0
        hop, half = spectrogram.hop_width, spectrogram.window // 2
        return self.context_frames * hop + half, (self.context_frames - 1) * hop + half


def segment_features(
    audio: np.ndarray, segment: SegmentConfig, spectrogram: SpectrogramConfig, xp=np
) -> np.ndarray:
    """Return features: float32 [..., before + samples + after] -> [..., input_frames, F].

    `audio` holds the segment and `segment.margins` around it, zeros where the recording has no
    sound. Without centring it may be shorter (the end of a recording): missing frames are 0.0, as
    the reference pads them.

    Raises:
      ValueError: if the audio has another length.
    """
    before, after = segment.margins(spectrogram)
    expected = before + segment.samples(spectrogram) + after
    length = audio.shape[-1]
    if length > expected or (segment.centred and length < expected):
        raise ValueError(f"segment audio has {length} samples, expected {expected}")
    pad = "none" if segment.centred else "end"
    log_mel = compute_spectrogram(audio, spectrogram, xp, pad=pad)
    features = (log_mel + np.float32(segment.offset)) * np.float32(segment.scale)
    return features if segment.centred else pad_features(features, segment.frames, xp)
