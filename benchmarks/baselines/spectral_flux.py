"""Drum transcription without learning: spectral flux in bands, for comparison with learned models.

1. A log-mel spectrogram (10 ms); its half-wave rectified rise over two frames, summed over a low, a
   middle and a high band (Bello et al. 2005; Dixon 2006).
2. Peaks of each band above a moving median are hits of the kick, the snare and the closed hi-hat. A
   peak of the middle band counts as a snare only where the high band rises too, so that the click
   of a kick is none.
3. The height of a peak beside the highest of its band is the velocity.

The constants were chosen on rendered validation takes.
"""

import numpy as np
from scipy.ndimage import maximum_filter1d, median_filter

from musax.audio import resample
from musax.notes import make_notes, sort_notes
from musax.spectrograms import SpectrogramConfig, compute_spectrogram, mel_frequencies

SAMPLE_RATE = 44100
CONFIG = SpectrogramConfig(
    SAMPLE_RATE,
    hop_width=441,
    num_mel_bins=80,
    lo_hz=30.0,
    hi_hz=16000.0,
    log_floor=1e-3,
    clamp=True,
)
KICK, SNARE, HAT = 36, 38, 42
#: Pitch: lowest and highest frequency (Hz), share of the highest peak that a hit needs.
BANDS = {KICK: (30.0, 120.0, 0.25), SNARE: (180.0, 3000.0, 0.3), HAT: (6000.0, 16000.0, 0.2)}
SNARE_NEEDS_HIGH = 0.25
RADIUS = 3  # frames
MEDIAN_FRAMES = 51


def transcribe(audio: np.ndarray, sample_rate: int) -> np.ndarray:
    """Return hits of kick, snare and hi-hat: NOTE_DTYPE, by onset.

    Args:
      audio: float32 [samples].
      sample_rate: Hz.
    """
    samples = resample(audio, sample_rate, SAMPLE_RATE)
    half = CONFIG.fft_size // 2
    spectrum = compute_spectrogram(np.pad(samples, half), CONFIG, pad="none")
    rise = np.zeros_like(spectrum)
    rise[2:] = np.maximum(spectrum[2:] - spectrum[:-2], 0.0)
    hz = mel_frequencies(CONFIG.num_mel_bins, CONFIG.lo_hz, CONFIG.hi_hz)
    fluxes = {
        pitch: rise[:, (hz >= low) & (hz <= high)].mean(axis=1)
        for pitch, (low, high, _) in BANDS.items()
    }
    parts = [_hits(pitch, fluxes) for pitch in BANDS]
    return sort_notes(np.concatenate(parts))


def _hits(pitch: int, fluxes: dict[int, np.ndarray]) -> np.ndarray:
    flux = fluxes[pitch] - median_filter(fluxes[pitch], MEDIAN_FRAMES)
    highest = float(flux.max(initial=0.0))
    if highest <= 0:
        return make_notes([], [], [], [])
    peak = (flux == maximum_filter1d(flux, 2 * RADIUS + 1)) & (flux > BANDS[pitch][2] * highest)
    if pitch == SNARE:
        high = maximum_filter1d(fluxes[HAT], 2 * RADIUS + 1)
        peak &= high > SNARE_NEEDS_HIGH * float(fluxes[HAT].max(initial=0.0))
    frame = np.flatnonzero(peak)
    onset = frame / CONFIG.frames_per_second
    velocity = np.clip(127 * flux[frame] / highest, 1, 127).astype(int)
    return make_notes(onset, onset + 0.05, pitch, velocity, 0, np.True_)
