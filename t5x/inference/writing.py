"""How inferences become lines of JSON, and how files of text become tasks to infer."""

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from t5x.files import ArrayEncoder, write_json_lines
from t5x.inference.data import ID, PART

Inferences = tuple[Sequence[Any], Mapping[str, Sequence[Any]]]
_PRETOKENIZED = "_pretokenized"


def write_inferences_to_file(
    path: str | os.PathLike[str],
    inferences: Inferences,
    task_ds: Sequence[Mapping[str, Any]],
    mode: str,
    vocabulary: Any = None,
    json_encoder_cls: type[json.JSONEncoder] = ArrayEncoder,
    include_all_inputs: bool = False,
    input_fields_to_include: Sequence[str] | None = None,
    output_ids: bool = False,
) -> None:
    """Write one JSON object a line: `id`, `inputs`, `prediction` or `score`, and `aux`.

    Args:
      path: the file.
      inferences: (one prediction or score an example, {name: one value an example}).
      task_ds: the task's examples, in the same order; `_id` and `_part` become `id` and `part`.
      mode: "predict", "score" or "predict_with_aux".
      vocabulary: decodes predicted ids; None leaves them.
      json_encoder_cls: encodes what JSON does not know.
      include_all_inputs: all features of the example, not only the `*_pretokenized` ones.
      input_fields_to_include: these features and no others.
      output_ids: also the predicted ids, as `prediction_tokens`.

    Raises:
      ValueError: a feature that the examples lack, or both ways to choose them.
    """
    if include_all_inputs and input_fields_to_include is not None:
        raise ValueError("give either include_all_inputs or input_fields_to_include, not both")
    results, aux = inferences

    def lines():
        for number, (example, result) in enumerate(zip(task_ds, results, strict=True)):
            line = {name[1:]: example[name] for name in (ID, PART) if name in example}
            inputs = _inputs(example, include_all_inputs, input_fields_to_include)
            if inputs:
                line["inputs"] = inputs
            if mode == "score":
                line["score"] = result
            else:
                line["prediction"] = decoded(result, vocabulary)
                if output_ids:
                    line["prediction_tokens"] = result
            if aux:
                line["aux"] = {name: values[number] for name, values in aux.items()}
            yield line

    write_json_lines(path, lines(), json_encoder_cls)


def _inputs(example: Mapping[str, Any], all_of_them: bool, chosen: Sequence[str] | None):
    names = [name for name in example if name not in (ID, PART)]
    if chosen is not None:
        missing = sorted(set(chosen) - set(names))
        if missing:
            raise ValueError(f"input_fields_to_include: no {missing} in the example, only {names}")
        names = list(chosen)
    elif not all_of_them:
        names = [name for name in names if name.endswith(_PRETOKENIZED)]
    return {name: example[name] for name in names}


def decoded(prediction: Any, vocabulary: Any) -> Any:
    """Ids as the vocabulary's text or tokens, decode by decode; other values as they are."""
    array = np.asarray(prediction)
    if vocabulary is None or array.dtype.kind not in "iu" or array.ndim == 0:
        return prediction
    if array.ndim > 1:
        return [decoded(one, vocabulary) for one in array]
    return vocabulary.decode([int(token) for token in array])
