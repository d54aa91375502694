"""Convert audio files to float32 arrays and back: decode, mix down, resample, stream, write.

Audio is float32 [samples] or [samples, channels] with full scale 1.0, always beside its sample
rate in Hz. Reading goes through libsndfile (WAV, FLAC, MP3, Ogg Vorbis/Opus, AIFF, CAF, …),
resampling through soxr at high quality. `stream_audio` yields exactly the samples of `load_audio`
in bounded memory.
"""

import collections
import contextlib
import dataclasses
import os
import warnings
from collections.abc import Iterable, Iterator

import numpy as np
import soundfile
import soxr

from musax import _audio_headers
from musax._audio_errors import LIBRARY_ERRORS, AudioError, AudioWarning, not_audio
from musax._audio_writing import audio_writer, library_path, normalize_peak, save_audio
from t5x.user_paths import user_path

__all__ = [
    "AudioError",
    "AudioInfo",
    "AudioWarning",
    "ResampleStream",
    "audio_info",
    "audio_writer",
    "check_audio",
    "load_audio",
    "normalize_peak",
    "resample",
    "save_audio",
    "stream_audio",
    "to_float",
    "to_mono",
]

_BLOCK_FRAMES = 1 << 16
_SMALL_FRAMES = 16
_QUALITY = "HQ"
#: Lowest and highest rate of a file, Hz; others make a small file endless, or no sound at all.
SAMPLE_RATES = (1000, 1_000_000)
#: 40 dB above full scale: no recording, but integers that were converted without scaling.
_LARGEST_PEAK = 100.0
#: Energy of the average of channels, in that of the loudest, below which they cancel (-15 dB). The
#: average of independent channels has a quarter at least.
_CANCELLED = 0.03
_BEGINNING_SECONDS = 10
_HERE = (os.path.dirname(__file__),)  # warnings name the line that called musax


@dataclasses.dataclass(frozen=True)
class AudioInfo:
    """Properties of an audio file; `samples` (per channel) is an estimate for some MP3 files."""

    sample_rate: int
    channels: int
    samples: int
    format: str
    subtype: str

    @property
    def seconds(self) -> float:
        return self.samples / self.sample_rate


# --------------------------------------------------------------------------------------- reading


def audio_info(path: str | os.PathLike) -> AudioInfo:
    """Return rate, channels, length and format, without decoding the samples.

    Raises:
      AudioError: if the file is missing, unreadable, or not audio.
    """
    with _open(path) as file:
        return AudioInfo(file.samplerate, file.channels, file.frames, file.format, file.subtype)


def load_audio(
    path: str | os.PathLike, sample_rate: int | None = None, mono: bool = True
) -> tuple[np.ndarray, int]:
    """Decode a whole file.

    Args:
      sample_rate: resample to this rate, Hz; None keeps the file's own.
      mono: average the channels -> [samples]; otherwise [samples, channels].

    Returns:
      (audio float32, its sample rate).

    Raises:
      AudioError: if the file is missing, unreadable, not audio, empty, or has samples that are not
        finite numbers. A file that breaks off is read up to there, with an `AudioWarning`.
    """
    rate = _check_rate(sample_rate, "sample_rate") or audio_info(path).sample_rate
    blocks = list(_resampled_blocks(path, rate, mono))
    return np.concatenate(blocks), rate


def stream_audio(
    path: str | os.PathLike,
    sample_rate: int | None = None,
    chunk_seconds: float = 10.0,
    mono: bool = True,
) -> Iterator[np.ndarray]:
    """Decode a file in chunks, in memory that does not grow with its length.

    Yields:
      float32 chunks of `chunk_seconds`, the last one shorter; together they equal `load_audio`.

    Raises:
      AudioError: at the call if the file cannot be opened, later if it turns out to be bad.
    """
    rate = _check_rate(sample_rate, "sample_rate") or audio_info(path).sample_rate
    audio_info(path)  # a missing file is an error here, not at the first chunk
    size = round(chunk_seconds * rate)
    if size < 1:
        raise ValueError(f"chunk_seconds={chunk_seconds}: less than one sample at {rate} Hz")
    return _rechunk(_resampled_blocks(path, rate, mono), size)


def _rechunk(blocks: Iterator[np.ndarray], size: int) -> Iterator[np.ndarray]:
    pending: list[np.ndarray] = []
    held = 0
    for block in blocks:
        pending.append(block)
        held += len(block)
        if held < size:
            continue
        joined = np.concatenate(pending)
        cut = held - held % size
        yield from np.split(joined[:cut], range(size, cut, size))
        pending, held = [joined[cut:]], held - cut
    if held:
        yield np.concatenate(pending)


def _resampled_blocks(path, rate: int, mono: bool) -> Iterator[np.ndarray]:
    with _open(path) as file:
        resampler = ResampleStream(file.samplerate, rate, 1 if mono else file.channels)
        blocks = _decoded_blocks(file, path)
        for block in _mono_blocks(blocks, file.samplerate, str(path)) if mono else blocks:
            yield resampler.process(block)
        end = resampler.finish()
        yield end if mono else end.reshape(len(end), file.channels)


def _mono_blocks(blocks: Iterator[np.ndarray], rate: int, name: str) -> Iterator[np.ndarray]:
    """Yield [frames, channels] as [frames], see `to_mono`; the beginning of the sound decides."""
    beginning: collections.deque[np.ndarray] = collections.deque()
    heard = 0
    for block in blocks:
        sounds = block.any()
        # Silence may last for hours, and takes no memory like this.
        beginning.append(block if sounds else np.broadcast_to(np.float32(0), block.shape))
        heard += len(block) if sounds else 0
        if block.shape[1] < 2 or heard >= _BEGINNING_SECONDS * rate:
            break
    channel = _loudest_of_cancelling(beginning, name)
    while beginning:
        yield _mixed(beginning.popleft(), channel)
    for block in blocks:
        yield _mixed(block, channel)


def _decoded_blocks(file: soundfile.SoundFile, path) -> Iterator[np.ndarray]:
    """Yield float32 [frames, channels] blocks of an open file, checked."""
    position, problem = 0, None
    for block in _readable_blocks(file, path):
        if isinstance(block, Exception):
            problem = block
            break
        if not np.isfinite(block).all():
            bad = position + int(np.argmin(np.isfinite(block).all(axis=1)))
            raise AudioError(
                f"{path}: the sample at {bad / file.samplerate:.3f} s is not a finite number; "
                "export the file again, or repair it (numpy.nan_to_num)"
            )
        position += len(block)
        yield block
    if not position:
        raise AudioError(
            f"{path}: holds no audio that can be decoded"
            + (f" ({problem})" if problem else " (0 samples)")
            + "; export or download the file again"
        )
    cut, expected = _cut_short(path, file, position)
    if problem or cut:
        warnings.warn(
            f"{path}: breaks off after {position / file.samplerate:.2f} s"
            + (f" of {expected / file.samplerate:.2f} s" if expected > position else "")
            + (f" ({problem})" if problem else "")
            + "; going on with what could be decoded",
            AudioWarning,
            skip_file_prefixes=_HERE,
        )


def _readable_blocks(file: soundfile.SoundFile, path) -> Iterator[np.ndarray | Exception]:
    """Yield blocks up to the end, or to the first bad place, and then the error."""
    position = 0
    try:
        while len(block := file.read(_BLOCK_FRAMES, dtype="float32", always_2d=True)):
            yield block
            position += len(block)
    except LIBRARY_ERRORS as error:
        # The good part of the last block was lost with it, and few formats can seek now.
        with contextlib.suppress(*LIBRARY_ERRORS), _open(path) as again:
            for _ in range(position // _BLOCK_FRAMES):
                again.read(_BLOCK_FRAMES, dtype="float32")
            while len(block := again.read(_SMALL_FRAMES, dtype="float32", always_2d=True)):
                yield block
        yield error


def _cut_short(path, file: soundfile.SoundFile, decoded: int) -> tuple[bool, float]:
    """Return whether a file breaks off after `decoded` frames, and how many it should have."""
    location = user_path(path)
    if location.is_file():
        extent = _audio_headers.sample_bytes(location)
        if extent and extent.present < extent.declared:
            return True, decoded * extent.declared / max(extent.present, 1)
        if _audio_headers.ogg_breaks_off(location):
            return True, decoded
    # Frame counts of MP3 files without a header are estimates, so only a real shortfall counts.
    return decoded < file.frames - file.samplerate // 4, file.frames


@contextlib.contextmanager
def _open(path: str | os.PathLike) -> Iterator[soundfile.SoundFile]:
    """Open a file, or raise AudioError with the reason."""
    location = user_path(path)
    if location.is_dir():
        raise AudioError(f"{path}: is a folder; give the path of one audio file")
    if not location.exists():
        raise AudioError(f"{path}: no such file; check the path")
    if not os.access(location, os.R_OK):
        raise AudioError(f"{path}: no permission to read it; check the file's mode and owner")
    if location.is_file() and not location.stat().st_size:
        raise AudioError(f"{path}: the file is empty (0 bytes); export or download it again")
    try:
        file = soundfile.SoundFile(library_path(location))
    except (*LIBRARY_ERRORS, TypeError) as error:
        raise AudioError(not_audio(path, location, error)) from error
    with file:
        low, high = SAMPLE_RATES
        if not low <= file.samplerate <= high:
            raise AudioError(
                f"{path}: a sample rate of {file.samplerate} Hz; expected {low} Hz to "
                f"{high // 1000} kHz: the header is damaged, or the file is no audio"
            )
        yield file


# ---------------------------------------------------------------------------------- conversions


def to_mono(audio: np.ndarray, name: str = "audio") -> np.ndarray:
    """Average the channels: [samples] or [samples, channels] -> [samples].

    Channels in antiphase, of which the average would be nothing, give the loudest one, with an
    `AudioWarning` that says so.
    """
    if audio.ndim == 1:
        return audio
    return _mixed(audio, _loudest_of_cancelling([audio], name))


def _mixed(audio: np.ndarray, channel: int | None) -> np.ndarray:
    """Return one channel of [samples, channels], or the average."""
    return audio.mean(axis=1, dtype=np.float32) if channel is None else audio[:, channel]


def _loudest_of_cancelling(blocks: Iterable[np.ndarray], name: str) -> int | None:
    """Return the loudest channel, with a warning, if the channels cancel each other; else None."""
    mean_energy, energies = 0.0, np.zeros(1)
    for block in blocks:
        if block.shape[1] < 2:
            return None
        energies = energies + np.einsum("sc,sc->c", block, block, dtype=np.float64)
        mean = block.mean(axis=1, dtype=np.float32)
        mean_energy += float(np.dot(mean, mean))
    if not mean_energy < _CANCELLED * energies.max():  # nor if not a number, which reading tells
        return None
    channel = int(np.argmax(energies))
    warnings.warn(
        f"{name}: the channels cancel each other (antiphase: one has the wrong polarity); channel "
        f"{channel + 1} alone is used instead of their average",
        AudioWarning,
        skip_file_prefixes=_HERE,
    )
    return channel


def to_float(audio: np.ndarray, name: str = "audio") -> np.ndarray:
    """Convert stored samples to float32 with full scale 1.0; their dtype says what they are.

    Args:
      audio: int16 or int32 of full scale, uint8 around 128, or floats, which stay as they are.
      name: what the samples are called in errors.

    Raises:
      ValueError: another dtype, floats that are not finite, or ones beyond 40 dB above full scale,
        which were integers once.
    """
    audio = np.asarray(audio)
    if audio.dtype == np.uint8:
        return (audio.astype(np.float32) - 128) / 128
    if audio.dtype in (np.int16, np.int32):
        return audio.astype(np.float32) / -float(np.iinfo(audio.dtype).min)
    if not np.issubdtype(audio.dtype, np.floating):
        raise ValueError(
            f"{name}: {audio.dtype} samples; expected floats with full scale 1.0, int16, int32 or "
            "uint8"
        )
    audio = audio.astype(np.float32, copy=False)
    peak = float(np.abs(audio).max(initial=0.0))
    if not np.isfinite(peak):
        raise ValueError(f"{name}: a sample that is not a finite number; see numpy.nan_to_num")
    if peak > _LARGEST_PEAK:
        raise ValueError(
            f"{name}: float samples with a peak of {peak:.0f}; expected full scale 1.0: store "
            "integers as integers, or divide them by their full scale (32768 for int16)"
        )
    return audio


def check_audio(audio: np.ndarray, sample_rate: float) -> np.ndarray:
    """Check the audio given to a model and return it as float32.

    Args:
      audio: float [samples] or [samples, channels], full scale 1.0.
      sample_rate: Hz.

    Raises:
      ValueError: a wrong type or shape, no samples, or one that is not finite (gives its time).
    """
    audio = np.asarray(audio)
    if audio.ndim not in (1, 2) or not np.issubdtype(audio.dtype, np.floating):
        raise ValueError(
            f"audio: expected float samples [samples] or [samples, channels] with full scale 1.0, "
            f"got {audio.dtype} {audio.shape}; divide integers by their full scale (32768 for "
            "int16)"
        )
    if not audio.size:
        raise ValueError(f"audio: no samples (shape {audio.shape})")
    if audio.ndim == 2 and audio.shape[1] > audio.shape[0]:
        raise ValueError(
            f"audio: shape {audio.shape} has more channels than samples; expected "
            "[samples, channels]: transpose it"
        )
    finite = np.isfinite(audio).reshape(len(audio), -1).all(axis=1)
    if not finite.all():
        where = int(np.argmin(finite)) / sample_rate
        raise ValueError(
            f"audio: the sample at {where:.3f} s is not a finite number; find out where it comes "
            "from, or use numpy.nan_to_num"
        )
    return audio.astype(np.float32, copy=False)


def resample(samples: np.ndarray, rate: float, new_rate: float) -> np.ndarray:
    """Change the sample rate (soxr, high quality, linear phase).

    Args:
      samples: float [samples] or [samples, channels].
      rate, new_rate: Hz.

    Returns:
      float32, round(samples · new_rate / rate) long; the input itself if the rates are equal.
    """
    samples = np.asarray(samples)
    if samples.ndim not in (1, 2) or not np.issubdtype(samples.dtype, np.floating):
        raise ValueError(
            f"resample: expected float audio [samples] or [samples, channels], got "
            f"{samples.dtype} {samples.shape}"
        )
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    stream = ResampleStream(rate, new_rate, channels)
    start = stream.process(samples.astype(np.float32, copy=False))
    end = stream.finish().reshape(-1, *start.shape[1:])
    return np.concatenate([start, end]) if len(end) else start


class ResampleStream:
    """Resample a signal that arrives in chunks; their sizes do not affect the result.

    `process(chunk)` returns the samples ready so far (soxr holds back some ms), `finish()`
    the rest. Chunks and results are float32 [samples] for one channel, or [samples, channels].
    """

    def __init__(self, rate: float, new_rate: float, channels: int = 1):
        _check_rate(rate, "rate")
        _check_rate(new_rate, "new_rate")
        self._channels = channels
        self._empty = np.zeros(0 if channels == 1 else (0, channels), np.float32)
        self._stream = None
        if rate != new_rate:
            self._stream = soxr.ResampleStream(
                rate, new_rate, channels, dtype="float32", quality=_QUALITY
            )

    def process(self, chunk: np.ndarray) -> np.ndarray:
        """Take the next samples; return those that are ready."""
        if self._stream is None or not len(chunk):
            return chunk
        return self._run(chunk, last=False)

    def finish(self) -> np.ndarray:
        """Return the samples still held back; call once, at the end."""
        return self._empty if self._stream is None else self._run(self._empty, last=True)

    def _run(self, chunk: np.ndarray, last: bool) -> np.ndarray:
        assert self._stream is not None
        chunk = np.ascontiguousarray(chunk, np.float32)
        if self._channels == 1 and chunk.ndim == 2:  # soxr takes [samples] for one channel
            return self._stream.resample_chunk(chunk[:, 0], last=last)[:, None]
        return self._stream.resample_chunk(chunk, last=last)


def _check_rate(rate, name: str):
    if rate is not None and not (rate > 0 and np.isfinite(rate)):
        raise ValueError(f"{name}={rate}: a sample rate must be positive (Hz)")
    return rate
