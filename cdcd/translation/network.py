"""The network of translation: an encoder of inputs, and a denoiser of targets that sees them.

Letters in shapes: B rows, S inputs (rows of the same input are neighbours, B / S of each), L target
length, T input length, d width of embeddings, D width of the trunk, C width of the time's
embedding, V vocabulary.

Dieleman et al. 2022 (arXiv 2211.15089), section 4.4: encoder and decoder as of Vaswani et al. 2017,
with sinusoidal positions of inputs, learned ones of targets, and a conditioning that also tells the
length of the input.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from cdcd.config import DenoiserConfig
from cdcd.network import Block, Denoiser, ModulatedNorm, TimeEmbedding, Trunk
from t5x.layers import (
    NO_CACHE,
    Caching,
    Embed,
    MultiHeadDotProductAttention,
    SinusoidalPositions,
    make_attention_mask,
    param_with_axes,
)
from t5x.layers.dropout import broadcast_dropout
from t5x.layers.stacks import Stack


@dataclasses.dataclass(frozen=True, kw_only=True)
class TranslationConfig(DenoiserConfig):
    """Sizes of encoder and decoder; those of `DenoiserConfig`, whose layers are the decoder's, and:

    Attributes:
      input_vocab_size: ids of inputs.
      target_length: L, of all targets, which are padded to it.
      num_encoder_layers: blocks of the encoder.

    Raises:
      ValueError: names the field that does not fit.
    """

    input_vocab_size: int
    target_length: int
    num_encoder_layers: int = 6
    activation: str = "relu"
    rotary_base: float | None = None

    def __post_init__(self):
        super().__post_init__()
        for name in ("input_vocab_size", "target_length", "num_encoder_layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: expected a positive number")


class Source(NamedTuple):
    """Inputs of a decoder. Zeros stand for no input.

    Attributes:
      encoded: [S, T, D]; None once keys and values are cached.
      valid: bool [S, T], where an input has tokens.
      cache: keys and values of the cross-attentions, or None.
    """

    encoded: Array | None
    valid: Array
    cache: Any = None


class Encoder(Stack):
    """Encoder of the inputs for a decoder."""

    config: TranslationConfig

    def setup(self):
        cfg = self.config
        self.embed = Embed(cfg.input_vocab_size, cfg.width, dtype=cfg.dtype)
        self.positions = SinusoidalPositions(cfg.width, dtype=cfg.dtype)
        self.dropout = broadcast_dropout(cfg.dropout_rate)
        self.make_layers(lambda: Block(cfg), cfg.num_encoder_layers, "encoder")
        self.final_norm = ModulatedNorm(cfg.dtype)

    def __call__(self, tokens: Array, deterministic: bool = True) -> Source:
        """Encode int [S, T], where 0 is padding."""
        valid = tokens > 0
        mask = make_attention_mask(valid, valid)
        x = self.embed(tokens) + self.positions(tokens.shape[1])
        x = self.dropout(x, deterministic=deterministic)
        x = self.each_layer(lambda block, x: block(x, None, mask, deterministic), x)
        return Source(self.final_norm(x, None), valid)


class DecoderBlock(Block):
    """Self-attention, attention to encodings, then feed-forward."""

    def setup(self):
        super().setup()
        cfg = self.config
        self.cross_norm = ModulatedNorm(cfg.dtype)
        self.cross_attention = MultiHeadDotProductAttention(
            cfg.num_heads, cfg.head_dim, dtype=cfg.dtype, cross_attention=True
        )

    def __call__(
        self,
        x: Array,
        time: Array | None,
        mask: Array | None,
        deterministic: bool = True,
        caching: Caching = NO_CACHE,
        encoded: Array | None = None,
        cross_mask: Array | None = None,
    ) -> Array:
        """Map [B, L, D] to [B, L, D]; without `encoded` [B, T, D], use cached keys and values."""
        x = self.attend(x, time, mask, deterministic, caching)
        y = self.cross_norm(x, time)
        y = self.cross_attention(
            y, encoded, cross_mask, decode=encoded is None, deterministic=deterministic
        )
        x = x + self.dropout(y, deterministic=deterministic)
        return self.feed_forward(x, time, deterministic)


class Decoder(Trunk):
    """The trunk with learned positions and attention to encodings."""

    config: TranslationConfig

    def setup(self):
        super().setup()
        self.positions = param_with_axes(
            "positions",
            # About as large as what `in_proj` makes at first.
            nn.initializers.normal(0.5),
            (self.config.target_length, self.config.width),
            jnp.float32,
            axes=(None, "embed"),
            module=self,
        )

    def make_block(self) -> nn.Module:
        """Return a new block."""
        return DecoderBlock(self.config)

    def enter(self, inputs: Array) -> Array:
        """Project inputs [B, L, any] to [B, L, D].

        Raises:
          ValueError: L is not `target_length`.
        """
        expected = self.config.target_length
        if inputs.shape[1] != expected:
            raise ValueError(
                f"rows of {inputs.shape[1]} tokens, but target_length={expected}: give both the "
                "same"
            )
        return super().enter(inputs) + self.positions.astype(self.config.dtype)

    def project(self, encoded: Array) -> None:
        """Fill the collection `cache` with keys and values of encodings [S, T, D]."""

        def call(block: Any, x: None) -> None:
            block.cross_attention.init_cache(encoded)
            return x

        self.each_layer(call, None, remat=False)


class Translator(Denoiser):
    """Logits of target tokens whose embeddings were corrupted, given inputs.

    Positions of targets may be given too; where models are trained with none, those parts of the
    input are zero, and it is the network of section 4.4.
    """

    config: TranslationConfig

    def setup(self):
        super().setup()
        self.encoder = Encoder(self.config)
        self.length_mlp = TimeEmbedding(self.config)

    def make_trunk(self) -> Trunk:
        """Return the decoder."""
        return Decoder(self.config, self.config.vocab_size)

    def encode(self, tokens: Array, deterministic: bool = True) -> Source:
        """Encode inputs, int [S, T]."""
        return self.encoder(tokens, deterministic)

    def project(self, encoded: Array) -> None:
        """Fill the cache of the decoder, see `Decoder.project`; call with `mutable=["cache"]`."""
        self.trunk.project(encoded)

    def condition(self, t: Array, source: Any) -> tuple[Array, dict[str, Any]]:
        """Return (embedding [B, C] of time and length, arguments of the blocks) of a `Source`.

        Raises:
          ValueError: no source.
        """
        if self.is_initializing():
            source = self.encode(jnp.ones((1, 1), jnp.int32))
        if source is None:
            raise ValueError("a translator needs a source: the result of `encode`")
        each = t.shape[0] // source.valid.shape[0]
        seen, encoded = jax.tree.map(
            lambda x: jnp.repeat(x, each, axis=0), (source.valid, source.encoded)
        )
        length = jnp.sum(seen, axis=-1, dtype=jnp.float32)
        further = {"encoded": encoded, "cross_mask": seen[:, None, None].astype(jnp.float32)}
        return self.time_mlp(t) + self.length_mlp(1.0 + length), further
