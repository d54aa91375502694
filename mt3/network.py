"""The T5 1.1 variant of MT3: spectrogram frames in, event tokens out.

Differences from T5: inputs are continuous, positions are fixed sinusoids added to the inputs of
both stacks, and there is no relative position bias. With the default options this is the network
of Gardner et al. 2021 (arXiv 2111.03017), parameter for parameter; the options after
`logits_via_embedding` in `T5Config` are ours and change nothing unless set.

Letters in shapes: B batch, F input features, T encoder positions, L target length, E embed,
V vocabulary, C channels.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import struct
from jax import Array

from t5x.layers import (
    NO_CACHE,
    Caching,
    DecoderStack,
    DenseGeneral,
    Embed,
    EncoderDecoder,
    EncoderStack,
    NetworkConfig,
    RMSNorm,
    SinusoidalPositions,
    param_with_axes,
    sinusoids,
)
from t5x.layers.dense import Initializer, default_kernel_init


@struct.dataclass
class T5Config(NetworkConfig):
    """Sizes and options of the network; those of `NetworkConfig`, and:

    Attributes:
      num_encoder_layers: layers of the encoder.
      num_decoder_layers: layers of the decoder.
      encoder_output_positions: add the position table once more to the encoder's output, so
        that cross-attention can address time directly; learning of time is much faster.
      frame_stack: input frames concatenated into one encoder position.
      frame_stride: input frames from one encoder position to the next.
      shift_token_range: ids [first, after last] of the tokens "shift by 0, 1, ... steps"; their
        embeddings and logits columns are initialised with the sinusoids of their own time.
      shift_step_in_encoder_frames: encoder positions per shift step, not necessarily whole.
      shift_origin_in_encoder_frames: encoder position of time 0 (with audio context before the
        segment, or centred windows, not 0).
      conv_channels: channels of the 3x3 convolutions over (time, frequency) before stacking.
      conv_pool: halve the frequency axis after each convolution (maximum of neighbours).
    """

    num_encoder_layers: int = 6
    num_decoder_layers: int = 6
    encoder_output_positions: bool = False
    frame_stack: int = 1
    frame_stride: int = 1
    shift_token_range: tuple[int, int] | None = None
    shift_step_in_encoder_frames: float = 1.0
    shift_origin_in_encoder_frames: float = 0.0
    conv_channels: tuple[int, ...] = ()
    conv_pool: bool = False


def num_encoder_positions(num_frames: int, config: T5Config) -> int:
    """Return T for an input of `num_frames` frames; raise ValueError if they fill no window."""
    if num_frames < config.frame_stack:
        raise ValueError(
            f"{num_frames} input frames are fewer than frame_stack={config.frame_stack}: "
            "give longer inputs or stack fewer frames"
        )
    return (num_frames - config.frame_stack) // config.frame_stride + 1


def stack_frames(inputs: Array, frame_stack: int, frame_stride: int) -> Array:
    """Return windows of `frame_stack` frames every `frame_stride`: [B, N, F] -> [B, T, stack * F].

    Frames which do not fill a last window are dropped: T = (N - stack) // stride + 1.
    """
    if frame_stack == 1:
        return inputs[:, ::frame_stride]
    num_windows = (inputs.shape[1] - frame_stack) // frame_stride + 1
    span = (num_windows - 1) * frame_stride + 1
    parts = [inputs[:, i : i + span : frame_stride] for i in range(frame_stack)]
    return jnp.concatenate(parts, axis=-1)


def shift_sinusoids(config: T5Config) -> np.ndarray:
    """Return position vectors of the shift tokens' own times, float32 [number of shifts, E].

    Scaled to mean square 1, the variance of a freshly initialised embedding.
    """
    assert config.shift_token_range is not None
    first, end = config.shift_token_range
    if not 0 <= first < end <= config.vocab_size:
        raise ValueError(
            f"shift_token_range={config.shift_token_range} must be [first, after last] within "
            f"the vocabulary of {config.vocab_size} rows"
        )
    times = np.arange(end - first) * config.shift_step_in_encoder_frames
    return np.sqrt(2.0) * sinusoids(times + config.shift_origin_in_encoder_frames, config.emb_dim)


def _embedding_init(config: T5Config):
    """Initialise by Normal(0, 1), but shift tokens by sinusoids of their time."""
    normal = nn.initializers.normal(stddev=1.0)
    if config.shift_token_range is None:
        return normal
    first = config.shift_token_range[0]
    rows = shift_sinusoids(config)

    def init(key, shape, dtype):
        return normal(key, shape, dtype).at[first : first + len(rows)].set(rows)

    return init


def _logits_init(config: T5Config):
    """Initialise like T5's kernels, but the shift tokens' columns by sinusoids of their time."""
    if config.shift_token_range is None:
        return default_kernel_init
    first = config.shift_token_range[0]
    columns = shift_sinusoids(config).T / np.sqrt(config.emb_dim)

    def init(key, shape, dtype):
        kernel = default_kernel_init(key, shape, dtype)
        return kernel.at[:, first : first + columns.shape[1]].set(columns)

    return init


class ConvStem(nn.Module):
    """3x3 convolutions over (time, frequency), each with RMS norm over channels and GELU."""

    config: T5Config

    @nn.compact
    def __call__(self, inputs: Array) -> Array:
        """Map [B, N, F] to [B, N, F' * C] with F' = F, or F / 2^convolutions if pooled."""
        cfg = self.config
        x = jnp.asarray(inputs, cfg.dtype)[..., None]
        for i, channels in enumerate(cfg.conv_channels):
            x = self._convolve(x, channels, f"conv_{i}")
            x = nn.gelu(RMSNorm(dtype=cfg.dtype, name=f"norm_{i}")(x))
            if cfg.conv_pool:
                x = nn.max_pool(x, window_shape=(1, 2), strides=(1, 2))
        return x.reshape(*x.shape[:2], -1)

    def _convolve(self, x: Array, channels: int, name: str) -> Array:
        kernel = param_with_axes(
            f"{name}_kernel",
            default_kernel_init,
            (3, 3, x.shape[-1], channels),
            jnp.float32,
            axes=(None, None, None, "embed"),
        )
        return jax.lax.conv_general_dilated(
            x,
            jnp.asarray(kernel, x.dtype),
            window_strides=(1, 1),
            padding="SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )


class Encoder(EncoderStack):
    """Frames [B, N, F] to encodings [B, T, E]."""

    config: T5Config

    def setup(self):
        super().setup()
        cfg = self.config
        if cfg.conv_channels:
            self.conv_stem = ConvStem(cfg)
        self.continuous_inputs_projection = DenseGeneral(
            cfg.emb_dim, dtype=cfg.dtype, kernel_axes=("vocab", "embed")
        )
        self.position_embedder = SinusoidalPositions(cfg.emb_dim, dtype=cfg.dtype)

    def __call__(
        self, inputs: Array, encoder_mask: Array | None = None, deterministic: bool = False
    ) -> Array:
        """Encode float [B, N, F] as [B, T, E]; `encoder_mask` is [B, 1, T, T] or None."""
        cfg = self.config
        if inputs.ndim != 3:
            raise ValueError(f"encoder inputs must be [batch, frames, features]: {inputs.shape}")
        num_positions = num_encoder_positions(inputs.shape[1], cfg)
        x = self.conv_stem(inputs) if cfg.conv_channels else inputs
        x = stack_frames(x, cfg.frame_stack, cfg.frame_stride)
        positions = self.position_embedder(num_positions)
        x = self.continuous_inputs_projection(x) + positions
        x = self.encode(x, encoder_mask, None, deterministic)
        return x + positions if cfg.encoder_output_positions else x


class Decoder(DecoderStack):
    """Encodings [B, T, E] and tokens [B, L] to logits [B, L, V]."""

    config: T5Config

    def setup(self):
        super().setup()
        cfg = self.config
        self.token_embedder = Embed(
            cfg.vocab_size,
            cfg.emb_dim,
            dtype=cfg.dtype,
            attend_dtype=jnp.float32,
            embedding_init=_embedding_init(cfg),
        )
        self.position_embedder = SinusoidalPositions(cfg.emb_dim, dtype=cfg.dtype)

    def logits_init(self) -> Initializer:
        """Return the kernel initialiser, which depends on the shift tokens' times."""
        return _logits_init(self.config)

    def __call__(
        self,
        encoded: Array,
        tokens: Array,
        positions: Array | None = None,
        decoder_mask: Array | None = None,
        encoder_decoder_mask: Array | None = None,
        *,
        deterministic: bool = False,
        caching: Caching = NO_CACHE,
    ) -> Array:
        """Return float32 logits [B, L, V] of the tokens which follow `tokens` [B, L]."""
        y = self.token_embedder(tokens)
        y = y + self.position_embedder(
            tokens.shape[-1],
            positions,
            decode=caching.decode,
            prefill_lengths=caching.prefill_lengths,
        )
        return self.decode(
            y,
            self.token_embedder,
            encoded,
            decoder_mask,
            encoder_decoder_mask,
            deterministic=deterministic,
            caching=caching,
        )

    def init_cache(self, encoded: Array, max_decode_length: int) -> None:
        """Allocate the caches of all layers and project `encoded` [B, T, E] into them."""
        self.position_embedder.init_cache()
        super().init_cache(encoded, max_decode_length)


class Transformer(EncoderDecoder):
    """The encoder-decoder of MT3: frames float [B, N, F] in, none of which is padding."""

    config: T5Config

    def setup(self):
        self.encoder = Encoder(self.config)
        self.decoder = Decoder(self.config)

    def valid_inputs(self, encoder_input_tokens: Array) -> None:
        """Return None: padding frames are silence, and attended to."""
