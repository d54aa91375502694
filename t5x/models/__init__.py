"""Models under the names that configurations use, such as `t5x.models.EncoderDecoderModel`."""

from typing import TYPE_CHECKING

from t5x.metrics import MetricsMap
from t5x.models.base import (
    BaseModel,
    BaseTransformerModel,
    Batch,
    DecodeFn,
    DecodeFnCallable,
    DecoderParams,
    Params,
    PyTree,
    get_input_vocabulary,
    get_output_vocabulary,
)
from t5x.models.decoder_only import DecoderOnlyModel, remove_prefix
from t5x.models.encoder_decoder import EncoderDecoderModel, prompt_lengths
from t5x.models.metrics import compute_base_metrics
from t5x.unsupported import unsupported_names

if not TYPE_CHECKING:  # type checkers still report names that do not exist
    __getattr__ = unsupported_names(__name__)

__all__ = [
    "BaseModel",
    "BaseTransformerModel",
    "Batch",
    "DecodeFn",
    "DecodeFnCallable",
    "DecoderOnlyModel",
    "DecoderParams",
    "EncoderDecoderModel",
    "MetricsMap",
    "Params",
    "PyTree",
    "compute_base_metrics",
    "get_input_vocabulary",
    "get_output_vocabulary",
    "prompt_lengths",
    "remove_prefix",
]
