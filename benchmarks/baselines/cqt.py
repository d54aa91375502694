"""Transcription without learning: a variable-Q transform explained by harmonic templates.

What signal processing alone can do, for comparison with learned models:

1. |variable-Q transform|, 36 bins an octave from A0, compressed (`POWER`);
2. each frame as a non-negative sum of templates, two for each of 88 keys (tones whose partials fall
   fast or slowly, slightly inharmonic), by multiplicative updates that lessen the Kullback-Leibler
   divergence (Lee & Seung 2001), so that harmonics are explained away: key activations;
3. an onset where an activation rises by much, in itself, against its neighbours and against what
   else rises then;
4. the end where the activation has decayed to a fraction of its peak, or at the key's next onset.

The thresholds were chosen on MAPS excerpts and on rendered pieces, so results on such recordings
are in this baseline's favour. Needs librosa (a development dependency).
"""

import functools

import numpy as np
from scipy.ndimage import maximum_filter1d

from musax.audio import resample
from musax.notes import make_notes, sort_notes

SAMPLE_RATE = 16000
HOP = 256  # samples, 16 ms
BINS_PER_OCTAVE = 36
MIN_HZ = 27.5 * 2 ** (-1 / BINS_PER_OCTAVE)
MAX_HZ = 7600.0
BANDWIDTH_HZ = 20.0  # added to every filter's, so that low notes begin sharply too
KEYS, LOWEST_PITCH = 88, 21

POWER = 0.7
SLOPES = (0.4, 0.8)  # amplitude of a partial over that of the one below
ITERATIONS = 40

AHEAD = 3  # frames after an onset in which the activation peaks
BEHIND = 2  # frames before it from which it rises
MIN_RISE = 0.2  # of the loudest activations of the recording
MIN_RISE_RATIO = 0.6  # of the activation's own peak
MIN_RISE_TOGETHER = 0.4  # of the largest rise of any key within NEAR frames
NEAR = 11
NEIGHBOURS = 1.3  # times stronger than the keys beside it
RELEASE = 0.3  # of the peak: where a note ends
MIN_NOTE_FRAMES = 3
DELAY_S = 0.01  # by which rises are seen late
QUIET = 1e-3  # activation below which nothing sounds


def transcribe(audio: np.ndarray, sample_rate: int) -> np.ndarray:
    """Return notes of mono audio, float32 [samples], velocities all 100."""
    activation = key_activations(resample(audio, sample_rate, SAMPLE_RATE))
    onset, key = find_onsets(activation)
    end = find_ends(activation, onset, key)
    times = np.maximum(np.stack([onset, end]) * HOP / SAMPLE_RATE - DELAY_S, 0.0)
    return sort_notes(make_notes(times[0], times[1], key + LOWEST_PITCH))


def spectrum(samples: np.ndarray) -> np.ndarray:
    """Return |variable-Q transform|^POWER at 16 kHz, float32 [bins, frames]."""
    import librosa

    samples = np.pad(samples, (0, max(0, SAMPLE_RATE - len(samples))))  # filters are long
    transform = librosa.vqt(
        samples,
        sr=SAMPLE_RATE,
        hop_length=HOP,
        fmin=MIN_HZ,
        n_bins=int(BINS_PER_OCTAVE * np.log2(MAX_HZ / MIN_HZ)),
        bins_per_octave=BINS_PER_OCTAVE,
        gamma=BANDWIDTH_HZ,
        pad_mode="constant",
    )
    return (np.abs(transform) ** POWER).astype(np.float32)


@functools.cache
def templates() -> np.ndarray:
    """Return spectra of harmonic tones, summing to 1: float32 [bins, slopes * 88]."""
    seconds = np.arange(int(0.8 * SAMPLE_RATE)) / SAMPLE_RATE
    middles = ((np.arange(KEYS) + 0.5) * len(seconds) / HOP).astype(int)
    spectra = [
        spectrum(np.concatenate([_tone(key, slope, seconds) for key in range(KEYS)]))[:, middles]
        for slope in SLOPES
    ]
    columns = np.concatenate(spectra, axis=1)
    return columns / columns.sum(axis=0)


def _tone(key: int, slope: float, seconds: np.ndarray) -> np.ndarray:
    """Return a stretched harmonic tone, as of a piano string."""
    number = np.arange(1, 21)
    stiffness = 3e-4 * 2.0 ** ((key - 40) / 24)
    hz = 27.5 * 2.0 ** (key / 12) * number * np.sqrt(1 + stiffness * number**2)
    number, hz = number[hz < MAX_HZ], hz[hz < MAX_HZ]
    phases = 2 * np.pi * hz[:, None] * seconds + number[:, None] ** 2
    return (slope ** (number - 1) @ np.sin(phases)).astype(np.float32)


def key_activations(samples: np.ndarray) -> np.ndarray:
    """Return the strength of each key relative to the recording, float32 [88, frames]."""
    observed = spectrum(samples) + np.float32(1e-6)
    basis = templates()
    gains = np.ones((basis.shape[1], 1), np.float32) * observed.sum(axis=0) / basis.shape[1]
    for _ in range(ITERATIONS):
        gains *= basis.T @ (observed / (basis @ gains + np.float32(1e-9)))
    activation = gains.reshape(len(SLOPES), KEYS, -1).sum(axis=0)
    return activation / max(float(np.quantile(activation.max(axis=0), 0.95)), QUIET)


def find_onsets(activation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (frame, key) of the onsets, each int [N]."""
    frames = activation.shape[1]
    soon = np.pad(activation, ((0, 0), (0, AHEAD)))
    peak = maximum_filter1d(soon, AHEAD, axis=1, origin=-(AHEAD // 2))[:, :frames]
    rise = peak - np.pad(activation, ((0, 0), (BEHIND, 0)))[:, :frames]
    together = maximum_filter1d(rise.max(axis=0), NEAR)
    beside = np.pad(peak, ((1, 1), (0, 0)))
    found = (rise >= maximum_filter1d(rise, 7, axis=1)) & (rise > MIN_RISE)
    found[:, 1:] &= ~found[:, :-1]  # the first frame of a plateau
    found &= (rise > MIN_RISE_RATIO * peak) & (rise > MIN_RISE_TOGETHER * together)
    found &= peak >= NEIGHBOURS * np.maximum(beside[:-2], beside[2:])
    key, frame = np.nonzero(found)
    return frame, key


def find_ends(activation: np.ndarray, onset: np.ndarray, key: np.ndarray) -> np.ndarray:
    """Return frames at which the notes end, int [N]; onsets in the order of (key, frame)."""
    same_key = np.append(key[1:] == key[:-1], False)[: len(key)]
    limit = np.where(same_key, np.append(onset[1:], 0)[: len(key)], activation.shape[1])
    ends = np.empty_like(onset)
    for i, (start, stop, row) in enumerate(zip(onset, limit, key)):
        course = activation[row, start:stop]
        quiet = np.flatnonzero(course[MIN_NOTE_FRAMES:] < RELEASE * course[: 2 * AHEAD].max())
        ends[i] = start + MIN_NOTE_FRAMES + quiet[0] if len(quiet) else stop
    return np.maximum(ends, onset + 1)
