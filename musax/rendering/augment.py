"""Rooms, microphones and tape for synthetic audio, which bring it closer to recordings.

Every effect is a pure function `(audio, rate, rng, …strengths) -> audio` of float32 [samples] or
[samples, channels]: same shape and dtype out, input unchanged, all randomness from `rng`, one set
of random parameters per call (so the channels of a mix stay together). Linear effects are causal
(direct sound and minimum-phase filters), so note onsets stay aligned with the labels.
"""

import dataclasses
from typing import Any

import numpy as np
import scipy.fft

Range = tuple[float, float]

_FILTER_TAPS = 4096
_CURVE_FLOOR_DB = -80.0
_SILENT_RMS = 1e-5  # -100 dB


def from_db(db):
    """Return the amplitude factor of `db`."""
    return 10.0 ** (np.asarray(db) / 20.0)


def rms(audio: np.ndarray) -> float:
    """Return the root mean square over all samples; 0 for empty audio."""
    return float(np.sqrt(np.mean(np.square(audio, dtype=np.float64)))) if audio.size else 0.0


def convolve(audio: np.ndarray, impulse_response: np.ndarray) -> np.ndarray:
    """Convolve causally along time, cut to the length of `audio`.

    Args:
      audio: [samples] or [samples, channels]. impulse_response: [taps].
    """
    if not len(audio):
        return audio.astype(np.float32)
    size = _fft_size(len(audio) + len(impulse_response) - 1)
    response = np.asarray(scipy.fft.rfft(impulse_response.astype(np.float32), size))
    response = response.reshape(-1, *[1] * (audio.ndim - 1))
    spectrum = np.asarray(scipy.fft.rfft(audio.astype(np.float32), size, axis=0)) * response
    return np.asarray(scipy.fft.irfft(spectrum, size, axis=0))[: len(audio)].astype(np.float32)


# ------------------------------------------------------------------------------------------ room


def room_impulse_response(
    rate: int,
    rng: np.random.Generator,
    *,
    rt60: float = 0.4,
    direct_to_reverberant_db: float = 6.0,
    damping: float = 0.5,
    reflections: int = 10,
) -> np.ndarray:
    """Return a synthetic room: direct sound at sample 0, early reflections, a diffuse tail.

    Args:
      rate: Hz.
      rt60: time in which the tail falls by 60 dB below 1 kHz, s.
      direct_to_reverberant_db: energy of the direct sound over all the rest.
      damping: how much faster high frequencies die: the tail above 1 kHz loses the factor
        `2^-damping` of its decay time per octave.
      reflections: early ones, between 2 and 60 ms.

    Returns:
      float32 [taps], the direct sound of amplitude 1.
    """
    taps = max(2, round(rate * min(rt60, 4.0)))
    seconds = np.arange(taps) / rate
    spectrum = scipy.fft.rfft(rng.standard_normal(taps))
    octave = np.log2(np.maximum(scipy.fft.rfftfreq(taps, 1 / rate), 31.25) / 1000.0)
    bands = np.arange(-2, np.log2(rate / 2 / 1000.0) + 1)  # 250 Hz, 500 Hz, … up to half the rate
    tail = np.zeros(taps)
    for band in bands:
        centre = np.clip(octave, bands[0], bands[-1]) - band
        share = np.clip(1.0 - np.abs(centre), 0.0, 1.0)
        decay = rt60 * 2.0 ** (-damping * max(band, 0.0))
        tail += scipy.fft.irfft(spectrum * share, taps) * np.exp(-np.log(1000.0) * seconds / decay)
    tail *= np.clip(seconds / 0.02, 0.0, 1.0)  # echoes grow dense only after some 20 ms
    tail /= max(np.sqrt(np.sum(tail**2)), 1e-12)

    early = np.zeros(taps)
    delays = rng.uniform(0.002, 0.06, reflections)
    levels = rng.choice([-1.0, 1.0], reflections) * 0.005 / (0.005 + delays)
    positions = np.round(delays * rate).astype(int)
    inside = positions < taps
    np.add.at(early, positions[inside], levels[inside])
    early /= max(np.sqrt(np.sum(early**2)), 1e-12)

    rest = early * rng.uniform(0.3, 1.0) + tail
    rest *= from_db(-direct_to_reverberant_db) / max(np.sqrt(np.sum(rest**2)), 1e-12)
    rest[0] = 1.0
    return rest.astype(np.float32)


def room(
    audio: np.ndarray,
    rate: int,
    rng: np.random.Generator,
    *,
    rt60: Range = (0.1, 1.0),
    direct_to_reverberant_db: Range = (0.0, 18.0),
) -> np.ndarray:
    """Place the audio in a random room; decay times are log-uniform."""
    response = room_impulse_response(
        rate,
        rng,
        rt60=float(np.exp(rng.uniform(*np.log(rt60)))),
        direct_to_reverberant_db=rng.uniform(*direct_to_reverberant_db),
        damping=rng.uniform(0.1, 0.8),
        reflections=int(rng.integers(4, 16)),
    )
    return convolve(audio, response)


# --------------------------------------------------------------------------------------- filters


def _fft_size(samples: int) -> int:
    """Return the next length whose transform is fast."""
    size = scipy.fft.next_fast_len(samples, real=True)
    assert size is not None
    return size


def minimum_phase(gain_db: np.ndarray) -> np.ndarray:
    """Return the causal filter of given gains: dB at 0 … rate/2, [n + 1] -> float32 taps [2n].

    By the folded real cepstrum (Oppenheim & Schafer): no energy comes before the sound itself.
    """
    log_gain = np.maximum(gain_db, _CURVE_FLOOR_DB) * (np.log(10.0) / 20.0)
    size = 2 * (len(gain_db) - 1)
    cepstrum = np.asarray(scipy.fft.irfft(log_gain, size))
    cepstrum[1 : size // 2] *= 2.0
    cepstrum[size // 2 + 1 :] = 0.0
    spectrum = np.exp(np.asarray(scipy.fft.rfft(cepstrum)))
    return np.asarray(scipy.fft.irfft(spectrum, size)).astype(np.float32)


def _curve_octaves(rate: int) -> np.ndarray:
    """Return log2(Hz) of the points of a gain curve."""
    return np.log2(np.maximum(np.linspace(0.0, rate / 2, _FILTER_TAPS // 2 + 1), 10.0))


def equalize(
    audio: np.ndarray,
    rate: int,
    rng: np.random.Generator,
    *,
    gain_db: float = 8.0,
    filters: int = 4,
) -> np.ndarray:
    """Apply a random smooth equaliser: two shelves, `filters - 2` bells, each up to ±`gain_db`."""
    octave = _curve_octaves(rate)
    top = np.log2(rate / 2)
    curve = np.zeros_like(octave)
    for index in range(filters):
        level = rng.uniform(-gain_db, gain_db)
        if index < 2:
            corner = rng.uniform(6.0, 8.5) if index == 0 else rng.uniform(10.5, top)
            side = -1.0 if index == 0 else 1.0
            curve += level / (1.0 + np.exp(-side * (octave - corner) * rng.uniform(3.0, 8.0)))
        else:
            distance = (octave - rng.uniform(6.5, top)) / rng.uniform(0.2, 1.2)
            curve += level * np.exp(-0.5 * distance**2)
    return convolve(audio, minimum_phase(curve))


def band_limit(
    audio: np.ndarray,
    rate: int,
    rng: np.random.Generator,
    *,
    low_hz: Range = (20.0, 200.0),
    high_hz: Range = (3000.0, 12000.0),
    slope_db: Range = (12.0, 48.0),
) -> np.ndarray:
    """Roll off below and above random frequencies, as a small loudspeaker or old recording does.

    `slope_db` is per octave; the corner frequencies are drawn evenly in their logarithm.
    """
    octave = _curve_octaves(rate)
    low, high = (rng.uniform(*np.log2(limits)) for limits in (low_hz, high_hz))
    slope = rng.uniform(*slope_db)
    curve = -slope * (np.maximum(low - octave, 0.0) + np.maximum(octave - high, 0.0))
    return convolve(audio, minimum_phase(curve))


# ----------------------------------------------------------------------------------------- noise


def coloured_noise(samples: int, rng: np.random.Generator, exponent: float = 0.0) -> np.ndarray:
    """Return noise of power 1/f^exponent (0 white, 1 pink, 2 brown): [samples], RMS 1."""
    if samples < 2:
        return np.zeros(samples, np.float32)
    size = _fft_size(samples)
    bins = np.maximum(np.arange(size // 2 + 1, dtype=np.float32), 1.0)
    real, imaginary = rng.standard_normal((2, len(bins)), dtype=np.float32)
    spectrum = (real + 1j * imaginary) * bins ** np.float32(-exponent / 2.0)
    spectrum[0] = 0.0
    noise = np.asarray(scipy.fft.irfft(spectrum, size))[:samples]
    return (noise / max(rms(noise), 1e-12)).astype(np.float32)


def mains_hum(samples: int, rate: int, rng: np.random.Generator) -> np.ndarray:
    """Return 50 or 60 Hz and harmonics up to 1 kHz with random phases: [samples], RMS 1."""
    if not samples:
        return np.zeros(0, np.float32)
    seconds = np.arange(samples, dtype=np.float32) / rate
    mains = rng.choice([50.0, 60.0])
    hum = np.zeros(samples, np.float32)
    for harmonic in range(1, int(min(1000.0, rate / 2) / mains) + 1):
        level = rng.uniform(0.1, 1.0) / harmonic
        angle = np.float32(2 * np.pi * mains * harmonic) * seconds
        hum += np.float32(level) * np.sin(angle + np.float32(rng.uniform(0, 2 * np.pi)))
    return hum / np.float32(max(rms(hum), 1e-12))


def add_noise(
    audio: np.ndarray,
    rate: int,
    rng: np.random.Generator,
    *,
    snr_db: Range = (15.0, 50.0),
    hum_probability: float = 0.3,
) -> np.ndarray:
    """Add noise of random colour, sometimes with hum, at a random signal-to-noise ratio.

    The ratio is that of the RMS of the whole clip; a silent clip gets noise at -60 dB of full
    scale, the noise level of a recording between pieces.
    """
    level = rms(audio)
    scale = from_db(-rng.uniform(*snr_db)) * level if level > _SILENT_RMS else 1e-3
    noise = coloured_noise(len(audio), rng, rng.uniform(0.0, 2.0))
    if rng.random() < hum_probability:
        share = rng.uniform(0.1, 0.9)
        hum = mains_hum(len(audio), rate, rng)
        noise = np.sqrt(1 - share) * noise + np.sqrt(share) * hum
    noise = (scale * noise).astype(np.float32)
    return audio.astype(np.float32) + noise.reshape(-1, *[1] * (audio.ndim - 1))


# ------------------------------------------------------------------------------------- amplitude


def change_gain(
    audio: np.ndarray, rate: int, rng: np.random.Generator, *, gain_db: Range = (-18.0, 6.0)
) -> np.ndarray:
    """Change the level by a random gain."""
    del rate
    return audio.astype(np.float32) * np.float32(from_db(rng.uniform(*gain_db)))


def soft_clip(
    audio: np.ndarray, rate: int, rng: np.random.Generator, *, drive_db: Range = (-6.0, 12.0)
) -> np.ndarray:
    """Saturate like tape (tanh); drive 0 dB puts the peak at the knee. The peak is kept."""
    del rate
    peak = float(np.abs(audio).max(initial=0.0))
    if peak < _SILENT_RMS:
        return audio.astype(np.float32)
    drive = np.float32(from_db(rng.uniform(*drive_db)))
    shaped = np.tanh(audio.astype(np.float32) * (drive / np.float32(peak)))
    return shaped * np.float32(peak / np.tanh(drive))


def compress(
    audio: np.ndarray,
    rate: int,
    rng: np.random.Generator,
    *,
    threshold_db: Range = (-30.0, -10.0),
    ratio: Range = (1.5, 6.0),
) -> np.ndarray:
    """Compress: above the threshold (relative to the peak), level rises by only 1/ratio.

    Level is followed in blocks of 5 ms with random attack (5–30 ms) and release (50–400 ms); the
    peak of the result is that of the input.
    """
    peak = float(np.abs(audio).max(initial=0.0))
    if peak < _SILENT_RMS:
        return audio.astype(np.float32)
    block = max(1, round(0.005 * rate))
    loudest = np.abs(audio).reshape(len(audio), -1).max(axis=1)
    blocks = np.pad(loudest, (0, -len(loudest) % block)).reshape(-1, block).max(axis=1)
    level_db = 20.0 * np.log10(np.maximum(blocks / peak, 1e-6))
    over = np.maximum(level_db - rng.uniform(*threshold_db), 0.0)
    target = -over * (1.0 - 1.0 / rng.uniform(*ratio))
    gain_db = _follow(target, 0.005 / rng.uniform(0.005, 0.03), 0.005 / rng.uniform(0.05, 0.4))
    centres = (np.arange(len(gain_db)) + 0.5) * block
    gain = from_db(np.interp(np.arange(len(audio)), centres, gain_db)).astype(np.float32)
    shaped = audio.astype(np.float32) * gain.reshape(-1, *[1] * (audio.ndim - 1))
    return shaped * np.float32(peak / max(float(np.abs(shaped).max()), 1e-12))


def _follow(target: np.ndarray, attack: float, release: float) -> np.ndarray:
    """Smooth gains (dB) by one pole, `attack` per step downwards and `release` upwards."""
    values, state = [], 0.0
    attack, release = 1.0 - np.exp(-attack), 1.0 - np.exp(-release)
    for value in target.tolist():
        state += (attack if value < state else release) * (value - state)
        values.append(state)
    return np.asarray(values)


# --------------------------------------------------------------------------------- all of it


@dataclasses.dataclass(frozen=True)
class AugmentConfig:
    """Probability and strength of each effect, in the order of the chain."""

    compress: float = 0.2
    threshold_db: Range = (-30.0, -10.0)
    ratio: Range = (1.5, 6.0)
    soft_clip: float = 0.15
    drive_db: Range = (-6.0, 12.0)
    room: float = 0.6
    rt60: Range = (0.1, 1.0)
    direct_to_reverberant_db: Range = (0.0, 18.0)
    equalize: float = 0.7
    equalizer_db: float = 8.0
    equalizer_filters: int = 4
    band_limit: float = 0.2
    low_hz: Range = (20.0, 200.0)
    high_hz: Range = (3000.0, 12000.0)
    noise: float = 0.6
    snr_db: Range = (15.0, 50.0)
    gain: float = 1.0
    gain_db: Range = (-18.0, 6.0)


def augment(
    audio: np.ndarray,
    rate: int,
    rng: np.random.Generator,
    config: AugmentConfig | None = None,
) -> np.ndarray:
    """Apply a random chain of effects, each with its probability.

    Dynamics first (the player's side), then the room, the microphone's colour, its noise, and the
    recording level. A peak above full scale is scaled back to 1, as a careful engineer would.

    Args:
      audio: float [samples] or [samples, channels]. rate: Hz.

    Returns:
      float32 of the same shape.
    """
    c = config or AugmentConfig()
    chain: tuple[tuple[float, Any, dict[str, Any]], ...] = (
        (c.compress, compress, {"threshold_db": c.threshold_db, "ratio": c.ratio}),
        (c.soft_clip, soft_clip, {"drive_db": c.drive_db}),
        (
            c.room,
            room,
            {"rt60": c.rt60, "direct_to_reverberant_db": c.direct_to_reverberant_db},
        ),
        (c.equalize, equalize, {"gain_db": c.equalizer_db, "filters": c.equalizer_filters}),
        (c.band_limit, band_limit, {"low_hz": c.low_hz, "high_hz": c.high_hz}),
        (c.noise, add_noise, {"snr_db": c.snr_db}),
        (c.gain, change_gain, {"gain_db": c.gain_db}),
    )
    result = np.asarray(audio).astype(np.float32)
    for probability, effect, strengths in chain:
        if rng.random() < probability:
            result = effect(result, rate, rng, **strengths)
    peak = float(np.abs(result).max(initial=0.0))
    return result / np.float32(peak) if peak > 1.0 else result
