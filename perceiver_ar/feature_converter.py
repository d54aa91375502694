"""Conversion of the features of tasks to the features of a batch."""

from typing import ClassVar

import numpy as np

from t5x.data.converters import TOKENS, FeatureConverter, FeatureSpec, non_padding

#: Optional features of a task, and their names in a batch.
_OPTIONAL = {
    "positions": ("decoder_positions", FeatureSpec(np.int32, 2)),
    "loss_weights": ("decoder_loss_weights", TOKENS),
    "latent_counts": ("decoder_latent_counts", FeatureSpec(np.int32, 0)),
    "prompt_lengths": ("decoder_prompt_lengths", FeatureSpec(np.int32, 0)),
}


class PerceiverARFeatureConverter(FeatureConverter):
    """`inputs` and the `targets` that follow each of them; both of one length, no packing.

    Unlike a language model's, inputs are not targets shifted by a start of padding: they begin with
    a token of their own (SOS) or, in a crop, with any other.

    A task may also have, named or not in `task_feature_lengths`:

    * `positions` int32 [T, C]; without, a model counts inputs from 1;
    * `loss_weights` int32 [T], which targets count; without, all that are not padding;
    * `latent_counts` int32, how many latents of a row are used; without, all;
    * `prompt_lengths` int32, how many inputs a prediction is given.
    """

    TASK_FEATURES: ClassVar = {"inputs": TOKENS, "targets": TOKENS}
    MODEL_FEATURES: ClassVar = {
        "decoder_input_tokens": TOKENS,
        "decoder_target_tokens": TOKENS,
        "decoder_loss_weights": TOKENS,
        "decoder_positions": FeatureSpec(np.int32, 2),
    }

    def __init__(self, pack: bool = False, **kwargs):
        super().__init__(pack=pack, **kwargs)

    def check_lengths(self, task_feature_lengths):
        """Raise ValueError unless `inputs` and `targets` have the same length."""
        required = {k: v for k, v in task_feature_lengths.items() if k not in _OPTIONAL}
        super().check_lengths(required)
        if len(set(task_feature_lengths.values())) > 1:
            raise ValueError(
                f"task_feature_lengths={dict(task_feature_lengths)}: expected one length for all, "
                "the context of the network"
            )

    def _check_example(self, example, lengths):
        length = lengths["targets"]
        present = {k: spec for k, (_, spec) in _OPTIONAL.items() if k in example}
        known = {**self.TASK_FEATURES, **present}
        taken = FeatureConverter(pack=False, apply_length_check=self.apply_length_check)
        taken.TASK_FEATURES = known  # type: ignore[misc]
        lengths = {name: length for name, spec in known.items() if spec.rank}
        lengths |= {name: 0 for name, spec in known.items() if not spec.rank}
        checked = taken._check_example(example, lengths)
        sizes = {k: len(v) for k, v in checked.items() if v.ndim}
        if len(set(sizes.values())) > 1:
            raise ValueError(f"{type(self).__name__}: features of one length expected, got {sizes}")
        return checked

    def collate(self, rows, prepared_lengths):
        """Collate as other converters; raise ValueError for features that only some rows have."""
        names = set(rows[0])
        if any(set(row) != names for row in rows):
            raise ValueError(f"{type(self).__name__}: the examples have different features")
        length = prepared_lengths["targets"]
        return super().collate(rows, dict.fromkeys(rows[0], length))

    def convert(self, batch):
        converted = {
            "decoder_input_tokens": batch["inputs"],
            "decoder_target_tokens": batch["targets"],
            "decoder_loss_weights": non_padding(batch["targets"]),
        }
        present = {ours: batch[name] for name, (ours, _) in _OPTIONAL.items() if name in batch}
        return converted | present

    def get_model_feature_lengths(self, task_feature_lengths):
        return dict.fromkeys(self.MODEL_FEATURES, task_feature_lengths["targets"])
