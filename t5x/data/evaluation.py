"""Metrics of a model's predictions and scores on a split."""

import inspect
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from t5x.data import caching, lookup
from t5x.data.converters import FeatureConverter
from t5x.data.examples import task_examples
from t5x.data.memory import check_batch_memory
from t5x.data.preprocessors import injected_parameters
from t5x.data.seqio.bridge import NativeSource
from t5x.data.seqio.tasks import evaluation_tasks
from t5x.data.tasks import Mixture, Task

Batch = dict[str, np.ndarray]
PREDICT, PREDICT_WITH_AUX, SCORE = "predict", "predict_with_aux", "score"


class Evaluator:
    """Runs the metric functions of a task, or of every task of a mixture, on one split.

    A metric function has the parameters `(targets, predictions)`,
    `(targets, predictions, aux_values)` or `(targets, scores)` and returns {name: value}. Targets
    are `task.postprocess_fn(decoded targets, example=..., is_target=True)` and are computed once;
    predictions are decoded and postprocessed with `is_target=False`.

    Args:
      mixture_or_task_name: registered name, or the object.
      feature_converter: made with pack=False.
      eval_split: tasks that lack this split or have no metrics are left out.
      batch_size: rows of every batch; the last one is filled with zeros, which are dropped again.
      sequence_length: {task feature: length}; None measures the longest examples.
      num_examples: at most so many examples of each task.
      shuffle, seed: which examples these are, and the preprocessors' `rng`.
      use_memory_cache: whether preprocessed examples are kept between evaluations.
      use_cached: whether tasks that have a cache of the split are read from it (`t5x.data.caching`;
        for tasks that only seqio knows, seqio's cache).
      async_compute_metrics: accepted for seqio's configurations; metrics are computed at once.
      logger_cls: made with `output_dir=log_dir` and called with every result, see
        `t5x.data.evaluation_loggers`.
      log_dir: folder for the loggers.
      target_field_name: the feature that holds the targets.
      trim_output_features: whether features longer than their length are cut.

    Raises:
      ValueError: for a converter that packs, loggers without a folder, a preprocessor that needs a
        sequence length when none is given, a task that has to be cached and is not, lengths that
        are not those of the converter's features, or a batch that exceeds the memory.
    """

    def __init__(
        self,
        mixture_or_task_name: str | Task | Mixture,
        feature_converter: FeatureConverter,
        eval_split: str = "validation",
        batch_size: int = 8,
        *,
        sequence_length: Mapping[str, Any] | None = None,
        num_examples: int | None = None,
        shuffle: bool = False,
        seed: int | None = 42,
        use_memory_cache: bool = True,
        use_cached: bool = False,
        async_compute_metrics: bool = False,
        logger_cls: Sequence[Callable[..., Any]] = (),
        log_dir: str | None = None,
        target_field_name: str = "targets",
        trim_output_features: bool = True,
    ):
        del async_compute_metrics
        if feature_converter.pack:
            raise ValueError("evaluation needs a feature converter with pack=False")
        if logger_cls and not log_dir:
            raise ValueError("logger_cls needs log_dir")
        tasks = _tasks(mixture_or_task_name, sequence_length, seed, use_cached)
        tasks = [t for t in tasks if t.metric_fns and eval_split in t.splits]
        self.eval_tasks = caching.read_by(tasks, eval_split, use_cached)
        self.batch_size = batch_size
        self._converter = feature_converter
        self._split = eval_split
        self._options = {
            "num_examples": num_examples,
            "shuffle": shuffle,
            "seed": seed or 0,
            "trim_output_features": trim_output_features,
        }
        self._keep = use_memory_cache
        self._kept: dict[str, list[dict]] = {}
        self._targets: dict[str, list] = {}
        self._target_field = target_field_name
        self._loggers = [cls(output_dir=log_dir) for cls in logger_cls]
        self._lengths = None if sequence_length is None else dict(sequence_length)
        self.sequence_length = self._lengths if self._lengths else self._measure_lengths()
        for task in self.eval_tasks:
            feature_converter.check_lengths(self.sequence_length)
            lengths, features = self.sequence_length, task.output_features
            check_batch_memory(feature_converter, lengths, batch_size, task.name, features)

    def examples(self, task: Task) -> Iterator[dict] | list[dict]:
        """The task's preprocessed examples, always in the same order."""
        if task.name in self._kept:
            return self._kept[task.name]
        examples = task_examples(task, self._split, self._lengths, **self._options)
        if not self._keep:
            return examples
        self._kept[task.name] = list(examples)
        return self._kept[task.name]

    def _measure_lengths(self) -> dict[str, int]:
        for task in self.eval_tasks:
            for step in task.preprocessors:
                parameters = inspect.signature(step).parameters
                needed = "sequence_length" in injected_parameters(step)
                if needed and parameters["sequence_length"].default is inspect.Parameter.empty:
                    name = getattr(step, "__name__", repr(step))
                    raise ValueError(
                        f"preprocessor {name} of task {task.name!r} needs a sequence_length; "
                        "give one to the Evaluator"
                    )
        features = {**self._converter.TASK_FEATURES, **self._converter.passthrough_features}
        longest = dict.fromkeys(features, 1)
        for task in self.eval_tasks:
            for example in self.examples(task):
                for name in set(longest) & set(example):
                    longest[name] = max(longest[name], *np.shape(example[name])[:1])
        return longest

    def batches(self, task: Task) -> Iterator[tuple[Batch, list[dict]]]:
        """Model batches of `batch_size` rows, with the task examples of their real rows."""
        lengths = self._converter.prepared_lengths(self.sequence_length)
        examples = iter(self.examples(task))
        while group := list(itertools.islice(examples, self.batch_size)):
            prepared = [self._converter.prepare(e, self.sequence_length) for e in group]
            batch = self._converter.convert(self._converter.collate(prepared, lengths))
            yield {name: self._fill(value) for name, value in batch.items()}, group

    def model_feature_spec(self) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        """{model feature: (shape, dtype)} of a batch; empty when no task is evaluated."""
        for task in self.eval_tasks:
            for batch, _ in self.batches(task):
                return {name: (value.shape, value.dtype) for name, value in batch.items()}
        return {}

    def _fill(self, rows: np.ndarray) -> np.ndarray:
        missing = self.batch_size - len(rows)
        return np.concatenate([rows, np.zeros((missing, *rows.shape[1:]), rows.dtype)])

    def evaluate(
        self,
        predict_fn: Callable[[Batch], Any] | None = None,
        score_fn: Callable[[Batch], Any] | None = None,
        predict_with_aux_fn: Callable[[Batch], tuple[Any, Mapping[str, Any]]] | None = None,
        step: int = -1,
    ) -> dict[str, dict[str, Any]]:
        """{task name: {metric: value}}.

        Args:
          predict_fn: batch -> predictions [batch_size, ...], for example
            `lambda batch: model.predict_batch(params, batch)`.
          score_fn: batch -> scores [batch_size].
          predict_with_aux_fn: batch -> (predictions, {name: values [batch_size, ...]}).
          step: handed to the loggers.

        Raises:
          ValueError: when a metric needs a function that was not given, or two metric functions
            of a task give the same name.
        """
        functions = {PREDICT: predict_fn, SCORE: score_fn, PREDICT_WITH_AUX: predict_with_aux_fn}
        return {task.name: self._evaluate_task(task, functions, step) for task in self.eval_tasks}

    def _evaluate_task(self, task: Task, functions: Mapping, step: int) -> dict[str, Any]:
        kinds = {metric: metric_kind(metric) for metric in task.metric_fns}
        for metric, kind in kinds.items():
            if functions[kind] is None:
                name = getattr(metric, "__name__", repr(metric))
                raise ValueError(f"metric {name} of task {task.name!r} needs a {kind}_fn")
        used = {kind: functions[kind] for kind in dict.fromkeys(kinds.values())}
        outputs, targets = self._run(task, used)
        if not targets:
            raise ValueError(
                f"task {task.name!r}, split {self._split!r}: no examples to evaluate; leave its "
                "evaluation out (infer_eval_dataset_cfg = None), or look at what its source reads"
            )
        results: dict[str, Any] = {}
        for metric, kind in kinds.items():
            for name, value in metric(targets, *outputs[kind]).items():
                if name in results:
                    raise ValueError(f"task {task.name!r} has two metrics named {name!r}")
                results[name] = value
        self._log(task, step, results, targets, outputs)
        return results

    def _run(self, task: Task, functions: Mapping[str, Callable]):
        """The arguments of each kind of metric, and the targets."""
        rows: dict[str, list] = {kind: [] for kind in functions}
        aux: dict[str, list] = {}
        targets: list = []
        for batch, examples in self.batches(task):
            for kind, function in functions.items():
                output = function(batch)
                if kind == PREDICT_WITH_AUX:
                    output, values = output
                    for name, value in values.items():
                        aux.setdefault(name, []).extend(np.asarray(value)[: len(examples)])
                output = list(np.asarray(output)[: len(examples)])
                if kind != SCORE:
                    output = [self._prediction(task, o, e) for o, e in zip(output, examples)]
                rows[kind].extend(output)
            if task.name not in self._targets:
                targets.extend(self._target(task, example) for example in examples)
        targets = self._targets.setdefault(task.name, targets)
        outputs: dict[str, tuple] = {
            k: (np.asarray(v) if k == SCORE else v,) for k, v in rows.items()
        }
        if PREDICT_WITH_AUX in outputs:
            outputs[PREDICT_WITH_AUX] = (*outputs[PREDICT_WITH_AUX], aux)
        return outputs, targets

    def _decode(self, task: Task, value: np.ndarray) -> Any:
        feature = task.output_features.get(self._target_field)
        if feature is None or value.dtype.kind not in "iu" or value.ndim == 0:
            return value
        if value.ndim > 1:
            return [self._decode(task, row) for row in value]
        return feature.vocabulary.decode(value.tolist())

    def _prediction(self, task: Task, output: np.ndarray, example: dict) -> Any:
        return task.postprocess(self._decode(task, output), example=example, is_target=False)

    def _target(self, task: Task, example: dict) -> Any:
        value = np.asarray(example[self._target_field]) if self._target_field in example else None
        decoded = None if value is None else self._decode(task, value)
        return task.postprocess(decoded, example=example, is_target=True)

    def _log(self, task: Task, step: int, metrics: dict, targets: list, outputs: dict) -> None:
        names = {PREDICT: "prediction", PREDICT_WITH_AUX: "prediction", SCORE: "score"}
        inferences = {names[kind]: values[0] for kind, values in outputs.items()}
        if PREDICT_WITH_AUX in outputs:
            inferences["aux_value"] = outputs[PREDICT_WITH_AUX][1]
        for logger in self._loggers:
            logger(
                task_name=task.name,
                step=step,
                metrics=metrics,
                dataset=self.examples(task),
                targets=targets,
                inferences=inferences,
            )


def _tasks(
    name: str | Task | Mixture,
    sequence_length: Mapping[str, Any] | None,
    seed: int | None,
    use_cached: bool,
) -> list[Task]:
    """The tasks of a name, of this registry or else of seqio's."""
    source = lookup.find(name)
    if isinstance(source, NativeSource):
        return evaluation_tasks(source.provider, sequence_length, seed, use_cached)
    return source.tasks if isinstance(source, Mixture) else [source]


def metric_kind(metric: Callable) -> str:
    """Which model output a metric function takes, by the names of its parameters.

    Raises:
      ValueError: when it takes neither `predictions` nor `scores` after `targets`.
    """
    names = list(inspect.signature(metric).parameters)
    if names[:2] == ["targets", "scores"]:
        return SCORE
    if names[:2] == ["targets", "predictions"]:
        return PREDICT_WITH_AUX if "aux_values" in names else PREDICT
    raise ValueError(
        f"metric {getattr(metric, '__name__', metric)!r} has parameters {names}; expected "
        "(targets, predictions), (targets, predictions, aux_values) or (targets, scores)"
    )
