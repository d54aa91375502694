"""Sizes and options of the networks, and the noise they are trained on."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class DenoiserConfig:
    """Sizes and options of the networks of `cdcd.network`; the defaults are the paper's base model.

    Attributes:
      vocab_size: V.
      embed_dim: d, width of token embeddings.
      width: D, of the trunk.
      num_layers: blocks of the trunk.
      num_heads: H, of D / H channels each.
      mlp_dim: hidden units of a feed-forward block.
      activation: any function of `flax.linen`.
      rotary_base: of rotary positions, see `t5x.layers.rotary`; None for none.
      output_prior: add to the logits how likely each token's embedding is to have become the noisy
        one, so that the network only has to infer it from the other tokens (Gulrajani & Hashimoto
        2023, "Plaid", section 3); denoisers only, and not in the paper.
      num_fourier: F, random frequencies of the time.
      time_width: C, units of the two layers that follow them.
      embedding_init: standard deviation of the table before it is normalised. Small tables turn
        fast at first (section 6.3 and table 1).
      dropout_rate: of embeddings and of what blocks add.
      dtype: type of activations; parameters, softmax, norms, logits and time are float32.
      remat_policy: `none`, `minimal` or `full`, see `t5x.layers.stacks`.
      scan_layers: one program for all layers, see `t5x.layers.stacks`.

    Raises:
      ValueError: names the field that does not fit.
    """

    vocab_size: int
    embed_dim: int = 256
    width: int = 1024
    num_layers: int = 8
    num_heads: int = 8
    mlp_dim: int = 4096
    activation: str = "gelu"
    rotary_base: float | None = 10_000.0
    output_prior: bool = False
    num_fourier: int = 64
    time_width: int = 128
    embedding_init: float = 1e-3
    dropout_rate: float = 0.0
    dtype: str = "float32"
    remat_policy: str = "none"
    scan_layers: bool = False

    def __post_init__(self):
        for name in ("vocab_size", "embed_dim", "width", "num_layers", "num_heads", "mlp_dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: expected a positive number")
        if self.width % (2 * self.num_heads):
            raise ValueError(
                f"num_heads={self.num_heads} does not divide width={self.width} into heads of an "
                "even number of channels, which rotary positions need"
            )
        if not 0.0 <= self.dropout_rate < 1.0:
            raise ValueError(f"dropout_rate={self.dropout_rate}: expected 0 or more, below 1")

    @property
    def head_dim(self) -> int:
        """Channels of a head."""
        return self.width // self.num_heads


#: The name of `DenoiserConfig` in configurations that earlier versions saved.
NetworkConfig = DenoiserConfig


@dataclasses.dataclass(frozen=True)
class NoiseRange:
    """Standard deviations of the noise, from `low`, where tokens are certain, to `high`.

    What matters is their ratio to the norm of embeddings, sqrt(d): with another d than 256, the
    equal of the paper's range is 1 and 300 times sqrt(d / 256).

    Raises:
      ValueError: the limits are not positive and in order.
    """

    low: float = 1.0
    high: float = 300.0

    def __post_init__(self):
        if not 0.0 < self.low < self.high:
            raise ValueError(
                f"noise from low={self.low} to high={self.high}: expected 0 < low < high"
            )
