"""seqio's Evaluator with the models here: `inference_evaluator_cls = @seqio.Evaluator`.

seqio hands a prediction function one enumerated `tf.data.Dataset` of model features; here it is
cut into batches of one shape, filled up with zero rows. TensorFlow and seqio are imported only
when they are used.
"""

import itertools
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from t5x.data.converters import FeatureConverter

Batch = dict[str, np.ndarray]
Function = Callable[[Batch], Any]


def is_seqio_evaluator(evaluator_cls: Any) -> bool:
    """Whether gin, or a caller, gave a class of seqio."""
    seqio = sys.modules.get("seqio")
    bases = getattr(getattr(evaluator_cls, "func", evaluator_cls), "__mro__", ())
    return seqio is not None and seqio.Evaluator in bases


class SeqioEvaluator:
    """A `seqio.Evaluator` with the interface of `t5x.data.Evaluator`.

    Args:
      evaluator_cls: `seqio.Evaluator`, or made of it by gin.
      mixture_or_task_name: a name of seqio, or one registered here, which seqio then learns.
      feature_converter: made with pack=False.
      batch_size: rows of every batch.
      log: whether the configured loggers run, on the first process only.
      **options: further arguments of `evaluator_cls`.
    """

    def __init__(
        self,
        evaluator_cls: Callable[..., Any],
        mixture_or_task_name: Any,
        feature_converter: FeatureConverter,
        batch_size: int,
        log: bool = True,
        **options: Any,
    ):
        if not log:
            options["logger_cls"] = ()
        elif options.get("log_dir"):
            # Not every logger of seqio makes its folder.
            Path(options["log_dir"]).mkdir(parents=True, exist_ok=True)
        self.batch_size = batch_size
        self._evaluator = evaluator_cls(
            mixture_or_task_name=_seqio_name(mixture_or_task_name),
            feature_converter=wrap_converter(feature_converter),
            **options,
        )

    @property
    def eval_tasks(self) -> list[Any]:
        """The tasks with metrics and the split."""
        return list(self._evaluator.eval_tasks)

    def model_feature_spec(self) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        """As `t5x.data.Evaluator.model_feature_spec`."""
        if not self.eval_tasks:
            return {}
        dataset = next(iter(self._evaluator.cached_model_datasets.values()))
        _, spec = dataset.element_spec
        return {
            name: ((self.batch_size, *x.shape), np.dtype(x.dtype.as_numpy_dtype))
            for name, x in spec.items()
        }

    def evaluate(
        self,
        predict_fn: Function | None = None,
        score_fn: Function | None = None,
        predict_with_aux_fn: Function | None = None,
        step: int = -1,
    ) -> dict[str, dict[str, Any]]:
        """{task name: {metric: value}}; the functions take a batch, as in `t5x.data.Evaluator`."""
        if not self.eval_tasks:
            return {}
        functions = {
            "predict_fn": predict_fn,
            "score_fn": score_fn,
            "predict_with_aux_fn": predict_with_aux_fn,
        }
        given = {name: self._over_dataset(f) for name, f in functions.items() if f is not None}
        results, _ = self._evaluator.evaluate(compute_metrics=True, step=step, **given)
        return {
            task: {name: _plain(value) for name, value in metrics.items()}
            for task, metrics in results.result().items()
        }

    def _over_dataset(self, function: Function) -> Callable[..., Any]:
        """`function` of batches as seqio's function of an enumerated dataset."""

        def run(dataset: Any, model_feature_shapes: Any = None) -> Any:
            del model_feature_shapes
            rows: list[tuple[int, Any]] = []
            aux: Any = None
            for indices, batch in enumerated_batches(dataset, self.batch_size):
                output = function(batch)
                count = len(indices)
                if isinstance(output, tuple):
                    output, values = output
                    values = jax.tree.map(lambda x, n=count: list(np.asarray(x)[:n]), values)
                    aux = values if aux is None else _joined(aux, values)
                rows.extend(zip(indices, np.asarray(output)[:count]))
            return rows if aux is None else (rows, aux)

        return run


def _joined(first: Any, second: Any) -> Any:
    """Join the lists in the leaves of two equal trees, one after the other."""
    return jax.tree.map(lambda a, b: a + b, first, second, is_leaf=lambda x: isinstance(x, list))


def _plain(value: Any) -> Any:
    """The number or text in one of seqio's metric values."""
    for name in ("value", "textdata", "tensor"):
        if hasattr(value, name):
            return getattr(value, name)
    return value


def _seqio_name(task: Any) -> str:
    """The name under which seqio knows a task or mixture."""

    from t5x.data.seqio import bridge
    from t5x.data.tasks import get_mixture_or_task

    name = task if isinstance(task, str) else task.name
    if bridge.find(name) is None:
        bridge.to_seqio(get_mixture_or_task(task))
    return name


def enumerated_batches(dataset: Any, batch_size: int) -> Iterator[tuple[list[int], Batch]]:
    """Batches of `batch_size` rows of an enumerated dataset, and the numbers of the real rows."""
    elements = dataset.as_numpy_iterator()
    while group := list(itertools.islice(elements, batch_size)):
        indices = [int(index) for index, _ in group]
        missing = batch_size - len(group)
        batch = {}
        for name in group[0][1]:
            rows = np.stack([np.asarray(example[name]) for _, example in group])
            fill = np.zeros((missing, *rows.shape[1:]), rows.dtype)
            batch[name] = np.concatenate([rows, fill])
        yield indices, batch


def wrap_converter(converter: FeatureConverter) -> Any:
    """A `seqio.FeatureConverter` that gives what `converter` gives."""
    import seqio
    import tensorflow as tf

    def specs(features: Mapping[str, Any]) -> dict[str, Any]:
        spec = seqio.FeatureConverter.FeatureSpec
        return {name: spec(tf.as_dtype(np.dtype(f.dtype)), f.rank) for name, f in features.items()}

    class Converter(seqio.FeatureConverter):
        TASK_FEATURES = specs(converter.TASK_FEATURES)
        MODEL_FEATURES = specs(converter.MODEL_FEATURES)
        PACKING_FEATURE_DTYPES = None

        def __call__(self, ds: Any, task_feature_lengths: Mapping[str, Any]) -> Any:
            lengths = {name: task_feature_lengths[name] for name in self.TASK_FEATURES}
            return _converted(tf, ds, converter, lengths)

        def _convert_features(self, ds: Any, task_feature_lengths: Mapping[str, Any]) -> Any:
            return self(ds, task_feature_lengths)

        def get_model_feature_lengths(self, task_feature_lengths: Mapping[str, Any]) -> Any:
            return converter.get_model_feature_lengths(task_feature_lengths)

    return Converter(pack=False)


def _converted(tf: Any, dataset: Any, converter: FeatureConverter, lengths: Any) -> Any:
    """The dataset of model features of a dataset of task features."""

    def generate() -> Iterator[Batch]:
        for example in dataset.as_numpy_iterator():
            prepared = [converter.prepare(example, lengths)]
            batch = converter.convert(
                converter.collate(prepared, converter.prepared_lengths(lengths))
            )
            yield {name: value[0] for name, value in batch.items()}

    first = next(generate(), None)
    if first is None:
        raise ValueError("an evaluation task has no examples in this split")
    signature = {name: tf.TensorSpec(x.shape, x.dtype) for name, x in first.items()}
    return tf.data.Dataset.from_generator(generate, output_signature=signature)
