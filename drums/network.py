"""Networks for drum transcription: OaF Drums, and a smaller one of this package.

Letters in shapes: B batch, T frames, F bands, C channels, U units, P pitches, K classes.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array, lax

from t5x.layers.dense import param_with_axes
from t5x.layers.dropout import Dropout

# ------------------------------------------------------------------------------- normalisation


class BatchNorm(nn.Module):
    """Batch normalisation over all axes but the last; statistics are the collection `batch_stats`.

    Named and computed as TF-Slim's (Ioffe & Szegedy 2015): `beta`, `moving_mean`,
    `moving_variance`, and `gamma` only with `use_scale`. Everything in float32.
    """

    decay: float = 0.999
    epsilon: float = 1e-3
    use_scale: bool = False

    @nn.compact
    def __call__(self, x: Array, training: bool) -> Array:
        """Normalise [..., C]. In training, update the statistics if they are mutable."""
        channels = x.shape[-1:]
        beta = param_with_axes("beta", nn.initializers.zeros, channels, jnp.float32, axes=(None,))
        mean = self.variable("batch_stats", "moving_mean", jnp.zeros, channels, jnp.float32)
        var = self.variable("batch_stats", "moving_variance", jnp.ones, channels, jnp.float32)
        dtype, x = x.dtype, x.astype(jnp.float32)
        m, v = mean.value, var.value
        if training:
            axes = tuple(range(x.ndim - 1))
            m, v = x.mean(axes), x.var(axes)
            if not self.is_initializing() and self.is_mutable_collection("batch_stats"):
                mean.value = self.decay * mean.value + (1 - self.decay) * m
                var.value = self.decay * var.value + (1 - self.decay) * v
        scale = lax.rsqrt(v + self.epsilon)
        if self.use_scale:
            scale = scale * param_with_axes(
                "gamma", nn.initializers.ones, channels, jnp.float32, axes=(None,)
            )
        return ((x - m) * scale + beta).astype(dtype)


def halve_bands(x: Array) -> Array:
    """Max-pool [B, T, F, C] by two bands, dropping an odd last one: [B, T, F // 2, C].

    On a CPU the gradient of this is several times cheaper than that of `nn.max_pool`.
    """
    half = x.shape[2] // 2
    pairs = x[:, :, : 2 * half].reshape(*x.shape[:2], half, 2, x.shape[3])
    return jnp.maximum(pairs[..., 0, :], pairs[..., 1, :])


# ---------------------------------------------------------------------------------- OaF Drums

#: TF-Slim's variance_scaling_initializer(factor=2, FAN_AVG, uniform).
_conv_init = nn.initializers.variance_scaling(2.0, "fan_avg", "uniform")
_glorot = nn.initializers.glorot_uniform()


@dataclasses.dataclass(frozen=True)
class OafDrumsConfig:
    """Sizes of OaF Drums.

    Attributes:
      num_pitches: P, from MIDI pitch 21 on.
      channels: of the three convolutions.
      fc_units: of the layer behind them.
      lstm_units: a direction; of the onset head.
      conv_dropout, fc_dropout, lstm_dropout: rates (the reference's are keep probabilities).
    """

    num_pitches: int = 88
    channels: Sequence[int] = (16, 16, 32)
    fc_units: int = 256
    lstm_units: int = 64
    conv_dropout: float = 0.75
    fc_dropout: float = 0.5
    lstm_dropout: float = 0.5


class _SlimConv(nn.Module):
    """Convolution 3x3 without bias, batch normalisation, ReLU."""

    features: int

    @nn.compact
    def __call__(self, x: Array, training: bool) -> Array:
        shape = (3, 3, x.shape[-1], self.features)
        kernel = param_with_axes("weights", _conv_init, shape, jnp.float32, axes=(None,) * 4)
        x = lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return nn.relu(BatchNorm(name="BatchNorm")(x, training))


class _SlimDense(nn.Module):
    """x weights + biases."""

    features: int
    init: Any = _glorot

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape = (x.shape[-1], self.features)
        weights = param_with_axes("weights", self.init, shape, jnp.float32, axes=(None, None))
        biases = param_with_axes(
            "biases", nn.initializers.zeros, shape[1:], jnp.float32, axes=(None,)
        )
        return x @ weights + biases


class BasicLstm(nn.Module):
    """One direction of TensorFlow's BasicLSTMCell: gates i, j, f, o; forget bias 1.

    The inputs are multiplied for all frames at once, so a step of the scan multiplies only states.
    """

    units: int
    reverse: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Return the states: [B, T, C] -> [B, T, U]."""
        size = x.shape[-1]
        kernel = param_with_axes(
            "kernel", _glorot, (size + self.units, 4 * self.units), jnp.float32, axes=(None, None)
        )
        bias = param_with_axes(
            "bias", nn.initializers.zeros, (4 * self.units,), jnp.float32, axes=(None,)
        )
        driven = jnp.swapaxes(x @ kernel[:size] + bias, 0, 1)

        def step(state: tuple[Array, Array], driven: Array) -> tuple[tuple[Array, Array], Array]:
            cell, hidden = state
            i, j, f, o = jnp.split(driven + hidden @ kernel[size:], 4, axis=-1)
            cell = cell * nn.sigmoid(f + 1.0) + nn.sigmoid(i) * jnp.tanh(j)
            hidden = jnp.tanh(cell) * nn.sigmoid(o)
            return (cell, hidden), hidden

        zeros = jnp.zeros((x.shape[0], self.units), x.dtype)
        _, hidden = lax.scan(step, (zeros, zeros), driven, reverse=self.reverse)
        return jnp.swapaxes(hidden, 0, 1)


class _Bidirectional(nn.Module):
    """Forward and backward states side by side."""

    units: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        forward = BasicLstm(self.units, name="fw")(x)
        backward = BasicLstm(self.units, reverse=True, name="bw")(x)
        return jnp.concatenate([forward, backward], axis=-1)


class OafHead(nn.Module):
    """A separate convolution stack, optionally an LSTM, and the outputs."""

    config: OafDrumsConfig
    output_name: str
    recurrent: bool

    @nn.compact
    def __call__(self, x: Array, training: bool) -> Array:
        """Return the outputs of the head: [B, T, F, 1] -> [B, T, P]."""
        cfg = self.config
        for i, features in enumerate(cfg.channels):
            x = _SlimConv(features, name=f"conv{i}")(x, training)
            if i:
                x = halve_bands(x)
                x = Dropout(cfg.conv_dropout)(x, deterministic=not training)
        x = x.reshape(*x.shape[:2], -1)  # (frequency, channel)
        x = nn.relu(_SlimDense(cfg.fc_units, init=_conv_init, name="fc_end")(x))
        x = Dropout(cfg.fc_dropout)(x, deterministic=not training)
        if self.recurrent:
            x = _Bidirectional(cfg.lstm_units, name="lstm")(x)
            x = Dropout(cfg.lstm_dropout)(x, deterministic=not training)
        return _SlimDense(cfg.num_pitches, name=self.output_name)(x)


class OafDrums(nn.Module):
    """OaF Drums (Callender et al. 2020): onset logits and velocities from separate stacks.

    The reference also builds offset, frame and combined heads, which have no loss and no use; they
    are left out. Parameters have the names of its variables; `drums.checkpoints` reads them.
    """

    config: OafDrumsConfig = OafDrumsConfig()

    @nn.compact
    def __call__(self, spectrogram: Array, training: bool = False) -> dict[str, Array]:
        """Return `onset_logits` and `velocities` [B, T, P] for float32 [B, T, F]."""
        x = spectrogram[..., None]
        onsets = OafHead(self.config, "onset_logits", True, name="onsets")(x, training)
        velocities = OafHead(self.config, "onset_velocities", False, name="velocity")(x, training)
        return {"onset_logits": onsets, "velocities": velocities}


# -------------------------------------------------------------------------------------- our own


@dataclasses.dataclass(frozen=True)
class DrumNetworkConfig:
    """Sizes of `DrumNetwork`.

    Attributes:
      num_classes: K.
      channels: of the convolutions; each halves the number of bands.
      width: of everything behind them.
      dilations: of the temporal layers, whose kernels span three frames.
      history: dilations of further layers for velocities, whose kernels span this frame and two
        before it, since a drum's level depends on its earlier level.
      dropout: rate behind the projection.
      dtype: type of the computation; normalisation and outputs are float32.
    """

    num_classes: int = 18
    channels: Sequence[int] = (16, 32, 48)
    width: int = 128
    dilations: Sequence[int] = (1, 2, 4, 8, 16)
    history: Sequence[int] = ()
    dropout: float = 0.1
    dtype: str = "float32"

    @property
    def context_frames(self) -> tuple[int, int]:
        """The number of frames before and after its own on which an output depends."""
        near = len(self.channels) + sum(self.dilations)
        return near + 2 * sum(self.history), near


def _conv(x: Array, kernel: Array, dilation: int = 1, causal: bool = False) -> Array:
    """Convolve [B, T, F, C] or [B, T, C] to the same length, in the dtype of `x`."""
    axes = ("NHWC", "HWIO", "NHWC") if x.ndim == 4 else ("NHC", "HIO", "NHC")
    strides = (1,) * (x.ndim - 2)
    return lax.conv_general_dilated(
        x,
        kernel.astype(x.dtype),
        strides,
        [(2 * dilation, 0)] if causal else "SAME",
        rhs_dilation=(dilation, *strides[1:]),
        dimension_numbers=axes,
    )


class DrumNetwork(nn.Module):
    """One trunk of convolutions for all heads, then dilated temporal convolutions.

    Every output depends on `config.context_frames` before and after it and on no others, so a
    recording can be processed in pieces with the same result. Heads: onset logits, velocities, and
    where between two frames the onset lies.
    """

    config: DrumNetworkConfig = DrumNetworkConfig()

    @nn.compact
    def __call__(self, spectrogram: Array, training: bool = False) -> dict[str, Array]:
        """Return `onset_logits`, `velocities` (0 to 1), `offsets` [B, T, K] of float32 [B, T, F].

        Offsets are in frames, from the frame's time to the onset's.
        """
        cfg = self.config
        x = self._trunk(spectrogram[..., None].astype(cfg.dtype), training)
        for i, dilation in enumerate(cfg.dilations):
            x = x + self._temporal(x, dilation, f"temporal_{i}", training)
        past = x
        for i, dilation in enumerate(cfg.history):
            past = past + self._temporal(past, dilation, f"history_{i}", training, causal=True)
        heads = _SlimDense(2 * cfg.num_classes, name="onsets")(x.astype(jnp.float32))
        onsets, offsets = jnp.split(heads, 2, axis=-1)
        velocities = _SlimDense(cfg.num_classes, name="velocities")(past.astype(jnp.float32))
        return {
            # Onsets are rare; starting from their frequency keeps the first steps small.
            "onset_logits": onsets - 3.0,
            "velocities": nn.sigmoid(velocities),
            "offsets": 1.5 * jnp.tanh(offsets),
        }

    def _trunk(self, x: Array, training: bool) -> Array:
        """Apply the shared convolutions: [B, T, F, 1] -> [B, T, width]."""
        for i, features in enumerate(self.config.channels):
            kernel = self._kernel(f"conv_{i}", (3, 3, x.shape[-1], features))
            x = nn.relu(self._norm(f"conv_norm_{i}")(_conv(x, kernel), training))
            x = halve_bands(x)
        x = x.reshape(*x.shape[:2], -1)
        x = x @ self._kernel("projection", (x.shape[-1], self.config.width)).astype(x.dtype)
        x = nn.relu(self._norm("projection_norm")(x, training))
        return Dropout(self.config.dropout)(x, deterministic=not training)

    def _temporal(
        self, x: Array, dilation: int, name: str, training: bool, causal: bool = False
    ) -> Array:
        """Apply the temporal convolution with this dilation: [B, T, C] -> [B, T, C]."""
        kernel = self._kernel(name, (3, x.shape[-1], x.shape[-1]))
        y = _conv(x, kernel, dilation, causal)
        return nn.relu(self._norm(f"{name}_norm")(y, training))

    def _kernel(self, name: str, shape: tuple[int, ...]) -> Array:
        init = nn.initializers.he_normal()
        return param_with_axes(name, init, shape, jnp.float32, axes=(None,) * len(shape))

    def _norm(self, name: str) -> BatchNorm:
        return BatchNorm(decay=0.99, use_scale=True, name=name)


def probabilities(outputs: dict[str, Array]) -> Array:
    """Return onset probabilities [B, T, K] of a network's outputs."""
    return jax.nn.sigmoid(outputs["onset_logits"])
