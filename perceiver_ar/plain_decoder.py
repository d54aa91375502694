"""The decoder-only network of t5x on Perceiver AR's examples, as a baseline.

Every input is a latent, so that N = T: a context of T inputs costs self-attention of T in each
layer, and the first target of a window has one input.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from perceiver_ar.models import SequenceModel
from t5x import losses
from t5x.models.base import Batch
from t5x.models.decoder_only import DecoderOnlyModel


class PlainDecoderModel(SequenceModel, DecoderOnlyModel):
    """A decoder-only network with the batches, loss and metrics of `PerceiverARModel`.

    Args:
      module: such as `t5x.examples.decoder_only.network.DecoderWrapper`. Its relative positions
        allow inputs of any length.
      vocabulary: of the tokens, or None.
      optimizer_def, label_smoothing, z_loss, loss_normalizing_factor: see `PerceiverARModel`.
    """

    def __init__(
        self,
        module: nn.Module,
        vocabulary: Any,
        optimizer_def: Any,
        label_smoothing: float = 0.0,
        z_loss: float = 1e-4,
        loss_normalizing_factor: losses.LossNormalizingFactor = "NUM_REAL_TARGET_TOKENS",
    ):
        super().__init__(
            module,
            vocabulary,
            optimizer_def,
            label_smoothing=label_smoothing,
            z_loss=z_loss,
            loss_normalizing_factor=loss_normalizing_factor,
        )

    def at_latents(self, batch: Batch) -> dict[str, Array]:
        """Return the batch with weights; a target counts if it is not padding and has a weight."""
        targets = batch["decoder_target_tokens"]
        weights = (targets > 0) * batch.get("decoder_loss_weights", jnp.ones_like(targets))
        return {**batch, "decoder_loss_weights": jnp.asarray(weights, jnp.float32)}
