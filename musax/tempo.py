"""Tempo of notes with a steady beat, so that their MIDI file opens on a sequencer's grid."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

_RATE = 100.0  # Hz of the onset train
_BLUR = 0.02  # s
_BEGINNING = 60.0  # s in which the tempo is looked for
_LONGEST_LAG = 9.0  # s
_MIN_NOTES = 8
_PLAIN_NOTES = 16  # fewer of them are no evidence of chance
_TEMPI = 40.0 * 2.0 ** np.arange(0.0, np.log2(6.0), 1 / 96)  # to 240
#: The prior: log-normal around this tempo, falling by e at this many octaves from it.
_USUAL, _SPREAD = 110.0, 0.7
#: Weights of the autocorrelation at these numbers of beats.
_LAGS = {0.5: 0.25, 1.0: 1.0, 2.0: 0.5, 4.0: 0.5}
#: Weight of that of the snare at one beat: a backbeat is two beats after the one before.
_SNARE = -0.25
_SNARES = (37, 38, 39, 40)  # General MIDI
_HARMONICS = (1, 2, 4)
_BEAT_WIDTH = 0.025  # s, of the place of a beat
_KEPT = 0.8  # share of the regularity that a longer part must keep
_STEADY = 0.2  # regularity below which there is no beat


class Tempo(NamedTuple):
    """A steady beat.

    Attributes:
      bpm: quarter notes per minute.
      first_beat: time of the first beat, s, less than one beat.
    """

    bpm: float
    first_beat: float


def estimate_tempo(notes: np.ndarray, *, steady_seconds: float = 0.0) -> Tempo | None:
    """Return the steady beat that fits the notes, or None where there are too few or no beat.

    The autocorrelation of the onsets in the first minute at some multiples of a beat, and a prior
    around 110 quarters a minute, choose the tempo; the longest part from the beginning that keeps
    to it makes it exact. Time and memory do not depend on how far apart notes are. Where a style
    counts half or twice the usual tempo, the other one of both is found.

    Args:
      notes: NOTE_DTYPE [N], in any order.
      steady_seconds: how long from the beginning, or to their end, notes must keep to the beat.
    """
    if len(notes) < _MIN_NOTES:
        return None
    notes = notes[np.argsort(notes["onset"], kind="stable")]
    weight = _weights(notes)
    onset, start = notes["onset"] - notes["onset"][0], float(notes["onset"][0])
    snare = notes["is_drum"] & np.isin(notes["pitch"], _SNARES)
    beats_a_second = _likeliest(onset, weight, snare) / 60.0
    frequency, end, regularity = _refined(onset, weight, beats_a_second)
    heard = onset < end
    if regularity < _STEADY and np.count_nonzero(heard) >= _PLAIN_NOTES:
        return None
    if end < min(steady_seconds, onset[-1]):
        return None
    beat = start + _phase(onset[heard], weight[heard], frequency)
    return Tempo(60.0 * frequency, float(beat % (1.0 / frequency)))


def _weights(notes: np.ndarray) -> np.ndarray:
    """Return how much each note says of the beat: loud and low ones, kick and snare, more."""
    carries = np.where(notes["is_drum"], notes["pitch"] <= 40, notes["pitch"] < 55)
    return notes["velocity"] / 127.0 * np.where(carries, 2.0, 1.0)


def _likeliest(onset: np.ndarray, weight: np.ndarray, snare: np.ndarray) -> float:
    """Return the likeliest of `_TEMPI`; `snare`: bool [N]."""
    lag = 60.0 / _TEMPI
    score = -((np.log2(_TEMPI / _USUAL) / _SPREAD) ** 2)
    every = _correlation(onset, weight)
    for beats, share in _LAGS.items():
        score += share * every(beats * lag)
    score += _SNARE * _correlation(onset[snare], weight[snare])(lag)
    return float(_TEMPI[np.argmax(score)])


def _correlation(onset: np.ndarray, weight: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return the autocorrelation of the first minute of an onset train, a function of the lag, s.

    The train is blurred, so that notes need not be exact; the correlation is 1 at lag 0.
    """
    heard = onset < _BEGINNING
    if not heard.any():
        return np.zeros_like
    train = np.zeros(int((onset[heard].max() + 1.0) * _RATE) + 1)
    np.add.at(train, np.rint(onset[heard] * _RATE).astype(int), weight[heard])
    reach = round(4 * _BLUR * _RATE)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / (_BLUR * _RATE)) ** 2)
    train = np.convolve(train, kernel, mode="same")
    lags = round(_LONGEST_LAG * _RATE)
    size = 1 << int(len(train) + lags).bit_length()
    power = np.abs(np.fft.rfft(train - train.mean(), size)) ** 2
    correlation = np.fft.irfft(power, size)[:lags]
    correlation /= correlation[0] + 1e-9
    return lambda seconds: np.interp(seconds * _RATE, np.arange(lags), correlation)


def _refined(onset: np.ndarray, weight: np.ndarray, frequency: float) -> tuple[float, float, float]:
    """Return the exact frequency, Hz, how long the notes keep to it, s, and how regular they are.

    Regularity is the mean resultant length of the notes' places in the beat, half and quarter.
    """
    end, best, kept = 8.0 / frequency, 0.0, 0.0
    width = 0.015 * frequency
    while True:
        heard = onset < end
        around = frequency + width * np.linspace(-1.0, 1.0, 41)
        found = [_regularity(onset[heard], weight[heard], f) for f in around]
        if max(found) < _KEPT * best:
            break
        frequency, best, kept = float(around[np.argmax(found)]), max(found), end
        if end > onset[-1]:
            break
        end, width = 2.0 * end, 0.25 / end
    return frequency, kept, best


def _regularity(onset: np.ndarray, weight: np.ndarray, frequency: float) -> float:
    turns = np.exp(2j * np.pi * frequency * onset)
    sums = [abs(np.dot(weight, turns**harmonic)) for harmonic in _HARMONICS]
    return float(np.mean(sums) / weight.sum())


def _phase(onset: np.ndarray, weight: np.ndarray, frequency: float) -> float:
    """Return the time from the first onset to a beat, s, less than one beat."""
    beat = 1.0 / frequency
    places = np.linspace(0.0, beat, 200, endpoint=False)
    score = np.zeros(len(places))
    for place in range(len(places)):
        away = (onset - places[place] + beat / 2) % beat - beat / 2
        score[place] = np.dot(weight, np.exp(-0.5 * (away / _BEAT_WIDTH) ** 2))
    return float(places[np.argmax(score)])
