"""basic-pitch (Bittner et al., ICASSP 2022), run from the ONNX file in its wheel.

basic-pitch and onnxruntime are no dependencies of musax; the wheel of basic-pitch asks for an old
TensorFlow, which its ONNX file does not need:

    uv pip install --no-deps basic-pitch onnxruntime flatbuffers

The network maps windows of 43844 samples at 22.05 kHz to activations of 172 frames x 88 keys: which
keys sound, and which begin. Notes are made from them as the package does by default: onsets are
also inferred from rising frames, peaks above 0.5 begin notes, a note lasts while its frames stay
above 0.3, notes of less than 127.7 ms are dropped, and what energy remains becomes notes without
onset. The result is the package's own, note for note.
"""

import importlib.util
import os
from pathlib import Path

import numpy as np

from musax.audio import resample
from musax.notes import make_notes, sort_notes

SAMPLE_RATE = 22050
WINDOW = 43844  # samples
HOP = 256  # samples between frames
FRAMES = 172  # of a window
OVERLAP_FRAMES = 30  # half of them are cut off at each end of a window
LOWEST_PITCH = 21
ONSET_THRESHOLD = 0.5
FRAME_THRESHOLD = 0.3
MIN_NOTE_FRAMES = 11  # 127.7 ms
GAP_FRAMES = 11  # a note ends when it has been below the threshold for so long

_KEPT = FRAMES - OVERLAP_FRAMES
_STEP = WINDOW - OVERLAP_FRAMES * HOP  # samples from one window to the next
_INPUT = "serving_default_input_2:0"
_NOTE, _ONSET = "StatefulPartitionedCall:1", "StatefulPartitionedCall:2"
_HOW_TO_GET = "uv pip install --no-deps basic-pitch onnxruntime flatbuffers"


class BasicPitchMissingError(ImportError):
    """basic-pitch's model or onnxruntime is not here; the message says how to get them."""


def find_onnx() -> Path:
    """Return the ONNX file of an installed basic-pitch (found without importing it).

    Raises:
      BasicPitchMissingError: it is not installed.
    """
    spec = importlib.util.find_spec("basic_pitch")
    if spec is not None and spec.origin:
        path = Path(spec.origin).parent / "saved_models" / "icassp_2022" / "nmp.onnx"
        if path.is_file():
            return path
    raise BasicPitchMissingError(
        f"basic-pitch is not installed: {_HOW_TO_GET}, or give --basic-pitch-onnx PATH/nmp.onnx"
    )


class BasicPitch:
    """Transcribes with basic-pitch's defaults."""

    def __init__(self, onnx: str | os.PathLike | None = None, *, threads: int = 1):
        """
        Args:
          onnx: the package's `nmp.onnx`; None looks for an installed basic-pitch.
          threads: of onnxruntime.

        Raises:
          BasicPitchMissingError: the file or onnxruntime is missing.
        """
        path = find_onnx() if onnx is None else Path(onnx)
        if not path.is_file():
            raise BasicPitchMissingError(f"{path}: no such file; {_HOW_TO_GET}")
        if importlib.util.find_spec("onnxruntime") is None:
            raise BasicPitchMissingError(f"onnxruntime is not installed: {_HOW_TO_GET}")
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )

    def transcribe(self, audio: np.ndarray, sample_rate: int) -> np.ndarray:
        """Return notes of mono audio, float32 [samples]."""
        samples = resample(audio, sample_rate, SAMPLE_RATE)
        sounding, onset = self.activations(samples)
        return activations_to_notes(sounding, onset, frame_times(len(samples)))

    def activations(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return probabilities of sounding and onset, each float32 [frames, 88], at 22.05 kHz."""
        lead = OVERLAP_FRAMES // 2 * HOP
        count = -(-(len(samples) + lead) // _STEP)
        padded = np.zeros((count - 1) * _STEP + WINDOW, np.float32)
        padded[lead : lead + len(samples)] = samples
        cut = slice(OVERLAP_FRAMES // 2, FRAMES - OVERLAP_FRAMES // 2)
        parts = []
        for i in range(count):
            window = padded[None, i * _STEP : i * _STEP + WINDOW, None]
            parts.append([x[0, cut] for x in self._session.run([_NOTE, _ONSET], {_INPUT: window})])
        frames = len(frame_times(len(samples)))
        sounding, onset = (np.concatenate(x)[:frames] for x in zip(*parts))
        return sounding, onset


def frame_times(num_samples: int) -> np.ndarray:
    """Return times of the frames of a recording, float64 [frames], s.

    Windows advance by a little less than their frames cover, so each begins its own grid.
    """
    windows = -(-num_samples // _STEP)
    start = np.arange(windows)[:, None] * _STEP + np.arange(_KEPT) * HOP
    return start[start < num_samples] / SAMPLE_RATE


def inferred_onsets(onset: np.ndarray, sounding: np.ndarray) -> np.ndarray:
    """Return the larger of `onset` and the rise of `sounding` over one and two frames."""
    rise = np.zeros_like(sounding)
    rise[2:] = np.minimum(sounding[2:] - sounding[1:-1], sounding[2:] - sounding[:-2])
    rise = np.maximum(rise, 0.0)
    largest = rise.max(initial=0.0)
    if largest > 0:
        rise *= onset.max() / largest
    return np.maximum(onset, rise)


def activations_to_notes(
    sounding: np.ndarray, onset: np.ndarray, times: np.ndarray, *, fill_gaps: bool = True
) -> np.ndarray:
    """Return notes from activations [frames, 88] at `times` [frames], s.

    Args:
      fill_gaps: also make notes from energy that no onset explains (the package's melodia trick).
    """
    left = np.array(sounding, np.float32)
    onset = inferred_onsets(onset, sounding)
    spans = [*_notes_at_onsets(onset, left)]
    if fill_gaps:
        spans += _notes_without_onset(left)
    if not spans:
        return make_notes([], [], [])
    start, end, key = np.array(spans).T
    loudness = np.array([sounding[a:b, k].mean() for a, b, k in spans])
    velocity = np.clip(np.rint(127 * loudness), 1, 127)
    return sort_notes(make_notes(times[start], times[end], key + LOWEST_PITCH, velocity))


def _notes_at_onsets(onset: np.ndarray, left: np.ndarray):
    """Yield (first frame, end frame, key) of notes at onset peaks; takes them out of `left`."""
    middle = onset[1:-1]
    peaks = (middle > onset[:-2]) & (middle > onset[2:]) & (middle >= ONSET_THRESHOLD)
    rows, keys = np.nonzero(peaks)
    for start, key in zip(rows[::-1].tolist(), keys[::-1].tolist()):  # the latest first
        start += 1
        end = _end_of_note(left[:, key], start + 1, len(left) - 1)
        if end - start > MIN_NOTE_FRAMES:
            left[start:end, max(key - 1, 0) : key + 2] = 0.0
            yield start, end, key


def _end_of_note(energy: np.ndarray, first: int, limit: int) -> int:
    """Return the frame after which `energy` [frames] stays below the threshold for GAP_FRAMES."""
    quiet, frame = 0, first
    while frame < limit and quiet < GAP_FRAMES:
        quiet = quiet + 1 if energy[frame] < FRAME_THRESHOLD else 0
        frame += 1
    return frame - quiet


def _notes_without_onset(left: np.ndarray):
    """Yield the same from the strongest frames that remain, grown both ways; empties `left`."""
    last = len(left) - 1
    while left.max(initial=0.0) > FRAME_THRESHOLD:
        peak, key = (int(i) for i in np.unravel_index(np.argmax(left), left.shape))
        keys = slice(max(key - 1, 0), key + 2)
        left[peak, key] = 0.0
        end, quiet = peak + 1, 0
        while end < last and quiet < GAP_FRAMES:
            quiet = quiet + 1 if left[end, key] < FRAME_THRESHOLD else 0
            left[end, keys] = 0.0
            end += 1
        end = end - 1 - quiet
        start, quiet = peak - 1, 0
        while start > 0 and quiet < GAP_FRAMES:
            quiet = quiet + 1 if left[start, key] < FRAME_THRESHOLD else 0
            left[start, keys] = 0.0
            start -= 1
        start = start + 1 + quiet
        if end - start > MIN_NOTE_FRAMES:
            yield start, end, key
