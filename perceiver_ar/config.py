"""Sizes and options of the network, under the names of the reference's configuration."""

import dataclasses
from collections.abc import Sequence

from perceiver_ar.attention import KERNELS
from perceiver_ar.positions import TABLES

_QUERY_STYLES = ("none", "mlp", "learned")
_PROBABILITIES = (
    "dropout_prob",
    "latent_dropout_prob",
    "encoder_dropout_prob",
    "fraction_to_rotate",
    "fraction_heads_to_rotate",
)


@dataclasses.dataclass(frozen=True)
class PerceiverARConfig:
    """Sizes and options of `perceiver_ar.network.PerceiverAR`.

    Attributes:
      num_classes: V, the vocabulary; 0 is padding, 1 EOS, 2 SOS.
      max_context_length: the longest input.
      z_index_dim: N, latents.
      input_embed_dim: E, width of embedded tokens.
      num_z_channels: Z, width of latents.
      num_transformers_per_block: self-attention layers.
      num_cross_attend_heads, num_transformer_heads: H.
      cross_attend_widening_factor, transformer_widening_factor: hidden units of the feed-forward
        blocks, as a multiple of Z.
      activation_name: `sq_relu` or any function of `flax.linen`.
      final_layer_init_zeros: the weights of the logits start at zero.
      position_encoding_type: `rotary` or `absolute`.
      fraction_to_rotate, fraction_heads_to_rotate: see `positions.rotate`.
      max_wavelength: see `positions.rotate`; None means `max_context_length`.
      use_positions_from_data: rotate by the positions in the data rather than by the number of
        tokens to the end of the input. Sampling needs the former.
      use_negative_rotary_positions: rotate by the negated positions.
      initial_query_offsetting: in the initial cross-attention, queries are one position further.
      position_encoding: kind of absolute tables, see `positions.TABLES`.
      input_idx_size: rows of the table of each coordinate of an absolute position.
      learnable_position_embeddings: whether absolute tables are trained.
      initial_query_embed_style: where latents begin: with a linear map of the token (`none`), that
        and two layers more (`mlp`), or a parameter (`learned`).
      share_initial_query: a learned query is the same for all latents.
      num_latents_per_position: P, latents that predict one token together.
      include_initial_cross_attention: without it, latents begin as their own tokens only.
      additional_cross_attend_after_layers: numbers (from 0) of layers that are followed by one
        more cross-attention to the inputs.
      encoder_use_query_residual: whether cross-attention is added to its queries.
      cross_attend_shape_for_attn: width of the heads of cross-attention together: `kv` is E, `q` Z.
      dropout_prob: of the outputs of attention and feed-forward blocks.
      latent_dropout_prob: of latents as keys of self-attention.
      encoder_dropout_prob: of inputs as keys of cross-attention.
      train_input_positions: in training, use a random subset of this many inputs as keys.
      attention_kernel: implementation of attention, see `attention.KERNELS`.
      attention_block: keys attended to at a time, see `attention.AttentionOptions`; None is all.
      head_group_size: heads computed at a time; None is all.
      dtype: type of activations; parameters, softmax, norms and logits are float32.
      remat_policy: `none`, `minimal` or `full`, see `t5x.layers.stacks`.
      scan_layers: one program for all layers, see `t5x.layers.stacks`.

    Raises:
      ValueError: names the field that does not fit.
    """

    num_classes: int
    max_context_length: int = 1024
    z_index_dim: int = 1024
    input_embed_dim: int = 1024
    num_z_channels: int = 1024
    num_transformers_per_block: int = 12
    num_cross_attend_heads: int = 16
    num_transformer_heads: int = 16
    cross_attend_widening_factor: int = 4
    transformer_widening_factor: int = 4
    activation_name: str = "sq_relu"
    final_layer_init_zeros: bool = True
    position_encoding_type: str = "rotary"
    fraction_to_rotate: float = 0.5
    fraction_heads_to_rotate: float = 1.0
    max_wavelength: int | None = None
    use_positions_from_data: bool = True
    use_negative_rotary_positions: bool = False
    initial_query_offsetting: bool = False
    position_encoding: str = "sinusoidal"
    input_idx_size: Sequence[int] = ()
    learnable_position_embeddings: bool = False
    initial_query_embed_style: str = "none"
    share_initial_query: bool = False
    num_latents_per_position: int = 1
    include_initial_cross_attention: bool = True
    additional_cross_attend_after_layers: Sequence[int] = ()
    encoder_use_query_residual: bool = True
    cross_attend_shape_for_attn: str = "kv"
    dropout_prob: float = 0.1
    latent_dropout_prob: float = 0.0
    encoder_dropout_prob: float = 0.0
    train_input_positions: int | None = None
    attention_kernel: str = "blocks"
    attention_block: int | None = None
    head_group_size: int | None = None
    dtype: str = "float32"
    remat_policy: str = "none"
    scan_layers: bool = False

    def __post_init__(self):
        # Lists, as gin and JSON give them, could not be hashed.
        for name in ("input_idx_size", "additional_cross_attend_after_layers"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        self._check_choices()
        self._check_sizes()
        self._check_positions()

    @property
    def rotary(self) -> bool:
        """Whether queries and keys are rotated."""
        return self.position_encoding_type == "rotary"

    @property
    def wavelength(self) -> int:
        """`max_wavelength`, or its default."""
        return self.max_wavelength or self.max_context_length

    @property
    def max_positions(self) -> tuple[int, ...]:
        """The largest position of a token that the network knows, for each coordinate."""
        return (self.wavelength,) if self.rotary else tuple(n - 1 for n in self.input_idx_size)

    def _check_choices(self) -> None:
        choices = {
            "position_encoding_type": ("rotary", "absolute"),
            "position_encoding": TABLES,
            "initial_query_embed_style": _QUERY_STYLES,
            "cross_attend_shape_for_attn": ("kv", "q"),
            "attention_kernel": KERNELS,
            "remat_policy": ("none", "minimal", "full"),
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name}={getattr(self, name)!r}: expected one of {known}")
        for name in _PROBABILITIES:
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name}={getattr(self, name)}: expected a number from 0 to 1")

    def _check_sizes(self) -> None:
        if not 1 <= self.z_index_dim <= self.max_context_length:
            raise ValueError(
                f"z_index_dim={self.z_index_dim}: expected 1 to max_context_length="
                f"{self.max_context_length}; latents are positions of the input"
            )
        if self.num_latents_per_position < 1:
            raise ValueError(
                f"num_latents_per_position={self.num_latents_per_position}: expected at least 1"
            )
        widths = {
            "num_cross_attend_heads": self.cross_attention_width,
            "num_transformer_heads": self.num_z_channels,
        }
        for name, width in widths.items():
            if width % getattr(self, name):
                raise ValueError(f"{name}={getattr(self, name)} does not divide the width {width}")
        layers = range(self.num_transformers_per_block)
        extra = self.additional_cross_attend_after_layers
        if any(i not in layers for i in extra) or list(extra) != sorted(set(extra)):
            raise ValueError(
                f"additional_cross_attend_after_layers={extra}: expected ascending numbers of "
                f"layers, from 0 to {len(layers) - 1}"
            )
        if self.scan_layers and extra:
            raise ValueError(
                "scan_layers wants all layers alike: leave it off with "
                "additional_cross_attend_after_layers"
            )

    def _check_positions(self) -> None:
        if self.rotary and self.wavelength < self.max_context_length:
            raise ValueError(
                f"max_wavelength={self.max_wavelength} is less than max_context_length="
                f"{self.max_context_length}: make it as large, or leave it out"
            )
        if not self.rotary and not self.input_idx_size:
            raise ValueError(
                "position_encoding_type='absolute' needs input_idx_size, the number of positions "
                "of each coordinate, such as (1025,) for 1024 tokens counted from 1"
            )

    @property
    def cross_attention_width(self) -> int:
        """Width of the heads of cross-attention together."""
        from_inputs = self.cross_attend_shape_for_attn == "kv"
        return self.input_embed_dim if from_inputs else self.num_z_channels
