"""Converters of rows that are packed already, with seqio's semantics."""

from typing import ClassVar

import numpy as np

from t5x.data.converters import (
    TOKENS,
    EncDecFeatureConverter,
    LMFeatureConverter,
    PassThroughFeatureConverter,
    autoregressive_inputs,
    non_padding,
)
from t5x.data.packing import Lengths


class PrePackedEncDecFeatureConverter(EncDecFeatureConverter):
    """`EncDecFeatureConverter` of examples that are packed rows already.

    Their segment ids and positions come with them: `inputs_segment_ids`, `inputs_positions` and
    the same of `targets`, each as long as its tokens.
    """

    TASK_FEATURES: ClassVar = dict.fromkeys(
        (
            "inputs",
            "targets",
            "inputs_positions",
            "inputs_segment_ids",
            "targets_positions",
            "targets_segment_ids",
        ),
        TOKENS,
    )
    MODEL_FEATURES: ClassVar = {
        **EncDecFeatureConverter.MODEL_FEATURES,
        "encoder_segment_ids": TOKENS,
        "decoder_segment_ids": TOKENS,
        "encoder_positions": TOKENS,
        "decoder_positions": TOKENS,
    }
    PACKING_FEATURE_DTYPES: ClassVar = None

    def __init__(self, pack: bool = False, **kwargs):
        super().__init__(pack=pack, **kwargs)

    def check_lengths(self, task_feature_lengths):
        super().check_lengths(self._all_lengths(task_feature_lengths))

    def prepare(self, example, task_feature_lengths):
        return super().prepare(example, self._all_lengths(task_feature_lengths))

    def prepared_lengths(self, task_feature_lengths):
        return self._all_lengths(task_feature_lengths)

    def _all_lengths(self, lengths: Lengths) -> Lengths:
        """Lengths of segment ids and positions may be left out: they are those of the tokens."""
        full = dict(lengths)
        for name in self.TASK_FEATURES:
            if (tokens := name.partition("_")[0]) in lengths:
                full.setdefault(name, lengths[tokens])
        return full

    def convert(self, batch):
        targets, segments = batch["targets"], batch["targets_segment_ids"]
        return {
            "encoder_input_tokens": batch["inputs"],
            "decoder_target_tokens": targets,
            "decoder_input_tokens": autoregressive_inputs(targets, segments, self.bos_id),
            "decoder_loss_weights": non_padding(targets),
            "encoder_segment_ids": batch["inputs_segment_ids"],
            "decoder_segment_ids": segments,
            "encoder_positions": batch["inputs_positions"],
            "decoder_positions": batch["targets_positions"],
            **self._passthrough(batch),
        }

    def get_model_feature_lengths(self, task_feature_lengths):
        inputs, targets = task_feature_lengths["inputs"], task_feature_lengths["targets"]
        lengths = {n: inputs if n.startswith("encoder") else targets for n in self.MODEL_FEATURES}
        return lengths | self._passthrough_lengths(task_feature_lengths)


class PrePackedLMFeatureConverter(PassThroughFeatureConverter):
    """Hands on the model features of a language model, which the examples hold already.

    Other features are left out; each of these has to be as long as a row.
    """

    MODEL_FEATURES: ClassVar = {
        **LMFeatureConverter.MODEL_FEATURES,
        "decoder_segment_ids": TOKENS,
        "decoder_positions": TOKENS,
    }

    def prepare(self, example, task_feature_lengths):
        length = self._row_length(task_feature_lengths)
        prepared = {}
        for name in self.MODEL_FEATURES:
            if name not in example:
                raise ValueError(
                    f"{type(self).__name__}: the example is missing the feature {name!r}; "
                    f"it has {sorted(example)}"
                )
            prepared[name] = np.asarray(example[name])
            if prepared[name].shape[:1] != (length,):
                raise ValueError(
                    f"{type(self).__name__}: feature {name!r} has shape {prepared[name].shape}, "
                    f"expected packed rows of length {length}"
                )
        return prepared

    def _row_length(self, task_feature_lengths) -> int:
        return task_feature_lengths["targets"]

    def get_model_feature_lengths(self, task_feature_lengths):
        return dict.fromkeys(self.MODEL_FEATURES, self._row_length(task_feature_lengths))

    def __call__(self, examples, task_feature_lengths):
        return (self.prepare(example, task_feature_lengths) for example in examples)


class PrePackedPrefixLMFeatureConverter(PrePackedLMFeatureConverter):
    """The same with `decoder_causal_attention`, in rows of inputs and targets together."""

    MODEL_FEATURES: ClassVar = {
        **PrePackedLMFeatureConverter.MODEL_FEATURES,
        "decoder_causal_attention": TOKENS,
    }

    def _row_length(self, task_feature_lengths):
        return task_feature_lengths["inputs"] + task_feature_lengths["targets"]
