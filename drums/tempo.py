"""Tempo estimation, so that the MIDI of a performance opens on a sequencer's grid."""

from typing import NamedTuple

import numpy as np

from t5x.extras import how_to_install

_RATE = 100.0  # Hz of the onset envelope
_HOP = 441  # samples at 44.1 kHz: the beat tracker's input
_MIN_HITS = 8


class Tempo(NamedTuple):
    """A steady beat.

    Attributes:
      bpm: quarter notes per minute.
      first_beat: time of the first beat, s, less than one beat.
    """

    bpm: float
    first_beat: float


def estimate_tempo(notes: np.ndarray) -> Tempo | None:
    """Return the steady beat that fits the hits, or None where there are too few.

    The beats are those of librosa's tracker (Ellis 2007) on an envelope of the hits, loud and low
    ones more; a straight line through them is the beat. Half and twice the tempo cannot be
    distinguished this way.

    Args:
      notes: NOTE_DTYPE [N].

    Raises:
      ImportError: librosa is not installed.
    """
    try:
        import librosa
    except ImportError as error:
        raise ImportError(
            f"estimating the tempo needs librosa: {how_to_install('tempo')}, or give it (--tempo)"
        ) from error
    if len(notes) < _MIN_HITS:
        return None
    envelope = _envelope(notes)
    _, beats = librosa.beat.beat_track(
        onset_envelope=envelope, sr=round(_RATE * _HOP), hop_length=_HOP, units="frames", trim=False
    )
    if len(beats) < 3:
        return None
    times = _snap(np.asarray(beats) / _RATE, notes["onset"])
    period, start = np.polyfit(np.arange(len(times)), times, 1)
    if not period > 0:
        return None
    return Tempo(float(60.0 / period), float(start % period))


def _envelope(notes: np.ndarray) -> np.ndarray:
    """Return the onset strength envelope, float32, at `_RATE`; blurred by 20 ms."""
    frames = np.zeros(int(notes["onset"].max() * _RATE) + round(_RATE), np.float32)
    # Kick and snare carry the beat.
    weight = notes["velocity"] / 127 * np.where(notes["pitch"] <= 40, 2.0, 1.0)
    np.add.at(frames, np.rint(notes["onset"] * _RATE).astype(int), weight)
    kernel = np.exp(-0.5 * (np.arange(-4, 5) / 2.0) ** 2)
    return np.convolve(frames, kernel, mode="same").astype(np.float32)


def _snap(beats: np.ndarray, onsets: np.ndarray, reach: float = 0.04) -> np.ndarray:
    """Move beats to the nearest hit within `reach` s, since they are known to 10 ms only."""
    onsets = np.sort(onsets)
    after = np.clip(np.searchsorted(onsets, beats), 1, len(onsets) - 1)
    before = onsets[after - 1]
    nearest = np.where(beats - before < onsets[after] - beats, before, onsets[after])
    return np.where(np.abs(nearest - beats) < reach, nearest, beats)
