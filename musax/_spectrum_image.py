"""Spectra as pictures over a logarithmic frequency axis, for `musax.plots`."""

import dataclasses

import numpy as np

from musax import spectrograms


def hz_to_pitch(hz):
    """Convert Hz to MIDI pitch (A4 = 440 Hz = 69), fractional."""
    return 69.0 + 12.0 * np.log2(np.asarray(hz, np.float64) / 440.0)


def pitch_to_hz(pitch):
    """Convert MIDI pitch to Hz."""
    return 440.0 * 2.0 ** ((np.asarray(pitch, np.float64) - 69.0) / 12.0)


@dataclasses.dataclass(frozen=True)
class SpectrumImage:
    """Level in dB on an even grid: [pitches, frames]; the limits are those of the outer edges."""

    level_db: np.ndarray
    seconds: tuple[float, float]
    pitches: tuple[float, float]


def log_frequency_image(
    audio: np.ndarray,
    sample_rate: int,
    *,
    pitches: tuple[float, float] = (21.0, 120.0),
    bins_per_semitone: int = 4,
    frames_per_second: float = 100.0,
) -> SpectrumImage:
    """Return the spectrum over a logarithmic frequency axis: mean level (dB) of two resolutions.

    A long window (0.26 s) separates partials, a short one (0.06 s) onsets; only what both see
    stays dark. Windows are centred on their frame's time.

    Args:
      audio: float [samples] or [samples, channels]. sample_rate: Hz.
      pitches: lowest and highest MIDI pitch; cut at half the sample rate.
    """
    audio = audio.mean(axis=1) if audio.ndim == 2 else audio
    hop = max(1, round(sample_rate / frames_per_second))
    low, high = pitches[0], min(pitches[1], float(hz_to_pitch(0.49 * sample_rate)))
    grid = np.arange(low, high, 1.0 / bins_per_semitone)
    audio = audio.astype(np.float32)
    levels = [_level_at(audio, sample_rate, hop, grid, seconds) for seconds in (0.256, 0.064)]
    level = (levels[0] + levels[1]) / 2 + 0.25 * (grid - grid[0])  # ears, too, expect 3 dB/octave
    half = 0.5 / bins_per_semitone
    span = (-0.5 * hop / sample_rate, (len(level) - 0.5) * hop / sample_rate)
    return SpectrumImage(level.T, span, (grid[0] - half, grid[-1] + half))


def _level_at(audio, sample_rate: int, hop: int, pitches, window_seconds: float) -> np.ndarray:
    """Return the level (dB) at the given pitches in centred frames: [frames, pitches]."""
    window = 2 * round(window_seconds / 2 * sample_rate)
    fft_size = 4 * window  # zeros between the bins: a smooth curve to read the pitches from
    magnitude = spectrograms.stft_magnitude(
        audio, fft_size, hop, window_size=window, pad="center", pad_mode="constant"
    )
    bins = pitch_to_hz(pitches) * fft_size / sample_rate
    below, share = bins.astype(int), bins % 1.0
    values = magnitude[:, below] * (1 - share) + magnitude[:, below + 1] * share
    return 20.0 * np.log10(np.maximum(values / window, 1e-7))


def log_mel_image(
    log_mel: np.ndarray,
    config: spectrograms.SpectrogramConfig | None = None,
    *,
    bins_per_semitone: int = 4,
) -> SpectrumImage:
    """Return a model's own input, [frames, mel bins], over a logarithmic frequency axis.

    Each frame is drawn at the middle of its window, so that onsets stand where they sound.
    """
    config = config or spectrograms.SpectrogramConfig()
    weights = spectrograms.config_filterbank(config)
    covered = weights.any(axis=0)  # narrow low bands may lie between two bins
    centres = spectrograms.mel_frequencies(
        config.num_mel_bins, config.lo_hz, config.hi_hz, config.mel_scale
    )
    position = hz_to_pitch(centres[covered])
    grid = np.arange(np.ceil(position[0]), position[-1], 1.0 / bins_per_semitone)
    level = 20.0 / np.log(10.0) / config.power * np.asarray(log_mel)[:, covered]
    above = np.clip(np.searchsorted(position, grid), 1, len(position) - 1)
    share = (grid - position[above - 1]) / (position[above] - position[above - 1])
    values = level[:, above - 1] * (1 - share) + level[:, above] * share
    hop, middle = 1 / config.frames_per_second, config.window / 2 / config.sample_rate
    span = (middle - hop / 2, middle + (len(values) - 0.5) * hop)
    half = 0.5 / bins_per_semitone
    return SpectrumImage(values.T, span, (grid[0] - half, grid[-1] + half))
