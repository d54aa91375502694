"""Tasks, feature converters and the grain input pipeline.

The names in `_LAZY` are loaded when first asked for, so that declaring a task does not import
grain, and nothing here imports TensorFlow.
"""

import importlib

from t5x.data.converters import (
    ContinuousInputsEncDecFeatureConverter,
    DecoderFeatureConverter,
    EncDecFeatureConverter,
    EncoderFeatureConverter,
    FeatureConverter,
    FeatureSpec,
    LMFeatureConverter,
    PassThroughFeatureConverter,
    PrefixLMFeatureConverter,
    PrefixSuffixLMFeatureConverter,
)
from t5x.data.features import ContinuousFeature, Feature
from t5x.data.prepacked import (
    PrePackedEncDecFeatureConverter,
    PrePackedLMFeatureConverter,
    PrePackedPrefixLMFeatureConverter,
)
from t5x.data.sources import (
    ArrayRecordSource,
    FileSource,
    FunctionSource,
    GeneratedSource,
    TfdsSource,
)
from t5x.data.tasks import (
    Mixture,
    MixtureRegistry,
    Task,
    TaskRegistry,
    get_mixture_or_task,
)
from t5x.data.vocabularies import (
    ByteVocabulary,
    PassThroughVocabulary,
    SentencePieceVocabulary,
    TokenVocabulary,
    Vocabulary,
)

_LAZY = {
    "DatasetIterator": "pipeline",
    "get_dataset": "pipeline",
    "Evaluator": "evaluation",
    "JSONLogger": "evaluation_loggers",
    "PyLoggingLogger": "evaluation_loggers",
    "TensorBoardLogger": "evaluation_loggers",
    "TFExampleSource": "tfrecord",
    "TextLineSource": "text_lines",
    "mixing_rate_num_examples": "caching",
    "to_seqio": "seqio.bridge",
}

__all__ = [
    "ArrayRecordSource",
    "ByteVocabulary",
    "ContinuousFeature",
    "ContinuousInputsEncDecFeatureConverter",
    "DatasetIterator",
    "DecoderFeatureConverter",
    "EncDecFeatureConverter",
    "EncoderFeatureConverter",
    "Evaluator",
    "Feature",
    "FeatureConverter",
    "FeatureSpec",
    "FileSource",
    "FunctionSource",
    "GeneratedSource",
    "JSONLogger",
    "LMFeatureConverter",
    "Mixture",
    "MixtureRegistry",
    "PassThroughFeatureConverter",
    "PassThroughVocabulary",
    "PrePackedEncDecFeatureConverter",
    "PrePackedLMFeatureConverter",
    "PrePackedPrefixLMFeatureConverter",
    "PrefixLMFeatureConverter",
    "PrefixSuffixLMFeatureConverter",
    "PyLoggingLogger",
    "SentencePieceVocabulary",
    "TFExampleSource",
    "Task",
    "TaskRegistry",
    "TensorBoardLogger",
    "TextLineSource",
    "TfdsSource",
    "TokenVocabulary",
    "Vocabulary",
    "get_dataset",
    "get_mixture_or_task",
    "mixing_rate_num_examples",
    "to_seqio",
]


def __getattr__(name: str):
    if name in _LAZY:
        return getattr(importlib.import_module(f"t5x.data.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
