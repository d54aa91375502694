"""Spectrogram inputs of MT3, under upstream's names; defined in `musax.spectrograms`."""

from musax.spectrograms import (
    DEFAULT_HOP_WIDTH,
    DEFAULT_NUM_MEL_BINS,
    DEFAULT_SAMPLE_RATE,
    FFT_SIZE,
    MEL_LO_HZ,
    SpectrogramConfig,
    audio_to_frames,
    compute_spectrogram,
    flatten_frames,
    input_depth,
    pad_features,
    split_audio,
)

__all__ = [
    "DEFAULT_HOP_WIDTH",
    "DEFAULT_NUM_MEL_BINS",
    "DEFAULT_SAMPLE_RATE",
    "FFT_SIZE",
    "MEL_LO_HZ",
    "SpectrogramConfig",
    "audio_to_frames",
    "compute_spectrogram",
    "flatten_frames",
    "input_depth",
    "pad_features",
    "split_audio",
]
