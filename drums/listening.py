"""Run a network on samples that arrive in blocks.

Letters in shapes: N samples, T frames, K classes, P frames of a piece.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from drums.features import log_mel
from drums.model_config import ModelConfig
from drums.network import probabilities
from drums.picking import Frames, oaf_frames

#: Context frames of OaF Drums on each side of a piece: its LSTM's reach is unlimited, but decays.
OAF_CONTEXT = 172


class Predictor:
    """A network with its parameters, compiled for pieces of equal length.

    Args:
      config: the model.
      variables: `params` and `batch_stats`, float32; see `musax.model_config.place_params`.
    """

    def __init__(self, config: ModelConfig, variables: Mapping[str, Any]):
        self.config = config
        self._module = config.module()
        self._variables = variables
        self._program = jax.jit(self._run)

    @property
    def context_frames(self) -> tuple[int, int]:
        """Context frames before and after a piece."""
        if self.config.is_oaf:
            return OAF_CONTEXT, OAF_CONTEXT
        return self.config.network.context_frames  # type: ignore[union-attr]

    def _run(self, variables: Any, audio: jax.Array) -> dict[str, jax.Array]:
        """Return the outputs of all frames of [N] samples."""
        spectrogram = log_mel(audio[None], self.config.features)
        outputs = self._module.apply(variables, spectrogram, training=False)
        outputs = {**outputs, "onsets": probabilities(outputs)}  # type: ignore[arg-type]
        return {name: x[0] for name, x in outputs.items()}

    def __call__(self, audio: np.ndarray) -> Frames:
        """Return the outputs for float32 [N]; a program is compiled for each length."""
        outputs = jax.device_get(self._program(self._variables, audio))
        if self.config.is_oaf:
            return oaf_frames(outputs["onsets"], outputs["velocities"])
        return Frames(outputs["onsets"], outputs["velocities"], outputs["offsets"])


class Listener:
    """Frames of a stream of samples; frame i is centred on sample i·hop of the stream.

    What lies before and after the stream is silence. How the stream is divided into calls makes no
    difference, nor, for networks of finite reach, does `piece_frames`.

    Args:
      predict: the network.
      piece_frames: P, frames computed at a time. Fewer frames mean less delay and more work,
        since the context of a piece is computed again with each.
    """

    def __init__(self, predict: Predictor, piece_frames: int = 1000):
        if piece_frames < 1:
            raise ValueError(f"piece_frames={piece_frames}: must be at least 1")
        self._predict, self._piece = predict, piece_frames
        features = predict.config.features
        self._hop, (self._before, after) = features.hop_width, predict.context_frames
        # Centred features add padded frames at the edges, which are cut off.
        self._margin = 0 if features.padding == "none" else features.fft_size // 2 // self._hop + 1
        half = features.fft_size // 2
        self._lead = half if features.padding == "none" else self._margin * self._hop
        frames = piece_frames + self._before + after
        self._needed = (
            features.samples_of(frames)
            if features.padding == "none"
            else (frames + 2 * self._margin - 1) * self._hop
        )
        self._buffer = np.zeros(self._before * self._hop + self._lead, np.float32)
        self._received = self._emitted = 0

    @property
    def delay_samples(self) -> int:
        """Samples needed after the centre of a frame before its outputs are computed."""
        return self._needed - self._before * self._hop - self._lead

    def push(self, samples: np.ndarray) -> Frames | None:
        """Take float32 [N]; return the frames that are complete now, None if there are none."""
        self._received += len(samples)
        self._buffer = np.concatenate([self._buffer, samples.astype(np.float32, copy=False)])
        parts = []
        while len(self._buffer) >= self._needed:
            parts.append(self._hear(self._buffer[: self._needed]))
            self._buffer = self._buffer[self._piece * self._hop :]
        return self._count(parts)

    def flush(self) -> Frames | None:
        """Return the frames up to the end of the stream, as if silence followed."""
        missing = 1 + self._received // self._hop - self._emitted
        pieces = -(-missing // self._piece) if self._received else 0
        total = self._needed + max(0, pieces - 1) * self._piece * self._hop
        padded = np.pad(self._buffer, (0, max(0, total - len(self._buffer))))
        starts = range(0, pieces * self._piece * self._hop, self._piece * self._hop)
        parts = [self._hear(padded[start : start + self._needed]) for start in starts]
        frames = self._count(parts)
        return None if frames is None else frames.between(0, missing)

    def _hear(self, samples: np.ndarray) -> Frames:
        skip = self._before + self._margin
        return self._predict(samples).between(skip, skip + self._piece)

    def _count(self, parts: list[Frames]) -> Frames | None:
        self._emitted += len(parts) * self._piece
        return Frames.join(parts) if parts else None
