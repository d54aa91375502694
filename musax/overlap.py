"""Run a function of fixed-size blocks over audio of any length, in bounded memory.

    blocks = Blocks(hop=160_000, context=8_000)
    stems = blocks.run(separate, audio)                 # [sources, samples, channels]
    with audio_writer("stem.wav", 44100) as write:      # the same from file to file
        for part in blocks.stream(separate, stream_audio("mix.wav", 44100, mono=False)):
            write(part[0])

Block k reads the samples [k·hop − context, (k + 1)·hop + fade + context) and answers for
[k·hop, (k + 1)·hop + fade). Neighbours share `fade` samples, where one fades out as the other fades
in with weights that sum to 1. What lies before the beginning and after the end reads as zeros. All
blocks have one shape, so a jitted function compiles once.

The result equals one pass over the whole signal, padded with zeros, if the function

* is local: output sample t depends on inputs [t − context, t + context] alone;
* is invariant in time: shifting its input shifts its output. For a function with a stride (an STFT,
  strided convolutions), `hop` and `context` have to be multiples of the stride;
* keeps its output's length at `ratio` times that of its input.

With `fade=0` the samples are those of one pass, up to the function's own rounding; with a fade they
are mixed with themselves, which adds rounding. For a function that is not local (a network with
attention or normalization over the block), neighbours differ where they meet, and the fade hides
the seam.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

#: Maps a block [size, ...] to an array whose time axis is `ratio` times as long.
BlockFunction = Callable[[np.ndarray], Any]
Progress = Callable[[int, int | None], None]


@dataclasses.dataclass(frozen=True)
class Blocks:
    """Division of a signal into overlapping blocks.

    Attributes:
      hop: input samples from one block to the next, at least 1.
      context: further input samples that a block reads on each side, at least 0.
      fade: samples in which neighbours are mixed, 0 to `hop`.
      ratio: output samples of an input sample. A vocoder of 100 frames/s to 16 kHz has 160.
      axis: time axis of the function's output: 1 for [sources, samples, channels].
    """

    hop: int
    context: int = 0
    fade: int = 0
    ratio: int = 1
    axis: int = 0

    def __post_init__(self):
        for name, least in (("hop", 1), ("context", 0), ("fade", 0), ("ratio", 1), ("axis", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"Blocks: {name}={getattr(self, name)}, expected at least {least}")
        if self.fade > self.hop:
            raise ValueError(f"Blocks: fade={self.fade} exceeds hop={self.hop}; lower it")

    @property
    def size(self) -> int:
        """Samples of a block, the first axis of the function's input."""
        return self.hop + self.fade + 2 * self.context

    def run(
        self, function: BlockFunction, audio: np.ndarray, progress: Progress | None = None
    ) -> np.ndarray:
        """Return the function's output for a whole signal.

        Args:
          function: block [size, ...] -> array with `axis` of length ratio · size.
          audio: [samples, ...], at least one sample; may be shorter than a block.
          progress: called with (samples done, samples in all) after each block.

        Returns:
          An array as the function's, with `axis` of length ratio · samples.

        Raises:
          ValueError: no samples, or the function's output has another length.
        """
        if not len(audio):
            raise ValueError(f"audio: no samples (shape {audio.shape})")

        def report(done: int, total: int | None) -> None:
            if progress is not None:
                progress(done, len(audio))

        parts = list(self.stream(function, [audio], report))
        return np.concatenate(parts, axis=self.axis)

    def stream(
        self,
        function: BlockFunction,
        chunks: Iterable[np.ndarray],
        progress: Progress | None = None,
    ) -> Iterator[np.ndarray]:
        """Yield the function's output piece by piece.

        Memory holds one block, one chunk and one piece, whatever the signal's length.

        Args:
          function: as in `run`.
          chunks: consecutive parts [samples, ...] of the signal, of any lengths.
          progress: called with (samples done, None) after each block.

        Yields:
          Pieces that follow one another along `axis`; each of ratio · hop samples but the last.
          Nothing for a signal without samples.

        Raises:
          ValueError: the function's output has another length.
        """
        total, done, tail = 0, 0, None
        for block, read in self._blocks(chunks):
            total = read
            piece, tail = self._merge(self._call(function, block), tail)
            samples = min(self.hop, total - done)
            done += samples
            yield _take(piece, self.axis, 0, samples * self.ratio)
            if progress is not None:
                progress(done, None)

    def _blocks(self, chunks: Iterable[np.ndarray]) -> Iterator[tuple[np.ndarray, int]]:
        """Yield each block, and how many samples of the signal have been read up to then."""
        held: np.ndarray | None = None
        read, begins = 0, 0  # `held` begins `context` samples before the signal's sample `begins`
        for chunk in chunks:
            if held is None:
                held = _zeros_like(chunk, self.context)
            held = np.concatenate([held, chunk])
            read += len(chunk)
            while len(held) >= self.size:
                yield held[: self.size], read
                held = held[self.hop :]
                begins += self.hop
        while held is not None and begins < read:
            padding = _zeros_like(held, max(self.size - len(held), 0))
            yield np.concatenate([held, padding])[: self.size], read
            held = held[self.hop :]
            begins += self.hop

    def _call(self, function: BlockFunction, block: np.ndarray) -> np.ndarray:
        """Return the function's output for a block, without its context."""
        output = np.asarray(function(block))
        if output.ndim <= self.axis or output.shape[self.axis] != self.ratio * self.size:
            raise ValueError(
                f"Blocks: the function returned shape {output.shape} for a block of {block.shape}; "
                f"expected {self.ratio * self.size} samples on axis {self.axis}"
            )
        context = self.ratio * self.context
        return _take(output, self.axis, context, output.shape[self.axis] - context)

    def _merge(
        self, block: np.ndarray, tail: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Mix the beginning of a block with the end of the one before; split off its own end."""
        hop, fade = self.ratio * self.hop, self.ratio * self.fade
        if not fade:
            return block, None
        rising = np.sin(0.5 * np.pi * (np.arange(fade) + 0.5) / fade) ** 2
        rising = rising.astype(block.dtype).reshape([-1] + [1] * (block.ndim - 1 - self.axis))
        if tail is not None:
            mixed = tail + rising * _take(block, self.axis, 0, fade)
            block = np.concatenate(
                [mixed, _take(block, self.axis, fade, hop + fade)], axis=self.axis
            )
        end = _take(block, self.axis, hop, hop + fade)
        return _take(block, self.axis, 0, hop), (1 - rising) * end


def _take(array: np.ndarray, axis: int, begin: int, end: int) -> np.ndarray:
    return array[(slice(None),) * axis + (slice(begin, end),)]


def _zeros_like(array: np.ndarray, samples: int) -> np.ndarray:
    return np.zeros((samples, *array.shape[1:]), array.dtype)
