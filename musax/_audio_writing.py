"""Write audio files: whole or block by block, with one peak policy."""

import contextlib
import dataclasses
import math
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import soundfile

from musax._audio_errors import LIBRARY_ERRORS, AudioError, AudioWarning, reason
from t5x.files import atomic_path
from t5x.user_paths import user_path

_BLOCK_FRAMES = 1 << 16


def save_audio(
    path: str | os.PathLike, samples: np.ndarray, rate: int, *, subtype: str | None = None
) -> None:
    """Write an audio file; it appears complete or not at all.

    Peak policy: audio within full scale is written as it is. Audio beyond full scale is scaled
    down as a whole to peak at full scale, with an `AudioWarning` that gives the gain; formats of
    floating-point samples hold any level and are never scaled. Nothing is clipped.

    Args:
      path: the suffix chooses the format (.wav, .flac, .ogg, .mp3, .aiff, …).
      samples: float [samples] or [samples, channels], full scale 1.0.
      rate: Hz.
      subtype: libsndfile's name of the sample format ("PCM_24", "FLOAT"); None is the format's
        default, for WAV 16-bit integers.

    Raises:
      AudioError: for an unknown suffix, a missing folder, samples that are not finite floats, a
        rate the format does not know, or a full disk.
    """
    form = _Format.of(path, rate, subtype)
    samples = _check_samples(path, np.asarray(samples))
    gain = form.gain(float(np.abs(samples).max(initial=0.0)))
    form.write([samples if gain == 1.0 else samples * np.float32(gain)], samples[:1].shape[1:])


@contextlib.contextmanager
def audio_writer(
    path: str | os.PathLike, rate: int, *, subtype: str | None = None
) -> Iterator[Callable[[np.ndarray], None]]:
    """Return a context whose function appends blocks to an audio file, in bounded memory.

    The file appears, as by `save_audio` of all blocks, when the `with` block ends well. Until then
    the samples are in a temporary file of floats beside it, since the peak is known only then.

    >>> with audio_writer("stem.wav", 44100) as write:
    ...     for block in blocks.stream(separate, stream_audio("mix.wav", mono=False)):
    ...         write(block)

    Args:
      path, rate, subtype: as for `save_audio`.

    Raises:
      AudioError: as `save_audio`; or blocks of different numbers of channels; or no block.
    """
    form = _Format.of(path, rate, subtype)
    peak, shape = 0.0, None
    with contextlib.ExitStack() as stack:
        spooled = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=form.target.parent)))
        spool = stack.enter_context((spooled / "samples").open("w+b"))

        def write(block: np.ndarray) -> None:
            nonlocal peak, shape
            block = _check_samples(path, np.asarray(block))
            if shape is None:
                shape = block.shape[1:]
            if block.shape[1:] != shape:
                raise AudioError(f"{path}: a block of {block.shape}, after blocks of {shape}")
            peak = max(peak, float(np.abs(block).max(initial=0.0)))
            spool.write(np.ascontiguousarray(block).tobytes())

        yield write
        if shape is None:
            raise AudioError(f"{path}: no samples were written")
        spool.seek(0)
        form.write(_read_blocks(spool, shape, form.gain(peak)), shape)


def _read_blocks(file: IO[bytes], shape: tuple[int, ...], gain: float) -> Iterator[np.ndarray]:
    width = math.prod(shape)
    while data := file.read(4 * width * _BLOCK_FRAMES):
        yield np.frombuffer(data, np.float32).reshape(-1, *shape) * np.float32(gain)


@dataclasses.dataclass(frozen=True)
class _Format:
    """Path and format of an audio file to write."""

    path: str | os.PathLike  # as the caller gave it, for messages
    target: Path
    rate: int
    name: str
    subtype: str

    @classmethod
    def of(cls, path: str | os.PathLike, rate: int, subtype: str | None) -> "_Format":
        """Check the arguments of a writer; raise AudioError."""
        target = user_path(path)
        name = _format_of(path, target)
        subtype = subtype or soundfile.default_subtype(name)
        if subtype is None or not soundfile.check_format(name, subtype):
            known = ", ".join(soundfile.available_subtypes(name))
            raise AudioError(f"{path}: {name} has no subtype {subtype}; use one of {known}")
        if not target.parent.is_dir():
            raise AudioError(f"{path}: the folder {target.parent} does not exist; create it first")
        return cls(path, target, int(rate), name, subtype)

    def gain(self, peak: float) -> float:
        """Return the factor that brings `peak` within full scale; warn if it is below 1."""
        if peak <= 1.0 or self.subtype in ("FLOAT", "DOUBLE"):
            return 1.0
        warnings.warn(
            f"{self.path}: peak {peak:.3f} exceeds full scale; scaled by "
            f"{-20 * np.log10(peak):.1f} dB so that nothing clips",
            AudioWarning,
            stacklevel=3,
        )
        return 1.0 / peak

    def write(self, blocks: Iterable[np.ndarray], shape: tuple[int, ...]) -> None:
        """Write blocks [samples, *shape], complete or not at all."""
        written = 0
        try:
            with (
                atomic_path(self.target) as temporary,
                soundfile.SoundFile(
                    library_path(temporary),
                    "w",
                    self.rate,
                    shape[0] if shape else 1,
                    self.subtype,
                    format=self.name,
                ) as file,
            ):
                for block in blocks:
                    written += block.size
                    file.write(block)
        except (*LIBRARY_ERRORS, TypeError, ValueError) as error:
            raise AudioError(_write_problem(self.path, self.target, written, error)) from error


def normalize_peak(audio: np.ndarray, peak: float = 0.9) -> np.ndarray:
    """Return `audio` scaled so that its largest magnitude is `peak`; silence stays silence."""
    largest = float(np.abs(audio).max(initial=0.0))
    return audio * np.float32(peak / largest) if largest > 0 else audio


def library_path(path: Path) -> Any:
    """Return a path for soundfile, which takes names that are not UTF-8 as bytes alone."""
    return os.fspath(path) if os.name == "nt" else os.fsencode(path)


def _check_samples(path, samples: np.ndarray) -> np.ndarray:
    if samples.ndim not in (1, 2) or not np.issubdtype(samples.dtype, np.floating):
        raise AudioError(
            f"{path}: expected float samples [samples] or [samples, channels] with full scale 1.0, "
            f"got {samples.dtype} {samples.shape}"
        )
    if not np.isfinite(samples).all():
        raise AudioError(f"{path}: the samples to write hold NaN or infinity; find out where from")
    return samples.astype(np.float32, copy=False)


def _format_of(path, target: Path) -> str:
    name = target.suffix.lstrip(".").upper()
    name = {"AIF": "AIFF", "OPUS": "OGG", "OGA": "OGG"}.get(name, name)
    if name not in soundfile.available_formats() or name == "RAW":
        raise AudioError(f"{path}: unknown audio suffix {target.suffix!r}; use .wav, .flac or .ogg")
    return name


def _write_problem(path, target: Path, size: int, error: BaseException) -> str:
    free = shutil.disk_usage(target.parent).free
    if free < 4 * size:
        return f"{path}: no space left to write ({free} bytes free); free some or write elsewhere"
    if not os.access(target.parent, os.W_OK):
        return f"{path}: no permission to write into {target.parent}; choose another folder"
    why = reason(error)
    return (
        f"{path}: cannot be written ({why}); check the disk and its quota, and that the format "
        "knows this sample rate and number of channels (WAV knows all)"
    )
