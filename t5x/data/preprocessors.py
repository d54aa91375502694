"""How preprocessors are called, and the few that every text or token task needs.

A preprocessor is a pure function of an example (a dict of arrays). It returns one example, an
iterable of examples (a list or a generator), or None to drop it. It asks for more by the names of
its parameters:

* `rng`: a `np.random.Generator` made from (seed, epoch, example index, preprocessor number);
* `sequence_length`: {feature: length} of this run, or None;
* `output_features`: {feature: `Feature`} of the task.
"""

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from t5x.data.features import Feature, trim_features

INJECTED = ("rng", "sequence_length", "output_features")


def injected_parameters(preprocessor: Callable) -> tuple[str, ...]:
    """Which of `rng`, `sequence_length` and `output_features` a preprocessor asks for.

    A parameter that `functools.partial` has already bound is left alone.
    """
    bound: set[str] = set()
    inner = preprocessor
    while isinstance(inner, functools.partial):
        bound.update(inner.keywords)
        inner = inner.func
    parameters = inspect.signature(preprocessor).parameters
    return tuple(name for name in INJECTED if name in parameters and name not in bound)


class PreprocessorChain:
    """The preprocessors of a task as one function: raw example -> list of examples."""

    def __init__(
        self,
        preprocessors: Sequence[Callable],
        output_features: Mapping[str, Feature],
        sequence_length: Mapping[str, int] | None,
        seed: int,
    ):
        self._steps = [(step, injected_parameters(step)) for step in preprocessors]
        self._known = {"sequence_length": sequence_length, "output_features": output_features}
        self._seed = seed

    def __call__(self, example: dict, epoch: int, index: int) -> list[dict]:
        examples = [example]
        for number, (step, names) in enumerate(self._steps):
            kwargs: dict[str, Any] = {n: self._known[n] for n in names if n != "rng"}
            if "rng" in names:
                kwargs["rng"] = np.random.default_rng((self._seed, epoch, index, number))
            examples = [new for old in examples for new in _as_list(step(old, **kwargs), step)]
        return examples


def _as_list(result, step) -> Iterable[dict]:
    if isinstance(result, Mapping):
        return [dict(result)]
    if result is None:
        return []
    if isinstance(result, Iterable) and not isinstance(result, str | bytes | np.ndarray):
        return [] if result is None else result
    name = getattr(step, "__name__", repr(step))
    raise TypeError(
        f"preprocessor {name} returned {type(result).__name__}; expected an example (dict), "
        "an iterable of examples, or None"
    )


class CacheDatasetPlaceholder:
    """Marks where a task is divided when it is cached: what stands before it is done once.

    Read without a cache it changes nothing. See `t5x.data.caching`.

    Args:
      required: whether the task may only be read from a cache.
    """

    def __init__(self, required: bool = False):
        self.required = required

    def __call__(self, example: dict) -> dict:
        return example


def rekey(example: dict, key_map: Mapping[str, str | None]) -> dict:
    """Rename features: {new name: old name}; None makes an empty string; others are dropped."""
    return {new: example[old] if old else "" for new, old in key_map.items()}


def tokenize(
    example: dict, output_features: Mapping[str, Feature], copy_pretokenized: bool = True
) -> dict:
    """Encode text features with their vocabularies; the text stays as `<name>_pretokenized`."""
    tokenized = dict(example)
    for name, feature in output_features.items():
        if name not in example:
            continue
        if copy_pretokenized:
            tokenized[f"{name}_pretokenized"] = example[name]
        tokenized[name] = np.asarray(feature.vocabulary.encode(example[name]), feature.dtype)
    return tokenized


def tokenize_text(example: dict, output_features: Mapping[str, Feature]) -> dict:
    """Encode features that are text, as `tokenize`; ids and frames stay, in the feature's dtype."""
    of_text = {n: f for n, f in output_features.items() if isinstance(example.get(n), str)}
    encoded = tokenize(example, of_text)
    for name in output_features.keys() - of_text.keys():
        if name in encoded:
            encoded[name] = np.asarray(encoded[name], output_features[name].dtype)
    return encoded


def append_eos(
    example: dict,
    output_features: Mapping[str, Feature],
    sequence_length: Mapping[str, int] | None = None,
) -> dict:
    """Add EOS to features with `add_eos`, even where trimming will cut it off again.

    Raises:
      ValueError: a feature with `add_eos` whose vocabulary has no EOS.
    """
    del sequence_length
    ended = dict(example)
    for name, feature in output_features.items():
        if not feature.add_eos or name not in example:
            continue
        eos_id = feature.vocabulary.eos_id
        if eos_id is None:
            raise ValueError(
                f"feature {name!r} has add_eos=True, but its vocabulary has no eos_id; give the "
                "vocabulary one, or the feature add_eos=False"
            )
        tokens = np.asarray(example[name])
        ended[name] = np.empty(tokens.size + 1, feature.dtype)
        ended[name][:-1] = tokens.reshape(-1)
        ended[name][-1] = eos_id
    return ended


def append_eos_after_trim(
    example: dict,
    output_features: Mapping[str, Feature],
    sequence_length: Mapping[str, int] | None = None,
) -> dict:
    """Trim features with `add_eos` to one less than their length, then add EOS."""
    with_eos = [name for name, feature in output_features.items() if feature.add_eos]
    lengths = sequence_length or {}
    limits = {name: lengths[name] - 1 for name in with_eos if lengths.get(name) is not None}
    return append_eos(trim_features(example, limits, with_eos), output_features)
