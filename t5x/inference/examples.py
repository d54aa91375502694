"""Predictions and scores of a list of examples, batch by batch."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from t5x.inference.data import BatchMaker

#: (one result an example, {name: one value an example})
Outputs = tuple[list[Any], dict[str, list]]


def infer_examples(
    function: Callable[..., Any],
    params: Any,
    batches: BatchMaker,
    examples: Sequence[Mapping[str, Any]],
    rng: jax.Array | None,
    keep_aux_as_numpy: bool = False,
) -> Outputs:
    """Call a function of the model on all examples.

    Args:
      function: one of `t5x.training.evaluations.prediction_functions`.
      params: the model's parameters.
      batches: makes batches of preprocessed examples.
      examples: the examples.
      rng: batch i gets fold_in(rng, i); None for functions without random numbers.
      keep_aux_as_numpy: whether auxiliary values stay arrays instead of lists.

    Returns:
      (results, auxiliary values); nested names of auxiliary values are joined with '/'.
    """
    size = batches.batch_size
    results: list[Any] = []
    aux: dict[str, list] = {}
    for number, start in enumerate(range(0, len(examples), size)):
        group = [dict(example) for example in examples[start : start + size]]
        options = () if rng is None else (jax.random.fold_in(rng, number),)
        output = function(params, batches.make(group), *options)
        if isinstance(output, tuple):
            output, values = output
            for name, value in _flat(values).items():
                kept = np.asarray(value)[: len(group)]
                aux.setdefault(name, []).extend(kept if keep_aux_as_numpy else kept.tolist())
        results.extend(np.asarray(output)[: len(group)])
    return results, aux


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested auxiliary values with '/'-joined names; a tuple of one is that one."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}/")
        else:
            flat[prefix + name] = value[0] if isinstance(value, tuple) else value
    return flat
