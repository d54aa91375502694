"""Tasks made of files that only inference needs: text, JSON lines, TFRecord of tf.Example.

utils.DatasetConfig.mixture_or_task_name = @infer.create_task_from_text_file()
"""

import functools
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from t5x.data.features import Feature
from t5x.data.preprocessors import append_eos_after_trim, rekey, tokenize_text
from t5x.data.seqio.tasks import as_feature
from t5x.data.tasks import Task, TaskRegistry

Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
SPLIT = "infer"


def create_task_from_text_file(
    paths: Paths,
    features: Mapping[str, Any],
    inputs_key: str = "inputs",
    targets_key: str | None = None,
    task_id: str | None = None,
) -> str:
    """Register a task of text files, one example a line; its split is "infer".

    A file whose name ends in `.jsonl` (`.jsonl.gz`, ...) has JSON objects, of which the keys give
    inputs and targets. In other files the line is the input.

    Args:
      paths: files or glob patterns.
      features: {"inputs": feature, "targets": feature}, of `t5x.data` or seqio; a language model
        has "targets" only, which then is the text.
      inputs_key: key of the inputs in JSON.
      targets_key: key of the targets in JSON; None when they are not known.
      task_id: name of the task; None makes one of the arguments.

    Returns:
      The task's name.

    Raises:
      ValueError: (when read) a line that is not JSON, or lacks the key.
    """
    from t5x.data.text_lines import TextLineSource

    files = _as_list(paths)
    parse: list[Any] = []
    if all(".jsonl" in os.path.basename(file) for file in files):
        parse = [_parse_json]
    else:
        inputs_key, targets_key = "text", None
    name = _name("text", files, [inputs_key, targets_key], task_id)
    source = TextLineSource({SPLIT: files})
    return _register(name, source, parse, inputs_key, targets_key, features)


def create_task_from_tfexample_file(
    paths: Paths,
    file_type: str,
    inputs_key: str,
    targets_key: str | None,
    features: Mapping[str, Any],
    task_id: str | None = None,
) -> str:
    """Register a task of TFRecord files of `tf.train.Example`; its split is "infer".

    Args:
      paths: files or glob patterns.
      file_type: "tfrecord".
      inputs_key: feature of the inputs, text or token ids.
      targets_key: feature of the targets; None when they are not known.
      features: as in `create_task_from_text_file`.
      task_id: name of the task; None makes one of the arguments.

    Returns:
      The task's name.

    Raises:
      ValueError: another file type.
    """
    from t5x.data.tfrecord import TFExampleSource

    if file_type != "tfrecord":
        raise ValueError(
            f"create_task_from_tfexample_file: file_type is {file_type!r}, which is "
            "not read here; convert the files to 'tfrecord'."
        )
    files = _as_list(paths)
    name = _name("tfexample", files, [inputs_key, targets_key], task_id)
    source = TFExampleSource({SPLIT: files})
    return _register(name, source, [], inputs_key, targets_key, features)


def _as_list(paths: Paths) -> list[str]:
    if isinstance(paths, str | os.PathLike):
        return [os.fspath(paths)]
    return [os.fspath(path) for path in paths]


def _name(kind: str, files: list[str], keys: list[Any], task_id: str | None) -> str:
    """The same for the same arguments, so that a restart finds its chunks."""
    if task_id is not None:
        return str(task_id)
    text = json.dumps([[os.path.abspath(file) for file in files], keys])
    return f"infer_{kind}_{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _register(
    name: str,
    source: Any,
    parse: list[Any],
    inputs_key: str,
    targets_key: str | None,
    features: Mapping[str, Any],
) -> str:
    keys = {"inputs": inputs_key, "targets": targets_key}
    if "inputs" not in features:
        keys = {"targets": targets_key or inputs_key}
    features = {name: as_feature(feature) for name, feature in features.items()}
    TaskRegistry.remove(name)
    TaskRegistry.add(
        Task(
            name,
            source,
            [*parse, _as_text, functools.partial(rekey, key_map=keys), tokenize_text, _end],
            features,
        )
    )
    return name


def _parse_json(example: dict) -> dict:
    try:
        value = json.loads(example["text"])
    except json.JSONDecodeError as error:
        raise ValueError(f"not a line of JSON ({error}): {example['text'][:80]!r}") from error
    if not isinstance(value, dict):
        raise ValueError(f"expected a JSON object, got {example['text'][:80]!r}")
    return value


def _as_text(example: dict) -> dict:
    return {k: v.decode("utf-8") if isinstance(v, bytes) else v for k, v in example.items()}


def _end(
    example: dict, output_features: Mapping[str, Feature], sequence_length: Mapping[str, Any] | None
) -> dict:
    return append_eos_after_trim(example, output_features, sequence_length)
