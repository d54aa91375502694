"""The MT3 model: an encoder-decoder whose inputs are spectrogram frames."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from t5x import decoding, losses, models
from t5x.data.converters import ContinuousInputsEncDecFeatureConverter


class ContinuousInputsEncoderDecoderModel(models.EncoderDecoderModel):
    """`EncoderDecoderModel` with `encoder_input_tokens` float32 [B, T, input_depth].

    Args as in `t5x.models.EncoderDecoderModel`, and:
      input_depth: features of an input frame.
    """

    FEATURE_CONVERTER_CLS = ContinuousInputsEncDecFeatureConverter

    def __init__(
        self,
        module: nn.Module,
        input_vocabulary: Any,
        output_vocabulary: Any,
        optimizer_def: Any,
        input_depth: int,
        decode_fn: models.DecodeFn = decoding.beam_search,
        feature_converter_cls: Any = None,
        label_smoothing: float = 0.0,
        z_loss: float = 0.0,
        loss_normalizing_factor: losses.LossNormalizingFactor = None,
        default_decoder_params: models.DecoderParams | None = None,
    ):
        self.input_depth = input_depth
        super().__init__(
            module,
            input_vocabulary,
            output_vocabulary,
            optimizer_def,
            decode_fn,
            feature_converter_cls,
            label_smoothing,
            z_loss,
            loss_normalizing_factor,
            default_decoder_params,
        )

    def get_initial_variables(
        self,
        rng: Array,
        input_shapes: Mapping[str, tuple[int, ...]],
        input_types: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Override the base class's; the shape of the encoder inputs may leave out the depth.

        Raises:
          ValueError: the shape names another depth.
        """
        shape = tuple(input_shapes["encoder_input_tokens"])
        if len(shape) == 2:
            shape = (*shape, self.input_depth)
        if len(shape) != 3 or shape[2] != self.input_depth:
            raise ValueError(
                f"encoder_input_tokens of shape {shape}: expected [batch, frames, "
                f"input_depth={self.input_depth}]; check the spectrogram configuration"
            )
        input_shapes = {**input_shapes, "encoder_input_tokens": shape}
        input_types = {**(input_types or {}), "encoder_input_tokens": jnp.float32}
        return super().get_initial_variables(rng, input_shapes, input_types)

    def predict_batch_with_aux(
        self,
        params: models.Params,
        batch: Mapping[str, Array],
        rng: Array | None = None,
        **options: Any,
    ) -> tuple[Array, Mapping[str, Array]]:
        """Override the base class's.

        Gin refuses to register a class whose inherited method a file has configured already; with
        a method of its own, a process can read both.
        """
        return super().predict_batch_with_aux(params, batch, rng, **options)
