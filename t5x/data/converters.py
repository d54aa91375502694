"""Task features to model features, with seqio's semantics.

A converter works in three steps, of which the pipeline uses the parts: `prepare` checks one
example and brings it to the form that is padded or packed, `collate` pads or packs examples (or
rows of examples) to arrays [B, L], and `convert` computes the model features of the whole batch
at once. Calling the converter does all three for a stream of single examples.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import ClassVar

import numpy as np

from t5x.data.features import cast_array
from t5x.data.packing import Lengths, axis_limits, pack_batch, pack_rows, pad_batch, strip_padding


@dataclasses.dataclass(frozen=True)
class FeatureSpec:
    """dtype and number of axes of a feature; the first axis is the sequence."""

    dtype: type = np.int32
    rank: int = 1


TOKENS = FeatureSpec()

# Marks in features that are packed or padded beside the tokens, where 0 is padding.
_NO_INPUTS = -1  # the number of inputs is 0
_CHOSEN = 2  # this token has a target_suffix_weight


def non_padding(tokens: np.ndarray) -> np.ndarray:
    """1 where there is a token, 0 on padding, int32."""
    return (tokens != 0).astype(np.int32)


def shift_right(tokens: np.ndarray, first: int = 0) -> np.ndarray:
    """Move the last axis one to the right and put `first` at position 0."""
    shifted = np.empty_like(tokens)
    shifted[..., 0] = first
    shifted[..., 1:] = tokens[..., :-1]
    return shifted


def autoregressive_inputs(
    targets: np.ndarray, segment_ids: np.ndarray | None = None, bos_id: int = 0
) -> np.ndarray:
    """Decoder inputs: targets [..., L] shifted right, `bos_id` at the start of every segment.

    targets     [3, 8, 1, 9, 1, 5, 4, 1, 0, 0]
    segment_ids [1, 1, 1, 2, 2, 3, 3, 3, 0, 0]
    result      [0, 3, 8, 0, 9, 0, 5, 4, 0, 0]
    """
    inputs = shift_right(targets, bos_id)
    if segment_ids is None:
        return inputs
    return np.where(segment_ids == shift_right(segment_ids), inputs, bos_id).astype(targets.dtype)


def _check_length(value: np.ndarray, length: int | Sequence[int], label: str) -> None:
    if isinstance(length, int) and value.shape[:1] <= (length,):
        return
    limits = axis_limits(length)
    if any(n > limit for n, limit in zip(value.shape, limits)):
        raise ValueError(
            f"{label} has length {value.shape[: len(limits)]}, more than the task feature length "
            f"{limits}; raise task_feature_lengths or trim (trim_output_features)"
        )


def _check_names(expected: Iterable[str], got: Iterable[str], converter: str) -> None:
    expected, got = set(expected), set(got)
    if got - expected:
        raise ValueError(
            f"{converter}: task_feature_lengths contains extra features {sorted(got - expected)}; "
            f"expected exactly {sorted(expected)}"
        )
    if expected - got:
        raise ValueError(
            f"{converter}: task_feature_lengths is missing features {sorted(expected - got)}; "
            f"expected exactly {sorted(expected)}"
        )


class FeatureConverter:
    """Base of the converters.

    Args:
      pack: whether several examples share a row.
      use_custom_packing_ops: accepted for seqio's configurations; packing is the same without.
      apply_length_check: whether a feature longer than its length is an error; otherwise the row
        is trimmed.
      bos_id: first decoder input of every sequence.
      passthrough_features: {name: FeatureSpec} padded and handed on unchanged; not with packing.

    Raises:
      ValueError: on packing with passthrough features, or when the converter cannot pack.
    """

    TASK_FEATURES: ClassVar[dict[str, FeatureSpec]] = {}
    MODEL_FEATURES: ClassVar[dict[str, FeatureSpec]] = {}
    PACKING_FEATURE_DTYPES: ClassVar[dict[str, type] | None] = None

    def __init__(
        self,
        pack: bool = True,
        use_custom_packing_ops: bool = False,
        apply_length_check: bool = True,
        bos_id: int = 0,
        passthrough_features: Mapping[str, FeatureSpec] | None = None,
    ):
        del use_custom_packing_ops
        name = type(self).__name__
        if pack and self.PACKING_FEATURE_DTYPES is None:
            raise ValueError(f"{name} cannot pack; use pack=False")
        if pack and passthrough_features is not None:
            raise ValueError(f"{name}: packing is incompatible with passthrough_features")
        self.pack = pack
        self.bos_id = bos_id
        self.apply_length_check = apply_length_check
        self.passthrough_features = dict(passthrough_features or {})

    def check_lengths(self, task_feature_lengths: Lengths) -> None:
        """Raise ValueError unless there is exactly one length for each task feature."""
        expected = [*self.TASK_FEATURES, *self.passthrough_features]
        _check_names(expected, task_feature_lengths, type(self).__name__)

    def prepare(self, example: dict, task_feature_lengths: Lengths) -> dict[str, np.ndarray]:
        """One checked example in the form that `collate` takes.

        Raises:
          ValueError: naming the feature that is missing, has another dtype or rank, or is longer
            than its length.
        """
        prepared = self._prepare(self._check_example(example, task_feature_lengths))
        if self.pack:
            limits = self.prepared_lengths(task_feature_lengths)
            for name, value in prepared.items():
                trimmed = value[tuple(slice(0, limit) for limit in axis_limits(limits[name]))]
                prepared[name] = strip_padding(trimmed, name)
        return prepared

    def _check_example(self, example: dict, lengths: Lengths) -> dict[str, np.ndarray]:
        checked = {}
        for name, spec in {**self.TASK_FEATURES, **self.passthrough_features}.items():
            if name not in example:
                raise ValueError(
                    f"{type(self).__name__}: the example is missing the feature {name!r}; "
                    f"it has {sorted(example)}"
                )
            label = f"{type(self).__name__}: feature {name!r}"
            value = cast_array(example[name], spec.dtype, label)
            if value.ndim != spec.rank:
                raise ValueError(f"{label} has rank {value.ndim}, expected {spec.rank}")
            if self.apply_length_check:
                _check_length(value, lengths[name], label)
            checked[name] = value
        return checked

    def _prepare(self, example: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return example

    def prepared_lengths(self, task_feature_lengths: Lengths) -> Lengths:
        """Lengths of the features that `prepare` returns."""
        return task_feature_lengths

    def collate(self, rows: Sequence, prepared_lengths: Lengths) -> dict[str, np.ndarray]:
        """Prepared examples (packing: lists of them) -> arrays [B, L, ...]."""
        if self.pack:
            return pack_batch(rows, prepared_lengths)  # type: ignore[arg-type]
        return pad_batch(rows, prepared_lengths)

    def convert(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Collated features [B, L] -> model features [B, L]."""
        raise NotImplementedError

    def get_model_feature_lengths(self, task_feature_lengths: Lengths) -> dict:
        """Length of every model feature."""
        raise NotImplementedError

    def __call__(
        self, examples: Iterable[dict], task_feature_lengths: Lengths
    ) -> Iterator[dict[str, np.ndarray]]:
        """Convert a stream of task examples to model examples (arrays without batch axis)."""
        self.check_lengths(task_feature_lengths)
        prepared = (self.prepare(example, task_feature_lengths) for example in examples)
        lengths = self.prepared_lengths(task_feature_lengths)
        rows = pack_rows(prepared, lengths) if self.pack else prepared  # type: ignore[arg-type]
        for row in rows:
            batch = self.convert(self.collate([row], lengths))
            yield {name: value[0] for name, value in batch.items()}

    def _passthrough(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {name: batch[name] for name in self.passthrough_features}

    def _passthrough_lengths(self, task_feature_lengths: Lengths) -> dict:
        return {name: task_feature_lengths[name] for name in self.passthrough_features}


class EncDecFeatureConverter(FeatureConverter):
    """Encoder-decoder: `inputs` to the encoder; `targets`, shifted, to the decoder."""

    TASK_FEATURES: ClassVar = {"inputs": TOKENS, "targets": TOKENS}
    MODEL_FEATURES: ClassVar = {
        "encoder_input_tokens": TOKENS,
        "decoder_target_tokens": TOKENS,
        "decoder_input_tokens": TOKENS,
        "decoder_loss_weights": TOKENS,
    }
    PACKING_FEATURE_DTYPES: ClassVar = {
        "encoder_segment_ids": np.int32,
        "decoder_segment_ids": np.int32,
        "encoder_positions": np.int32,
        "decoder_positions": np.int32,
    }

    def convert(self, batch):
        targets = batch["targets"]
        segments = batch["targets_segment_ids"] if self.pack else None
        converted = {
            "encoder_input_tokens": batch["inputs"],
            "decoder_target_tokens": targets,
            "decoder_input_tokens": autoregressive_inputs(targets, segments, self.bos_id),
            "decoder_loss_weights": non_padding(targets),
            **self._passthrough(batch),
        }
        if self.pack:
            converted["encoder_segment_ids"] = batch["inputs_segment_ids"]
            converted["decoder_segment_ids"] = batch["targets_segment_ids"]
            converted["encoder_positions"] = batch["inputs_positions"]
            converted["decoder_positions"] = batch["targets_positions"]
        return converted

    def get_model_feature_lengths(self, task_feature_lengths):
        inputs, targets = task_feature_lengths["inputs"], task_feature_lengths["targets"]
        lengths = {
            "encoder_input_tokens": inputs,
            "decoder_target_tokens": targets,
            "decoder_input_tokens": targets,
            "decoder_loss_weights": targets,
            **self._passthrough_lengths(task_feature_lengths),
        }
        if self.pack:
            lengths |= {"encoder_segment_ids": inputs, "decoder_segment_ids": targets}
            lengths |= {"encoder_positions": inputs, "decoder_positions": targets}
        return lengths


class ContinuousInputsEncDecFeatureConverter(EncDecFeatureConverter):
    """`EncDecFeatureConverter` whose `inputs` are float32 frames [T, F], as MT3's; no packing.

    Frames beyond the end of an example are padded with 0.0.
    """

    TASK_FEATURES: ClassVar = {"inputs": FeatureSpec(np.float32, 2), "targets": TOKENS}
    MODEL_FEATURES: ClassVar = {
        **EncDecFeatureConverter.MODEL_FEATURES,
        "encoder_input_tokens": FeatureSpec(np.float32, 2),
    }
    PACKING_FEATURE_DTYPES: ClassVar = None

    def __init__(self, pack: bool = False, **kwargs):
        super().__init__(pack=pack, **kwargs)


class LMFeatureConverter(FeatureConverter):
    """Decoder-only language model on `targets`."""

    TASK_FEATURES: ClassVar = {"targets": TOKENS}
    MODEL_FEATURES: ClassVar = {
        "decoder_target_tokens": TOKENS,
        "decoder_input_tokens": TOKENS,
        "decoder_loss_weights": TOKENS,
    }
    PACKING_FEATURE_DTYPES: ClassVar = {
        "decoder_segment_ids": np.int32,
        "decoder_positions": np.int32,
    }

    def convert(self, batch):
        targets = batch["targets"]
        segments = batch["targets_segment_ids"] if self.pack else None
        converted = {
            "decoder_target_tokens": targets,
            "decoder_input_tokens": autoregressive_inputs(targets, segments, self.bos_id),
            "decoder_loss_weights": non_padding(targets),
            **self._passthrough(batch),
        }
        if self.pack:
            converted["decoder_segment_ids"] = batch["targets_segment_ids"]
            converted["decoder_positions"] = batch["targets_positions"]
        return converted

    def get_model_feature_lengths(self, task_feature_lengths):
        names = [*LMFeatureConverter.MODEL_FEATURES]
        if self.pack:
            names += ["decoder_segment_ids", "decoder_positions"]
        lengths = dict.fromkeys(names, task_feature_lengths["targets"])
        return lengths | self._passthrough_lengths(task_feature_lengths)


class PrefixLMFeatureConverter(LMFeatureConverter):
    """Decoder-only model on `inputs` followed by `targets`; attention is full over the inputs.

    `decoder_causal_attention` is 1 on the inputs and on one position more, because the decoder
    inputs are shifted right. The length of a row is the sum of both lengths.

    Args:
      loss_on_targets_only: whether the inputs carry no loss.
    """

    TASK_FEATURES: ClassVar = {"inputs": TOKENS, "targets": TOKENS}
    MODEL_FEATURES: ClassVar = {
        **LMFeatureConverter.MODEL_FEATURES,
        "decoder_causal_attention": TOKENS,
    }
    _PREPARED: ClassVar[tuple[str, ...]] = ("targets", "inputs_width", "inputs_width_add_pos")

    def __init__(self, loss_on_targets_only: bool = True, **kwargs):
        self.loss_on_targets_only = loss_on_targets_only
        super().__init__(**kwargs)

    def _prepare(self, example):
        return {**self._concatenate(example), **self._passthrough(example)}

    def _concatenate(self, example: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The row's tokens, and its number of inputs at each of them, without and with BOS."""
        inputs, targets = example["inputs"], example["targets"]
        if not len(targets):
            targets = np.zeros(1, np.int32)  # a target of nothing is one padding token
        tokens = np.concatenate([inputs, targets])
        width = np.full(len(tokens), len(inputs), np.int32)
        return {
            "targets": tokens,
            # Zeros would be taken for padding.
            "inputs_width": np.where(width == 0, _NO_INPUTS, width),
            "inputs_width_add_pos": width + 1,
        }

    def prepared_lengths(self, task_feature_lengths: Lengths) -> Lengths:
        total = sum(axis_limits(task_feature_lengths[name])[0] for name in self.TASK_FEATURES)
        passthrough = self._passthrough_lengths(task_feature_lengths)
        return {**dict.fromkeys(self._PREPARED, total), **passthrough}

    def convert(self, batch):
        converted = super().convert(batch)
        targets = batch["targets"]
        positions = batch["targets_positions"] if self.pack else np.arange(targets.shape[-1])
        causal = positions < batch["inputs_width_add_pos"]
        converted["decoder_causal_attention"] = causal.astype(np.int32)
        if self.loss_on_targets_only:
            width = batch["inputs_width"]
            is_input = positions < np.where(width == _NO_INPUTS, 0, width)
            weights = is_input ^ (converted["decoder_loss_weights"] != 0)
            converted["decoder_loss_weights"] = weights.astype(np.int32)
        return converted

    def get_model_feature_lengths(self, task_feature_lengths):
        total = self.prepared_lengths(task_feature_lengths)["targets"]
        lengths = super().get_model_feature_lengths({**task_feature_lengths, "targets": total})
        return {**lengths, "decoder_causal_attention": total}


class PrefixSuffixLMFeatureConverter(PrefixLMFeatureConverter):
    """Decoder-only model on `inputs`, `targets` and `suffixes` in a row.

    As `PrefixLMFeatureConverter` with `suffixes` as the end of the targets. In addition
    `target_suffix_weights` is 1 on the suffixes or, in examples without, on the targets.

    Args:
      loss_on_targets_only: has no effect, as in seqio: inputs carry no loss.
    """

    TASK_FEATURES: ClassVar = {"inputs": TOKENS, "targets": TOKENS, "suffixes": TOKENS}
    MODEL_FEATURES: ClassVar = {
        **PrefixLMFeatureConverter.MODEL_FEATURES,
        "target_suffix_weights": TOKENS,
    }
    _PREPARED: ClassVar = (*PrefixLMFeatureConverter._PREPARED, "target_suffix_weights")

    def __init__(self, loss_on_targets_only: bool = True, **kwargs):
        del loss_on_targets_only
        super().__init__(**kwargs)

    def _concatenate(self, example):
        suffixes = example["suffixes"]
        targets = np.concatenate([example["targets"], suffixes])
        prepared = super()._concatenate({"inputs": example["inputs"], "targets": targets})
        size = len(prepared["targets"])
        chosen = len(suffixes) or size - len(example["inputs"])
        weights = np.ones(size, np.int32)
        weights[size - chosen :] = _CHOSEN
        return {**prepared, "target_suffix_weights": weights}

    def convert(self, batch):
        chosen = batch["target_suffix_weights"] == _CHOSEN
        return {**super().convert(batch), "target_suffix_weights": chosen.astype(np.int32)}

    def get_model_feature_lengths(self, task_feature_lengths):
        lengths = super().get_model_feature_lengths(task_feature_lengths)
        return {**lengths, "target_suffix_weights": lengths["decoder_target_tokens"]}


class DecoderFeatureConverter(FeatureConverter):
    """The converter of a decoder-only model that fits the features which have lengths.

    `PrefixSuffixLMFeatureConverter` with `suffixes`, `PrefixLMFeatureConverter` with `inputs`,
    else `LMFeatureConverter`. Args as theirs.
    """

    TASK_FEATURES: ClassVar = {"targets": TOKENS}
    MODEL_FEATURES: ClassVar = PrefixLMFeatureConverter.MODEL_FEATURES
    PACKING_FEATURE_DTYPES: ClassVar = LMFeatureConverter.PACKING_FEATURE_DTYPES

    def __init__(self, loss_on_targets_only: bool = True, **kwargs):
        super().__init__(**kwargs)
        self._suffix = PrefixSuffixLMFeatureConverter(**kwargs)
        self._prefix = PrefixLMFeatureConverter(loss_on_targets_only, **kwargs)
        self._lm = LMFeatureConverter(**kwargs)

    def _fitting(self, names: Iterable[str], suffixes: str, inputs: str) -> FeatureConverter:
        names = set(names)
        if suffixes in names:
            return self._suffix
        return self._prefix if inputs in names else self._lm

    def check_lengths(self, task_feature_lengths):
        self._for(task_feature_lengths).check_lengths(task_feature_lengths)

    def _for(self, task_feature_lengths: Lengths) -> FeatureConverter:
        return self._fitting(task_feature_lengths, "suffixes", "inputs")

    def prepare(self, example, task_feature_lengths):
        return self._for(task_feature_lengths).prepare(example, task_feature_lengths)

    def prepared_lengths(self, task_feature_lengths):
        return self._for(task_feature_lengths).prepared_lengths(task_feature_lengths)

    def convert(self, batch):
        return self._fitting(batch, "target_suffix_weights", "inputs_width").convert(batch)

    def get_model_feature_lengths(self, task_feature_lengths):
        return self._for(task_feature_lengths).get_model_feature_lengths(task_feature_lengths)


class EncoderFeatureConverter(FeatureConverter):
    """Encoder-only masked language model; the loss is taken where `inputs` is `mask_id`.

    `inputs` and `targets` are aligned and have the same length.
    """

    TASK_FEATURES: ClassVar = {"inputs": TOKENS, "targets": TOKENS}
    MODEL_FEATURES: ClassVar = {
        "encoder_target_tokens": TOKENS,
        "encoder_input_tokens": TOKENS,
        "encoder_loss_weights": TOKENS,
    }
    PACKING_FEATURE_DTYPES: ClassVar = {
        "encoder_segment_ids": np.int32,
        "encoder_positions": np.int32,
    }

    def __init__(self, mask_id: int, **kwargs):
        self.mask_id = mask_id
        super().__init__(**kwargs)

    def convert(self, batch):
        inputs = batch["inputs"]
        converted = {
            "encoder_input_tokens": inputs,
            "encoder_target_tokens": batch["targets"],
            "encoder_loss_weights": (inputs == self.mask_id).astype(np.int32),
            **self._passthrough(batch),
        }
        if self.pack:
            converted["encoder_segment_ids"] = batch["inputs_segment_ids"]
            converted["encoder_positions"] = batch["inputs_positions"]
        return converted

    def get_model_feature_lengths(self, task_feature_lengths):
        names = [*self.MODEL_FEATURES]
        if self.pack:
            names += ["encoder_segment_ids", "encoder_positions"]
        lengths = dict.fromkeys(names, task_feature_lengths["inputs"])
        return lengths | self._passthrough_lengths(task_feature_lengths)


class PassThroughFeatureConverter(FeatureConverter):
    """Hands examples on unchanged; in a batch, features that have a length are padded to it.

    Takes and ignores the options of the other converters.
    """

    def __init__(self, **unused):
        super().__init__(pack=False)

    def check_lengths(self, task_feature_lengths):
        pass

    def prepare(self, example, task_feature_lengths):
        return dict(example)

    def collate(self, rows, prepared_lengths):
        names = list(rows[0])
        if any(set(row) != set(names) for row in rows):
            raise ValueError("PassThroughFeatureConverter: the examples have different features")
        lengths = {n: prepared_lengths[n] for n in names if n in prepared_lengths}
        batch = pad_batch(rows, lengths)
        for name in names:
            if name not in lengths:
                batch[name] = _stack(name, [row[name] for row in rows])
        return batch

    def convert(self, batch):
        return batch

    def get_model_feature_lengths(self, task_feature_lengths):
        return dict(task_feature_lengths)

    def __call__(self, examples, task_feature_lengths):
        return iter(examples)


def _stack(name: str, values: Sequence) -> np.ndarray:
    shapes = {np.shape(value) for value in values}
    if len(shapes) > 1:
        raise ValueError(
            f"feature {name!r} has shapes {sorted(shapes)} in one batch; give it a length in "
            "task_feature_lengths, or make the shapes equal in a preprocessor"
        )
    return np.stack([np.asarray(value) for value in values])
