"""Log-mel spectrograms in dB, computed on the device.

The defaults are OaF Drums' (Callender et al. 2020, and its code): 44.1 kHz, centred Hann frames of
2048 samples, 250 HTK mel bands of equal area from 30 Hz up, power, dB, cut 80 dB below the loudest
cell. They equal librosa's `power_to_db(melspectrogram(...))`.

That cut is relative to the loudest hit of the transformed audio, so the noise floor of a training
chunk differs from that of the whole record. With `floor_db` it is a fixed level below full
scale instead; records are normalised to it, so training and inference see the same floor.

Letters in shapes: N samples, T frames, F bands.
"""

import dataclasses
import functools
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import scipy.signal
from jax import Array

from musax import spectrograms

POWER_FLOOR = 1e-10  # -100 dB


@dataclasses.dataclass(frozen=True)
class DrumFeatures:
    """Configuration of a network's input features.

    Attributes:
      sample_rate: Hz.
      hop_width: samples between frames.
      num_mel_bins: F.
      fft_size: samples of a frame.
      lo_hz: lower edge of the lowest band; the upper edge of the highest is half the sample rate.
      top_db: dynamic range below the loudest cell, dB; None for no limit.
      floor_db: cut at this level, dB of a mel band's power at full scale 1.
      padding: what surrounds the samples: "reflect" or "constant" (zeros) centre frame i on sample
        i·hop; "none" takes frames from the samples alone, the first one from the first sample on.
      offset_db, scale_db: the network's input is (dB + offset) / scale.
    """

    sample_rate: int = 44100
    hop_width: int = 512
    num_mel_bins: int = 250
    fft_size: int = 2048
    lo_hz: float = 30.0
    top_db: float | None = 80.0
    floor_db: float = -100.0
    padding: Literal["reflect", "constant", "none"] = "reflect"
    offset_db: float = 0.0
    scale_db: float = 1.0

    def __post_init__(self):
        for name in ("sample_rate", "hop_width", "num_mel_bins", "fft_size", "scale_db"):
            if not getattr(self, name) > 0:
                raise ValueError(f"DrumFeatures.{name}={getattr(self, name)}: must be > 0")
        if self.padding not in ("reflect", "constant", "none"):
            raise ValueError(
                f"DrumFeatures.padding={self.padding!r}: expected 'reflect', 'constant' or 'none'"
            )

    @property
    def frames_per_second(self) -> float:
        """Frame rate, Hz."""
        return self.sample_rate / self.hop_width

    @property
    def silence(self) -> float:
        """The network's input in silence where the floor is fixed: its least value."""
        return (max(self.floor_db, -100.0) + self.offset_db) / self.scale_db

    def num_frames(self, num_samples: int) -> int:
        """Return the number of frames that `log_mel` computes from `num_samples` samples."""
        pad = "none" if self.padding == "none" else "center"
        return spectrograms.num_frames(num_samples, self.fft_size, self.hop_width, pad)

    def samples_of(self, num_frames: int) -> int:
        """Return the number of samples under `num_frames` consecutive frames."""
        return (num_frames - 1) * self.hop_width + self.fft_size


@functools.lru_cache(maxsize=8)
def filterbank(config: DrumFeatures) -> np.ndarray:
    """Return float32 [fft_size//2 + 1, F], as `librosa.filters.mel(htk=True)`, transposed."""
    return spectrograms.mel_filterbank(
        config.sample_rate,
        config.fft_size,
        config.num_mel_bins,
        config.lo_hz,
        config.sample_rate / 2,
        scale="htk",
        norm="slaney",
        triangles="hz",
    )


def mel_power(audio: Array, config: DrumFeatures) -> Array:
    """Return the power of the bands: float32 [..., N] -> float32 [..., T, F].

    Raises:
      ValueError: fewer samples than half a frame cannot be reflected.
    """
    frames = spectrograms.frame(
        jnp.asarray(audio, jnp.float32),
        config.fft_size,
        config.hop_width,
        pad="none" if config.padding == "none" else "center",
        pad_mode=config.padding,
        xp=jnp,
    )
    # librosa's window, rounded once; `spectrograms.hann_window` is rounded as TensorFlow's.
    window = np.asarray(scipy.signal.get_window("hann", config.fft_size), np.float32)
    spectrum = jnp.fft.rfft(frames * window)
    power = jnp.square(spectrum.real) + jnp.square(spectrum.imag)
    return spectrograms.apply_filterbank(power, filterbank(config), jnp)


def log_mel(audio: Array, config: DrumFeatures) -> Array:
    """Return the network's input: float32 [..., N] -> float32 [..., T, F]; pure, to be jitted."""
    db = 10.0 * jnp.log10(jnp.maximum(mel_power(audio, config), POWER_FLOOR))
    if config.top_db is not None:
        db = jnp.maximum(db, db.max(axis=(-2, -1), keepdims=True) - config.top_db)
    return (jnp.maximum(db, config.floor_db) + config.offset_db) / config.scale_db


#: `log_mel`, compiled once for a configuration and a number of samples.
compute_log_mel = jax.jit(log_mel, static_argnums=1)
