"""What a task promises about each feature of its examples."""

import dataclasses

import numpy as np

from t5x.data.vocabularies import PassThroughVocabulary, Vocabulary

Example = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Feature:
    """A token feature.

    Attributes:
      vocabulary: turns text or events into ids and back.
      add_eos: whether `preprocessors.append_eos` ends the feature with `vocabulary.eos_id`.
      required: whether every preprocessed example must have the feature.
      dtype: NumPy dtype of the feature after preprocessing.
      rank: number of axes; the first is the sequence axis.
    """

    vocabulary: Vocabulary
    add_eos: bool = True
    required: bool = True
    dtype: type = np.int32
    rank: int = 1


@dataclasses.dataclass(frozen=True)
class ContinuousFeature(Feature):
    """A feature of real numbers, for example spectrogram frames float32 [T, F]; no EOS."""

    vocabulary: Vocabulary = dataclasses.field(default_factory=lambda: PassThroughVocabulary(0))
    add_eos: bool = False
    dtype: type = np.float32
    rank: int = 2


def cast_array(value, dtype, label: str) -> np.ndarray:
    """`value` as an array of `dtype`; `label` names it in the error.

    Integers may become narrower integers when every value fits, and floats other floats.

    Raises:
      ValueError: when the kind differs (float to int) or a value does not fit.
    """
    array = np.asarray(value)
    dtype = np.dtype(dtype)
    if array.dtype == dtype:
        return array
    if array.size == 0 and array.ndim == 1:  # np.asarray([]) is float64 and says nothing
        return array.astype(dtype)
    cast = array.astype(dtype) if np.can_cast(array.dtype, dtype, "same_kind") else None
    if cast is None or (cast.dtype.kind in "iu" and not np.array_equal(cast, array)):
        raise ValueError(
            f"{label} has incorrect type: got {array.dtype}, expected {dtype}; "
            "convert it in a preprocessor"
        )
    return cast


def validate_features(
    example: dict, features: dict[str, Feature], task_name: str
) -> dict[str, np.ndarray]:
    """Check a preprocessed example against the output features and cast their dtypes.

    Raises:
      ValueError: naming the task and the feature that is missing or has another dtype or rank.
    """
    checked = dict(example)
    for name, feature in features.items():
        if name not in example:
            if feature.required:
                raise ValueError(
                    f"task {task_name!r} is missing the output feature {name!r} after "
                    f"preprocessing; it has {sorted(example)}"
                )
            continue
        label = f"task {task_name!r}, feature {name!r} after preprocessing"
        checked[name] = cast_array(example[name], feature.dtype, label)
        if checked[name].ndim != feature.rank:
            raise ValueError(
                f"{label} has incorrect rank: got {checked[name].ndim} "
                f"(shape {checked[name].shape}), expected {feature.rank}"
            )
    return checked


def trim_features(example: dict, lengths, features) -> dict:
    """Cut output features to their lengths: an int, a tuple (one length an axis) or None."""
    if not lengths:
        return example
    trimmed = dict(example)
    for name in features:
        length = lengths.get(name)
        if length is None or name not in example:
            continue
        if isinstance(length, int):
            trimmed[name] = example[name][:length]
        else:
            trimmed[name] = example[name][tuple(slice(0, limit) for limit in length)]
    return trimmed
