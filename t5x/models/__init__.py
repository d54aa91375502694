"""Models under the names that configurations use, such as `t5x.models.EncoderDecoderModel`."""

from t5x.models.base import (
    BaseModel,
    BaseTransformerModel,
    Batch,
    DecodeFn,
    DecoderParams,
    Params,
)
from t5x.models.decoder_only import DecoderOnlyModel
from t5x.models.encoder_decoder import EncoderDecoderModel, prompt_lengths

__all__ = [
    "BaseModel",
    "BaseTransformerModel",
    "Batch",
    "DecodeFn",
    "DecoderOnlyModel",
    "DecoderParams",
    "EncoderDecoderModel",
    "Params",
    "prompt_lengths",
]
