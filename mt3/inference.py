"""Transcription of recordings.

    transcriber = Transcriber.from_pretrained("mt3-piano-tiny")
    transcriber.transcribe_file("song.wav").save("song.mid")

Segments are decoded in batches, independently of each other, and their tokens are then read in
order, so that notes may cross borders. A recording of any length takes the memory of one batch.
"""

import dataclasses
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from itertools import batched
from typing import Any, Self

import numpy as np

from mt3.model_config import ModelConfig, read_model_config, recognise_layout
from mt3.prediction import DECODES, Predictor
from mt3.segments import segment_features
from mt3.streaming import StreamedSegment, stream_segments
from mt3.vocabularies import build_codec, vocabulary_from_codec
from musax import pretrained
from musax.audio import audio_info, check_audio, resample, stream_audio, to_mono
from musax.events.decode import NoteDecoder
from musax.model_config import PretrainedModel
from musax.notes import sort_notes, voice_keys
from musax.results import Transcription
from t5x.checkpoints import load_params
from t5x.compilation_cache import enable_compilation_cache
from t5x.data.vocabularies import DECODED_EOS

#: How long a note may sound whose end was never predicted, s. See `Transcriber.transcribe`.
MAX_DANGLING_SECONDS = 1.5
#: The shortest note where the steps of a model are so coarse that shorter ones are noise, s.
MIN_NOTE_SECONDS = 0.03
#: MIDI velocity of the notes of models that tell none.
DEFAULT_VELOCITY = 80
_COARSE_STEP = 0.01
_CHUNK_SECONDS = 10.0
_CPU_BATCH, _ACCELERATOR_BATCH = 16, 64

#: (seconds of audio done, seconds in all, or None if unknown)
Progress = Callable[[float, float | None], None]
#: (features float32 [N, frames, F], decode, batch size) -> vocabulary ids int32 [N or more, L]
Predict = Callable[[np.ndarray, str, int], Any]


class Transcriber(PretrainedModel[ModelConfig]):
    """Transcribe recordings to notes with one model.

    Args:
      config: the model's configuration.
      params: of the network.
      source: the file they come from, for messages.

    Raises:
      CheckpointError: arrays are missing, unknown, or of other shapes; lists which.
    """

    config_class = ModelConfig

    def __init__(self, config: ModelConfig, params: Any, source: Any = "model"):
        super().__init__(config, params, source)
        self._prepare(config, Predictor(config, self.params))

    @classmethod
    def with_predictor(cls, config: ModelConfig, predict: Predict) -> Self:
        """Return a transcriber whose tokens come from a function in place of a network."""
        transcriber = cls.__new__(cls)
        transcriber._prepare(config, predict)
        return transcriber

    def _prepare(self, config: ModelConfig, predict: Predict) -> None:
        self.config = config
        self._predict = predict
        self._codec = build_codec(config.vocabulary)
        self._vocabulary = vocabulary_from_codec(self._codec)

    @classmethod
    def from_pretrained(
        cls,
        name_or_dir: str | os.PathLike,
        *,
        config: ModelConfig | Mapping[str, Any] | str | os.PathLike | None = None,
    ) -> Self:
        """Load a model.

        Args:
          name_or_dir: the name of a shipped model, a model folder, or a checkpoint: a folder of
            released T5X checkpoints (ismir2021 and mt3 are recognised by their shapes) or one that
            training wrote, of which the latest is taken.
          config: the configuration, or the path of its `config.json`; needed where neither the
            folder nor its parent has a `config.json`, and the shapes are not those of a release.

        Raises:
          PretrainedError: an unknown name; the message lists the known ones.
          CheckpointError: no checkpoint, or arrays are missing or do not fit; names them.
          ModelConfigError: a wrong configuration; names the field.
        """
        enable_compilation_cache()
        path = pretrained.resolve(name_or_dir)
        params = load_params(path)
        given = pretrained.config_path(path) if config is None else config
        if given is not None and not isinstance(given, ModelConfig):
            given = read_model_config(given)
        return cls(recognise_layout(params, path) if given is None else given, params, path)

    @classmethod
    def options(cls, task: str, config: ModelConfig) -> Collection[str]:
        """Return the names of the options; one for velocities only where the model tells none."""
        names = set(super().options(task, config))
        tells = config is not None and _has_velocities(config)  # releases have no configuration
        return names - {"velocity"} if tells else names

    # ------------------------------------------------------------------------- transcription

    def transcribe(
        self,
        audio: np.ndarray,
        sample_rate: int,
        *,
        decode: str = "constrained",
        batch_size: int | None = None,
        max_dangling_seconds: float | None = MAX_DANGLING_SECONDS,
        min_note_seconds: float | None = 0.0,
        velocity: int | None = DEFAULT_VELOCITY,
        progress: Progress | None = None,
    ) -> Transcription:
        """Transcribe samples.

        Args:
          audio: float [samples] or [samples, channels], full scale 1.0; channels are averaged.
          sample_rate: Hz; other rates than the model's are resampled.
          decode: "greedy" takes the likeliest token at each step; "constrained" the likeliest which
            is valid after those before it; "t5x_beam1" is the reference's beam search of width
            1, which may end a segment earlier.
          batch_size: segments decoded together; default 16, or 64 on an accelerator.
          max_dangling_seconds: how long a note lasts at most whose end was not predicted, where the
            encoding has no ties: one that is cut off by the next note of its pitch or by the end
            of the recording. None for no limit, as in the reference.
          min_note_seconds: shorter notes, except drums, are left out; 0 for none, as in the
            reference. None for 0.03 with models that tell ends in steps of 10 ms or more, whose
            notes of one or two steps are often noise, and 0 with others.
          velocity: MIDI velocity of all notes, 1 to 127, with models that tell none; None for the
            reference's: 127, or 100 with models of onsets alone.
          progress: called after each segment.

        Raises:
          ValueError: the audio is of a wrong type or shape, empty, or not finite.
        """
        min_note = self._min_note(min_note_seconds)
        samples = check_audio(audio, sample_rate)
        samples = resample(to_mono(samples), sample_rate, self.config.spectrogram.sample_rate)
        seconds = len(audio) / sample_rate
        result = self._transcribe(
            [samples], seconds, decode, batch_size, max_dangling_seconds, progress, min_note
        )
        return self._with_velocity(result, velocity)

    def transcribe_file(
        self,
        path: str | os.PathLike,
        *,
        decode: str = "constrained",
        batch_size: int | None = None,
        max_dangling_seconds: float | None = MAX_DANGLING_SECONDS,
        min_note_seconds: float | None = 0.0,
        velocity: int | None = DEFAULT_VELOCITY,
        progress: Progress | None = None,
    ) -> Transcription:
        """Transcribe an audio file as it is read, in the memory of one batch.

        Arguments as in `transcribe`. A file that breaks off is transcribed up to there, with a
        `musax.audio.AudioWarning`.

        Raises:
          AudioError: the file is missing, unreadable or not audio, or its samples are not finite.
        """
        min_note = self._min_note(min_note_seconds)
        chunks = stream_audio(path, self.config.spectrogram.sample_rate, _CHUNK_SECONDS)
        seconds = audio_info(path).seconds  # an estimate for some formats
        result = self._transcribe(
            chunks, seconds, decode, batch_size, max_dangling_seconds, progress, min_note
        )
        return self._with_velocity(result, velocity)

    def _transcribe(
        self,
        chunks: Iterable[np.ndarray],
        seconds: float,
        decode: str,
        batch_size: int | None,
        max_dangling_seconds: float | None,
        progress: Progress | None,
        min_note: float = 0.0,
    ) -> Transcription:
        if decode not in DECODES:
            raise ValueError(f"decode={decode!r}: expected one of {', '.join(DECODES)}")
        batch_size = _default_batch_size() if batch_size is None else batch_size
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size}: expected 1 or more")
        meter = _Meter(chunks, self.config.spectrogram.sample_rate)
        segments = stream_segments(
            meter, self.config.segment, self.config.spectrogram, self._codec.steps_per_second
        )
        state = NoteDecoder(self._codec, self.config.spec)
        parts = []
        decoded = _notify(self._decode(segments, decode, batch_size), progress, seconds)
        for segment, tokens, limit in _with_limits(decoded):
            state.decode_segment(tokens, segment.start_time, limit)
            parts.append(state.take_notes())
        parts = [_without_short_notes(part, min_note) for part in parts]
        parts.append(state.flush())  # cut off by the end of the recording
        if max_dangling_seconds is not None and self.config.spec.offsets:
            parts = self._end_dangling_notes(parts, max_dangling_seconds)
        constrained = decode == "constrained"
        return Transcription(
            notes=sort_notes(np.concatenate(parts)),
            seconds=meter.seconds,
            silent=meter.silent,
            invalid_events=0 if constrained else state.invalid_events,
            dropped_events=state.dropped_events,
            # The grammar excludes all other errors; it lacks only the previous segments' state.
            unmatched_events=state.invalid_events if constrained else 0,
        )

    def _decode(
        self, segments: Iterator[StreamedSegment], decode: str, batch_size: int
    ) -> Iterator[tuple[StreamedSegment, np.ndarray]]:
        """Yield segments in order with their codec ids, int [L]."""
        running: tuple[tuple[StreamedSegment, ...], Any] | None = None
        for batch in batched(segments, batch_size):
            sounding = [segment.audio for segment in batch if not segment.silent]
            tokens = None
            if sounding:
                features = np.stack([self._features(audio) for audio in sounding])
                tokens = self._predict(features, decode, batch_size)
            # The device works on this batch while the one before is read.
            if running is not None:
                yield from self._collect(*running)
            running = batch, tokens
        if running is not None:
            yield from self._collect(*running)

    def _features(self, audio: np.ndarray) -> np.ndarray:
        return segment_features(audio, self.config.segment, self.config.spectrogram)

    def _collect(
        self, batch: tuple[StreamedSegment, ...], tokens: Any
    ) -> Iterator[tuple[StreamedSegment, np.ndarray]]:
        rows = iter([] if tokens is None else np.asarray(tokens))
        for segment in batch:
            yield segment, self._silence() if segment.silent else self._codec_ids(next(rows))

    def _silence(self) -> np.ndarray:
        """Return the codec ids of a segment in which nothing sounds."""
        ties = self.config.spec.ties
        return np.array([self._codec.event_type_range("tie")[0]] if ties else [], np.int32)

    def _codec_ids(self, tokens: np.ndarray) -> np.ndarray:
        """Return codec ids, int [L], of vocabulary ids before EOS; negative for unknown ids."""
        ids = self._vocabulary.decode_array(tokens)
        ends = np.flatnonzero(ids == DECODED_EOS)
        return ids[: ends[0]] if len(ends) else ids

    def _end_dangling_notes(self, parts: list[np.ndarray], limit: float) -> list[np.ndarray]:
        """Shorten notes that got no end event to `limit` s, among them all of `parts[-1]`."""
        if self.config.spec.ties:
            return parts
        notes = np.concatenate(parts)
        onsets = set(zip(voice_keys(notes).tolist(), notes["onset"].tolist()))
        ends = zip(voice_keys(notes).tolist(), notes["offset"].tolist())
        dangling = np.fromiter((end in onsets for end in ends), bool, len(notes))
        dangling[len(notes) - len(parts[-1]) :] = True
        latest = np.where(dangling, notes["onset"] + limit, np.inf)
        notes["offset"] = np.minimum(notes["offset"], latest)
        return [notes]

    def _min_note(self, asked: float | None) -> float:
        """Return the length of the shortest notes that are kept, s."""
        if asked is None:
            coarse = self._codec.steps_per_second * _COARSE_STEP <= 1.0
            return MIN_NOTE_SECONDS if coarse and self.config.spec.offsets else 0.0
        if not 0 <= asked < np.inf:
            raise ValueError(f"min_note_seconds={asked}: expected 0 or more")
        return asked

    def _with_velocity(self, result: Transcription, velocity: int | None) -> Transcription:
        if velocity is None or _has_velocities(self.config):
            return result
        if not 1 <= velocity <= 127:
            raise ValueError(f"velocity={velocity}: expected 1 to 127")
        notes = result.notes.copy()
        notes["velocity"] = velocity
        return dataclasses.replace(result, notes=notes)


class _Meter:
    """Pass chunks on, and measure their length and whether every sample is 0."""

    def __init__(self, chunks: Iterable[np.ndarray], sample_rate: int):
        self._chunks = chunks
        self._sample_rate = sample_rate
        self._samples = 0
        self.silent = True

    def __iter__(self) -> Iterator[np.ndarray]:
        for chunk in self._chunks:
            self._samples += len(chunk)
            self.silent = self.silent and not chunk.any()
            yield chunk

    @property
    def seconds(self) -> float:
        return self._samples / self._sample_rate


def _has_velocities(config: ModelConfig) -> bool:
    return config.spec.offsets and config.vocabulary.num_velocity_bins > 1


def _without_short_notes(notes: np.ndarray, seconds: float) -> np.ndarray:
    lasting = notes["offset"] - notes["onset"] > seconds - 1e-6
    return notes[notes["is_drum"] | lasting]


def _with_limits(
    decoded: Iterator[tuple[StreamedSegment, np.ndarray]],
) -> Iterator[tuple[StreamedSegment, np.ndarray, float | None]]:
    """Add the start of the segment after each, or None."""
    held = next(decoded, None)
    for following in decoded:
        assert held is not None
        yield *held, following[0].start_time
        held = following
    if held is not None:
        yield *held, None


def _notify(
    decoded: Iterator[tuple[StreamedSegment, np.ndarray]],
    progress: Progress | None,
    seconds: float,
) -> Iterator[tuple[StreamedSegment, np.ndarray]]:
    for segment, tokens in decoded:
        yield segment, tokens
        if progress is not None:
            progress(min(segment.end_time, seconds), seconds)


def _default_batch_size() -> int:
    import jax

    return _CPU_BATCH if jax.default_backend() == "cpu" else _ACCELERATOR_BATCH
