"""Transcription of drum recordings.

    transcriber = Transcriber.from_pretrained("drums-small")
    transcriber.transcribe_file("loop.wav").save("loop.mid")

A recording is normalised to its peak and processed in pieces, and hits are picked piece by piece:
memory use does not depend on the length, nor the result on the division into pieces.
"""

import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from drums.listening import Listener, Predictor
from drums.model_config import ModelConfig
from drums.picking import Frames, Picker
from musax.audio import audio_info, check_audio, resample, stream_audio, to_mono
from musax.model_config import PretrainedModel
from musax.notes import empty_notes, sort_notes
from musax.results import Transcription

DEFAULT_LEVEL = "9"
_CHUNK_SECONDS = 10.0

#: (seconds of audio done, seconds in all)
Progress = Callable[[float, float], None]


class Transcriber(PretrainedModel[ModelConfig]):
    """Transcribe recordings of drums to hits with one model.

    Args:
      config: the model's configuration.
      params: `params` and `batch_stats` of the network.
      source: the file they come from, for messages.

    Raises:
      CheckpointError: arrays are missing, unknown, or of other shapes; lists which.
    """

    config_class = ModelConfig

    def __init__(self, config: ModelConfig, params: Any, source: Any = "model"):
        super().__init__(config, params, source)
        self._predict = Predictor(config, self.params)

    @property
    def sample_rate(self) -> int:
        """Sample rate of the network's input, Hz."""
        return self.config.features.sample_rate

    def transcribe(
        self,
        audio: np.ndarray,
        sample_rate: int,
        *,
        level: str | None = None,
        threshold: float | None = None,
        pitch_map: str | None = None,
        progress: Progress | None = None,
    ) -> Transcription:
        """Transcribe samples.

        Args:
          audio: float [samples] or [samples, channels], full scale 1.0; channels are averaged.
          sample_rate: Hz; other rates than the model's are resampled.
          level: which drums are distinguished, see `drums.vocabularies`: "3-hit", "5", "8-hit", "9"
            or "18"; by default "9", or the model's own level.
          threshold: onset probability of a hit, in place of those tuned on validation data; less
            finds more.
          pitch_map: "gm" or "roland": whose pitches the notes have; None for those of the level.
          progress: called after each piece.

        Raises:
          ValueError: the audio is of a wrong type or shape, empty, or not finite; an unknown level.
        """
        samples = check_audio(audio, sample_rate)
        samples = resample(to_mono(samples), sample_rate, self.sample_rate)
        seconds = len(audio) / sample_rate
        peak = float(np.abs(samples).max(initial=0.0))
        notify = None if progress is None else lambda done: progress(min(done, seconds), seconds)
        notes = self._transcribe(
            _pieces(samples, self.sample_rate), peak, notify, level, threshold, pitch_map
        )
        names = self.picker(level, pitch_map=pitch_map).names
        return Transcription(notes, seconds, peak == 0.0, drum_names=names)

    def transcribe_file(
        self,
        path: str | os.PathLike,
        *,
        level: str | None = None,
        threshold: float | None = None,
        pitch_map: str | None = None,
        progress: Progress | None = None,
    ) -> Transcription:
        """Transcribe an audio file in a stream: one pass for its peak, one for the transcription.

        Arguments as in `transcribe`. A file that breaks off is transcribed up to there, with a
        `musax.audio.AudioWarning`.

        Raises:
          AudioError: the file is missing, unreadable or not audio, or its samples are not finite.
        """
        estimate = audio_info(path).seconds
        peak, samples = 0.0, 0
        for chunk in stream_audio(path, self.sample_rate, _CHUNK_SECONDS):
            peak = max(peak, float(np.abs(chunk).max(initial=0.0)))
            samples += len(chunk)
        seconds = samples / self.sample_rate if samples else estimate
        notify = None if progress is None else lambda done: progress(min(done, seconds), seconds)
        chunks = _quietly(stream_audio(path, self.sample_rate, _CHUNK_SECONDS))
        notes = self._transcribe(chunks, peak, notify, level, threshold, pitch_map)
        names = self.picker(level, pitch_map=pitch_map).names
        return Transcription(notes, seconds, peak == 0.0, drum_names=names)

    def outputs(self, audio: np.ndarray, sample_rate: int) -> Frames:
        """Return the network's outputs in every frame of a recording, [T, K] each; see `Frames`.

        Frame i is centred on i / `config.features.frames_per_second` s. Arguments and errors as in
        `transcribe`.
        """
        samples = check_audio(audio, sample_rate)
        samples = resample(to_mono(samples), sample_rate, self.sample_rate)
        peak = float(np.abs(samples).max(initial=0.0))
        parts = list(self._listen(_pieces(samples, self.sample_rate), peak, None))
        return Frames.join(parts)

    def picker(
        self,
        level: str | None = None,
        threshold: float | None = None,
        pitch_map: str | None = None,
    ) -> Picker:
        """Return the `Picker` that finds hits in frames; arguments as in `transcribe`."""
        known = self.config.level
        level = level or (DEFAULT_LEVEL if known == "18" else known)
        rate = self.config.features.frames_per_second
        return Picker(self.config.picking, known, level, rate, threshold, pitch_map)

    def stream(
        self,
        *,
        piece_seconds: float = 0.1,
        level: str | None = None,
        threshold: float | None = None,
        pitch_map: str | None = None,
    ) -> "StreamingTranscription":
        """Return a transcription of sound as it arrives; see `StreamingTranscription`."""
        frames = max(1, round(piece_seconds * self.config.features.frames_per_second))
        picker = self.picker(level, threshold, pitch_map)
        return StreamingTranscription(Listener(self._predict, frames), picker, self.config)

    def _transcribe(
        self,
        chunks: Iterable[np.ndarray],
        peak: float,
        notify: Callable[[float], None] | None,
        level: str | None,
        threshold: float | None,
        pitch_map: str | None,
    ) -> np.ndarray:
        picker = self.picker(level, threshold, pitch_map)
        if peak == 0.0:
            return picker.flush()
        parts = [picker.push(frames) for frames in self._listen(chunks, peak, notify)]
        return sort_notes(np.concatenate([*parts, picker.flush()]))

    def _listen(
        self,
        chunks: Iterable[np.ndarray],
        peak: float,
        notify: Callable[[float], None] | None,
    ) -> Iterator[Frames]:
        listener = Listener(self._predict)
        gain, done = np.float32(1.0 / peak if peak else 1.0), 0
        for chunk in chunks:
            frames = listener.push(chunk * gain)
            done += len(chunk)
            if frames is not None:
                yield frames
            if notify is not None:
                notify(done / self.sample_rate)
        frames = listener.flush()
        if frames is not None:
            yield frames


class StreamingTranscription:
    """Transcribe sound as it arrives: hits are returned as soon as they are final.

    The loudest sample so far stands for the recording's peak, which is not known yet: until the
    first loud hit, soft ones may be taken for louder ones.

    Attributes:
      latency_seconds: the longest delay from a hit to its output, computing time not counted.
    """

    #: Upper limit of the gain, so that background noise is not taken for drums.
    MAX_GAIN = 100.0

    def __init__(self, listener: Listener, picker: Picker, config: ModelConfig):
        self._listener, self._picker, self._peak = listener, picker, 1.0 / self.MAX_GAIN
        self.sample_rate = config.features.sample_rate
        rate = config.features.frames_per_second
        self.latency_seconds = (
            listener.delay_samples / self.sample_rate + picker.delay_frames / rate
        )

    def push(self, samples: np.ndarray) -> np.ndarray:
        """Take float samples [N] at `sample_rate`; return the new hits, times from the first one.

        Raises:
          ValueError: samples that are not one channel of finite numbers.
        """
        samples = np.asarray(samples)
        if samples.ndim != 1 or not np.issubdtype(samples.dtype, np.floating):
            raise ValueError(
                f"samples: expected float [N], got {samples.dtype} {samples.shape}; "
                "use musax.audio.to_mono and resample"
            )
        if not np.isfinite(samples).all():
            raise ValueError("samples: not all are finite numbers")
        self._peak = max(self._peak, float(np.abs(samples).max(initial=0.0)))
        frames = self._listener.push(samples / np.float32(self._peak))
        return empty_notes() if frames is None else self._picker.push(frames)

    def flush(self) -> np.ndarray:
        """Return the remaining hits, up to the end of the sound."""
        frames = self._listener.flush()
        parts = [] if frames is None else [self._picker.push(frames)]
        return sort_notes(np.concatenate([*parts, self._picker.flush()]))


def _pieces(samples: np.ndarray, sample_rate: int) -> Iterator[np.ndarray]:
    step = round(_CHUNK_SECONDS * sample_rate)
    return (samples[i : i + step] for i in range(0, len(samples), step))


def _quietly(chunks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield chunks without repeating the warnings of their first reading."""
    while True:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            chunk = next(chunks, None)
        if chunk is None:
            return
        yield chunk
