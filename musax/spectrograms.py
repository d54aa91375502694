"""Short-time spectra and log-mel spectrograms, one definition for NumPy and jax.numpy.

Building blocks: `num_frames`, `frame`, `hann_window`, `stft`, `stft_magnitude`, `mel_filterbank`.
On top of them `compute_spectrogram`, whose defaults are the log-mel of MT3 (Gardner et al. 2022):
magnitude of a 2048-point transform of periodic-Hann frames every 128 samples at 16 kHz, zero
padding at the end only, 512 HTK mel bands from 20 to 7600 Hz, natural logarithm.

`xp` chooses the array library: `numpy` (default; works through long audio in blocks, so memory
beyond the input and the result stays bounded) or `jax.numpy` (traceable and differentiable).
"""

import dataclasses
import functools
from typing import Any, Literal

import numpy as np
import scipy.fft

from musax import _float32

Array = Any  # np.ndarray or jax.Array, depending on `xp`
MelScale = Literal["htk", "slaney"]

DEFAULT_SAMPLE_RATE = 16000
DEFAULT_HOP_WIDTH = 128
DEFAULT_NUM_MEL_BINS = 512
FFT_SIZE = 2048
MEL_LO_HZ = 20.0
MEL_HI_HZ = 7600.0
LOG_FLOOR = 1e-5

_BLOCK_FRAMES = 128  # frames transformed together by NumPy: about 2 MB, which stays in cache
_BAND_GROUP = 32  # mel bands multiplied together by NumPy


@dataclasses.dataclass(frozen=True)
class SpectrogramConfig:
    """Configuration of a log-mel spectrogram. The defaults are MT3's.

    Attributes:
      sample_rate: Hz.
      hop_width: samples between frames.
      num_mel_bins: mel bands.
      fft_size: points of the transform.
      lo_hz, hi_hz: edges of the lowest and the highest band, Hz.
      window_size: samples of the Hann window, at most `fft_size`; None is `fft_size`.
      power: 1.0 for magnitudes, 2.0 for powers.
      mel_scale: "htk" or "slaney".
      mel_norm: None, or "slaney" for bands of equal area.
      log_floor: the logarithm's argument in silence.
      clamp: False replaces only values <= 0 by `log_floor` (MT3); True takes max(value, log_floor).
    """

    sample_rate: int = DEFAULT_SAMPLE_RATE
    hop_width: int = DEFAULT_HOP_WIDTH
    num_mel_bins: int = DEFAULT_NUM_MEL_BINS
    fft_size: int = FFT_SIZE
    lo_hz: float = MEL_LO_HZ
    hi_hz: float = MEL_HI_HZ
    window_size: int | None = None
    power: float = 1.0
    mel_scale: MelScale = "htk"
    mel_norm: Literal["slaney"] | None = None
    log_floor: float = LOG_FLOOR
    clamp: bool = False

    def __post_init__(self):
        for name in ("sample_rate", "hop_width", "num_mel_bins", "fft_size", "log_floor", "power"):
            if not getattr(self, name) > 0:
                raise ValueError(f"SpectrogramConfig.{name}={getattr(self, name)}: must be > 0")
        if not 0 <= self.lo_hz < self.hi_hz <= self.sample_rate / 2:
            raise ValueError(
                f"SpectrogramConfig: bands from lo_hz={self.lo_hz} to hi_hz={self.hi_hz} Hz do not "
                f"fit a sample rate of {self.sample_rate} Hz; need 0 <= lo_hz < hi_hz <= rate / 2"
            )
        if not 0 < self.window <= self.fft_size:
            raise ValueError(
                f"SpectrogramConfig.window_size={self.window_size}: must be between 1 and "
                f"fft_size={self.fft_size}"
            )

    @property
    def abbrev_str(self) -> str:
        """The differences from MT3's defaults, for task names: '' or e.g. 'hw256mb229'."""
        parts = (
            ("sr", self.sample_rate, DEFAULT_SAMPLE_RATE),
            ("hw", self.hop_width, DEFAULT_HOP_WIDTH),
            ("mb", self.num_mel_bins, DEFAULT_NUM_MEL_BINS),
        )
        return "".join(f"{key}{value}" for key, value, default in parts if value != default)

    @property
    def frames_per_second(self) -> float:
        """Frame rate, Hz."""
        return self.sample_rate / self.hop_width

    @property
    def window(self) -> int:
        """Samples of the window."""
        return self.fft_size if self.window_size is None else self.window_size


# ------------------------------------------------------------------------------- building blocks


def num_frames(num_samples: int, frame_size: int, hop: int, pad: str = "end") -> int:
    """Return the number of frames that `frame` cuts from `num_samples` samples.

    pad: "end" starts a frame at every multiple of `hop` inside the signal, "center" also one at
    its end (`1 + num_samples // hop`), "none" keeps only the frames that lie within it.
    """
    if pad == "end":
        return -(-num_samples // hop)
    if pad == "center":
        return 1 + num_samples // hop
    if pad == "none":
        return max(0, 1 + (num_samples - frame_size) // hop)
    raise ValueError(f"pad={pad!r}: expected 'end', 'center' or 'none'")


def _pad_for_frames(samples: Array, frame_size: int, hop: int, pad: str, mode: str, xp) -> Array:
    """Pad [..., samples] so that plain framing gives `num_frames(...)` frames."""
    length = samples.shape[-1]
    lead = [(0, 0)] * (samples.ndim - 1)
    if pad == "center":
        if mode == "reflect" and length <= frame_size // 2:
            raise ValueError(
                f"centred frames of {frame_size} samples reflect {frame_size // 2} samples, "
                f"but the audio has {length}; pad it first, or use pad_mode='constant'"
            )
        return xp.pad(samples, [*lead, (frame_size // 2, frame_size - frame_size // 2)], mode=mode)
    if pad == "end":
        frames = num_frames(length, frame_size, hop, pad)
        missing = max(0, (frames - 1) * hop + frame_size - length)
        return xp.pad(samples, [*lead, (0, missing)])
    return samples


def frame(
    samples: Array, frame_size: int, hop: int, *, pad: str = "end", pad_mode="reflect", xp=np
) -> Array:
    """Cut [..., samples] into [..., frames, frame_size]; frame i begins at sample i·hop.

    With `pad="end"` zeros follow the signal; with `"center"` frame i is centred on sample i·hop,
    the edges filled by `pad_mode` (as librosa). NumPy returns a read-only view without copying
    each frame.
    """
    frames = num_frames(samples.shape[-1], frame_size, hop, pad)
    padded = _pad_for_frames(samples, frame_size, hop, pad, pad_mode, xp)
    if xp is np:
        if not frames:
            return np.zeros((*samples.shape[:-1], 0, frame_size), samples.dtype)
        views = np.lib.stride_tricks.sliding_window_view(padded, frame_size, axis=-1)
        return views[..., ::hop, :][..., :frames, :]
    return padded[..., np.arange(frames)[:, None] * hop + np.arange(frame_size)]


@functools.lru_cache(maxsize=32)
def hann_window(size: int) -> np.ndarray:
    """Return a periodic Hann window, float32 [size]: 0.5 - 0.5·cos(2πn/size). Read-only, cached.

    Rounded in float32 like `tf.signal.hann_window`; see `musax._float32`.
    """
    angle = np.float32(2 * np.pi) * np.arange(size, dtype=np.float32) / np.float32(size)
    window = np.float32(0.5) - np.float32(0.5) * _float32.cos(angle)
    window.flags.writeable = False
    return window


def stft(
    samples: Array,
    fft_size: int,
    hop: int,
    *,
    window_size: int | None = None,
    pad: str = "end",
    pad_mode: str = "reflect",
    xp=np,
) -> Array:
    """Return the STFT: float [..., samples] -> complex [..., frames, fft_size//2 + 1].

    Frames of `window_size` samples (default `fft_size`) take a periodic Hann window; a shorter
    window is followed by zeros, as in `tf.signal.stft`.
    """
    size = window_size or fft_size
    frames = frame(samples, size, hop, pad=pad, pad_mode=pad_mode, xp=xp)
    return _rfft(frames * hann_window(size), fft_size, xp)


def stft_magnitude(samples: Array, fft_size: int, hop: int, *, xp=np, **options) -> Array:
    """Return |`stft`|: float [..., samples] -> float [..., frames, fft_size//2 + 1]."""
    return _magnitude(stft(samples, fft_size, hop, xp=xp, **options), 1.0, xp)


def _rfft(frames: Array, fft_size: int, xp) -> Array:
    # scipy keeps float32 and transforms several rows at once; it is twice as fast as numpy.fft.
    return (scipy.fft if xp is np else xp.fft).rfft(frames, n=fft_size)


def _magnitude(spectrum: Array, power: float, xp) -> Array:
    if xp is not np:  # abs has a defined gradient (0) where the spectrum is 0; sqrt does not
        magnitude = xp.abs(spectrum)
        return magnitude if power == 1.0 else magnitude**power
    squared = spectrum.real**2 + spectrum.imag**2
    if power == 2.0:
        return squared
    return np.sqrt(squared) if power == 1.0 else squared ** (power / 2)


# ------------------------------------------------------------------------------------- mel bands


def hz_to_mel(hz, scale: MelScale = "htk"):
    """Convert Hz to mel. HTK: 1127·ln(1 + f/700). Slaney: linear below 1 kHz, logarithmic above."""
    hz = np.asarray(hz, np.float64)
    if scale == "htk":
        return 1127.0 * np.log1p(hz / 700.0)
    if scale == "slaney":
        log_part = 15.0 + np.log(np.maximum(hz, 1000.0) / 1000.0) * (27.0 / np.log(6.4))
        return np.where(hz < 1000.0, hz * 3.0 / 200.0, log_part)
    raise ValueError(f"mel scale {scale!r}: expected 'htk' or 'slaney'")


def mel_to_hz(mel, scale: MelScale = "htk"):
    """Convert mel to Hz, the inverse of `hz_to_mel`."""
    mel = np.asarray(mel, np.float64)
    if scale == "htk":
        return 700.0 * np.expm1(mel / 1127.0)
    if scale == "slaney":
        log_part = 1000.0 * np.exp((np.maximum(mel, 15.0) - 15.0) * (np.log(6.4) / 27.0))
        return np.where(mel < 15.0, mel * 200.0 / 3.0, log_part)
    raise ValueError(f"mel scale {scale!r}: expected 'htk' or 'slaney'")


def mel_frequencies(num_bands: int, lo_hz: float, hi_hz: float, scale: MelScale = "htk"):
    """Return the centre frequency of each band, float64 [num_bands], Hz."""
    edges = np.linspace(hz_to_mel(lo_hz, scale), hz_to_mel(hi_hz, scale), num_bands + 2)
    return mel_to_hz(edges[1:-1], scale)


@functools.lru_cache(maxsize=32)
def mel_filterbank(
    sample_rate: int,
    fft_size: int,
    num_bands: int,
    lo_hz: float,
    hi_hz: float,
    *,
    scale: MelScale = "htk",
    norm: str | None = None,
    triangles: str = "mel",
) -> np.ndarray:
    """Return triangular bands, evenly spaced in mel: float32 [fft_size//2 + 1, num_bands], cached.

    Args:
      sample_rate, lo_hz, hi_hz: Hz.
      norm: "slaney" divides each band by half its width in Hz; None leaves peaks at 1.
      triangles: flanks straight in "mel" (`tf.signal.linear_to_mel_weight_matrix`; the DC bin is 0)
        or in "hz" (librosa).
    """
    bins_hz = np.linspace(0.0, sample_rate / 2, fft_size // 2 + 1)
    edges = np.linspace(hz_to_mel(lo_hz, scale), hz_to_mel(hi_hz, scale), num_bands + 2)
    edges_hz = mel_to_hz(edges, scale)
    if triangles == "hz":
        bins, corners = bins_hz, edges_hz
    elif triangles == "mel" and scale == "htk":
        bins, corners = _htk_mel_float32(bins_hz, lo_hz, hi_hz, num_bands)
    elif triangles == "mel":
        bins, corners = hz_to_mel(bins_hz, scale), edges
    else:
        raise ValueError(f"triangles={triangles!r}: expected 'mel' or 'hz'")
    low, peak, high = corners[:-2], corners[1:-1], corners[2:]
    rising = (bins[:, None] - low) / (peak - low)
    falling = (high - bins[:, None]) / (high - peak)
    weights = np.maximum(0.0, np.minimum(rising, falling))
    if triangles == "mel":
        weights[0] = 0.0
    if norm == "slaney":
        weights *= 2.0 / (edges_hz[2:] - edges_hz[:-2])
    elif norm is not None:
        raise ValueError(f"norm={norm!r}: expected None or 'slaney'")
    weights = weights.astype(np.float32)
    weights.flags.writeable = False
    return weights


def _htk_mel_float32(bins_hz, lo_hz: float, hi_hz: float, num_bands: int):
    """Return mel of bins and of the bands' corners, rounded as by the float32 reference.

    Narrow bands magnify the rounding of large mel values: in float64 a bin would weigh differently
    in the fourth decimal in a band of MT3's 512.
    """
    hz = np.concatenate([bins_hz, [lo_hz, hi_hz]]).astype(np.float32)
    mel = np.float32(1127.0) * _float32.log(np.float32(1.0) + hz / np.float32(700.0))
    return mel[:-2], np.linspace(mel[-2], mel[-1], num_bands + 2, dtype=np.float32)


def apply_filterbank(spectrum: Array, weights: np.ndarray, xp=np) -> Array:
    """Multiply [..., bins] by `mel_filterbank` [bins, bands] in full float32 precision."""
    if xp is np:
        return spectrum @ weights
    return xp.matmul(spectrum, weights, precision="highest")


def band_blocks(weights: np.ndarray) -> tuple[tuple[slice, slice, np.ndarray], ...]:
    """Split [bins, bands] into groups of bands, each with its nonzero bins only.

    A triangle is narrow, so multiplying the groups does about a tenth of the work of the whole
    matrix. Each group is (its bands, its bins, weights [bins, bands] of the group).
    """
    blocks = []
    for start in range(0, weights.shape[1], _BAND_GROUP):
        bands = slice(start, min(start + _BAND_GROUP, weights.shape[1]))
        covered = np.flatnonzero(weights[:, bands].any(axis=1))
        if covered.size:
            bins = slice(int(covered[0]), int(covered[-1]) + 1)
            blocks.append((bands, bins, np.ascontiguousarray(weights[bins, bands])))
    return tuple(blocks)


def apply_band_blocks(spectrum: np.ndarray, blocks, num_bands: int) -> np.ndarray:
    """Apply `band_blocks` as `apply_filterbank`: float32 [..., bins] -> [..., num_bands]."""
    result = np.zeros((*spectrum.shape[:-1], num_bands), np.float32)
    for bands, bins, block in blocks:
        result[..., bands] = spectrum[..., bins] @ block
    return result


# -------------------------------------------------------------------------------- log-mel of MT3


def config_filterbank(config: SpectrogramConfig) -> np.ndarray:
    """Return the bands of `config`: float32 [fft_size//2 + 1, num_mel_bins]."""
    return mel_filterbank(
        config.sample_rate,
        config.fft_size,
        config.num_mel_bins,
        config.lo_hz,
        config.hi_hz,
        scale=config.mel_scale,
        norm=config.mel_norm,
    )


@functools.lru_cache(maxsize=8)
def _config_blocks(config: SpectrogramConfig):
    return band_blocks(config_filterbank(config))


def log_with_floor(values: Array, floor: float = LOG_FLOOR, *, clamp: bool = False, xp=np) -> Array:
    """Return the natural logarithm, finite in silence.

    MT3's floor replaces only values <= 0: tiny positive ones go below ln(floor). `clamp=True`
    takes ln(max(value, floor)).
    """
    least = np.float32(floor)
    return xp.log(xp.maximum(values, least) if clamp else xp.where(values > 0, values, least))


def _log_mel(frames: Array, config: SpectrogramConfig, xp) -> Array:
    """Return the log-mel spectrum: [..., frames, window] -> [..., frames, num_mel_bins]."""
    spectrum = _rfft(frames * hann_window(config.window), config.fft_size, xp)
    magnitude = _magnitude(spectrum, config.power, xp)
    if xp is np:
        mel = apply_band_blocks(magnitude, _config_blocks(config), config.num_mel_bins)
    else:
        mel = apply_filterbank(magnitude, config_filterbank(config), xp)
    return log_with_floor(mel, config.log_floor, clamp=config.clamp, xp=xp)


def compute_spectrogram(
    samples: Array, config: SpectrogramConfig | None = None, xp=np, pad: str = "end"
) -> Array:
    """Return log-mel: float [..., samples] -> float32 [..., frames, num_mel_bins].

    Frame i covers samples i·hop … i·hop + window - 1, with zeros after the end of the audio, so
    there are ceil(samples / hop) frames; `pad` as in `num_frames`. Source: MT3
    `spectrograms.compute_spectrogram`.

    Raises:
      ValueError: if `samples` is not floating point (full scale 1.0) or is a scalar.
    """
    config = config or SpectrogramConfig()
    samples = xp.asarray(samples)
    if samples.ndim == 0 or not xp.issubdtype(samples.dtype, np.floating):
        raise ValueError(
            f"compute_spectrogram: expected floating-point audio [..., samples] with full scale "
            f"1.0, got {samples.dtype} of shape {samples.shape}"
        )
    frames = frame(samples.astype(np.float32), config.window, config.hop_width, pad=pad, xp=xp)
    if xp is not np:
        return _log_mel(frames, config, xp)
    result = np.empty((*frames.shape[:-1], config.num_mel_bins), np.float32)
    for row in np.ndindex(frames.shape[:-2]):
        for start in range(0, frames.shape[-2], _BLOCK_FRAMES):
            block = slice(start, start + _BLOCK_FRAMES)
            result[row][block] = _log_mel(frames[row][block], config, np)
    return result


def input_depth(config: SpectrogramConfig) -> int:
    """Return the number of features of one spectrogram frame."""
    return config.num_mel_bins


def split_audio(samples: Array, config: SpectrogramConfig, xp=np) -> Array:
    """Split [..., samples] into [..., ceil(samples / hop), hop], the last frame zero-padded."""
    return frame(xp.asarray(samples), config.hop_width, config.hop_width, xp=xp)


def flatten_frames(frames: Array) -> Array:
    """Join [..., frames, hop] to [..., frames·hop]; the inverse of `split_audio`."""
    return frames.reshape((*frames.shape[:-2], -1))


def audio_to_frames(samples: Array, config: SpectrogramConfig, xp=np) -> tuple[Array, np.ndarray]:
    """Frame a recording as MT3 does, before it is cut into segments.

    Pads with `hop - len % hop` zeros, so a recording of an exact multiple of the hop gets one
    more frame of silence.

    Returns:
      frames [..., F, hop] and the frames' times, float64 [F], s.
    """
    samples = xp.asarray(samples)
    extra = config.hop_width - samples.shape[-1] % config.hop_width
    padded = xp.pad(samples, [(0, 0)] * (samples.ndim - 1) + [(0, extra)])
    frames = split_audio(padded, config, xp)
    return frames, np.arange(frames.shape[-2]) / config.frames_per_second


def pad_features(features: Array, num_frames: int, xp=np) -> Array:
    """Pad [..., F, bins] to [..., num_frames, bins] with 0.0, as MT3 pads its last segment.

    Raises:
      ValueError: if there are more than `num_frames` frames.
    """
    missing = num_frames - features.shape[-2]
    if missing < 0:
        raise ValueError(f"pad_features: {features.shape[-2]} frames do not fit in {num_frames}")
    return xp.pad(features, [(0, 0)] * (features.ndim - 2) + [(0, missing), (0, 0)])
