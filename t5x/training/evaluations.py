"""The evaluations of a run: teacher-forced loss, and scored predictions.

Used inside training (`t5x.train`) and apart from it (`t5x.eval`).
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from t5x.data.seqio import evaluation as seqio_evaluation
from t5x.loggers import Console, MetricWriter

Metrics = dict[str, dict[str, float]]


class Evaluations:
    """Runs and logs both kinds.

    Args:
      model: the model.
      trainer: computes the teacher-forced metrics.
      folder: MODEL_DIR; None (on all processes but the first) writes nothing.
      step: step that the run continues from.
      eval_steps: batches of each teacher-forced evaluation; None takes the whole split.
      train_eval_cfg: data of the teacher-forced evaluation, or None.
      infer_eval_cfg: data of the evaluation of predictions, or None.
      train_eval_get_dataset_fn: f(cfg, partitioner, eval_steps, feature converter class) -> task ->
        iterator over batches, which is closed in the end.
      evaluator_cls: see `make_evaluator`.

    Raises:
      ValueError: what is certain to stop an evaluation, such as an unknown split or no examples.
    """

    def __init__(
        self,
        model: Any,
        trainer: Any,
        folder: Path | None,
        step: int,
        eval_steps: int | None,
        train_eval_cfg: Any,
        infer_eval_cfg: Any,
        train_eval_get_dataset_fn: Callable[..., Mapping[str, Any]],
        evaluator_cls: Callable[..., Any] | None,
    ):
        self._model = model
        self._trainer = trainer
        self._folder = folder
        self._step = step
        self._eval_steps = eval_steps
        self._train_eval_cfg = train_eval_cfg
        self._get_datasets = train_eval_get_dataset_fn
        self._writers: dict[str, MetricWriter] = {}
        self._evaluator: Any = None
        if infer_eval_cfg is not None:
            log_dir = None if folder is None else str(folder / "inference_eval")
            self._evaluator = make_evaluator(model, infer_eval_cfg, evaluator_cls, log_dir)
            self._functions = prediction_functions(model, trainer.partitioner)
        if train_eval_cfg is not None:
            for batches in self._open().values():  # what cannot be opened stops the run here
                batches.close()

    def run(self, step: int, console: Console) -> dict[str, Metrics]:
        """Both evaluations at `step`: "TRAIN_EVAL", "INFER_EVAL" -> task -> metrics."""
        results: dict[str, Metrics] = {}
        if self._train_eval_cfg is not None:
            results["TRAIN_EVAL"] = self.teacher_forced(step, console)
        if self._evaluator is not None:
            params = self._trainer.train_state.eval_params
            results["INFER_EVAL"] = self.predicted(params, step, console)
        return results

    @property
    def predicts(self) -> bool:
        """Whether there is a task whose predictions are scored."""
        return self._evaluator is not None and bool(self._evaluator.eval_tasks)

    def model_feature_spec(self) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        """{model feature: (shape, dtype)} of a batch of predictions; empty without such tasks."""
        return self._evaluator.model_feature_spec()

    def teacher_forced(self, step: int, console: Console) -> Metrics:
        """The loss metrics of the trainer's state: task -> metrics."""
        datasets = self._open()
        try:
            results = self._trainer.eval(datasets)
        finally:
            for batches in datasets.values():
                batches.close()
        self._log(step, "training_eval", results, console)
        return results

    def predicted(self, params: Any, step: int, console: Console) -> Metrics:
        """The metrics of predictions and scores: task -> metrics."""
        bound = {name: partial(f, params) for name, f in self._functions.items()}
        results = self._evaluator.evaluate(**bound, step=step)
        self._log(step, "inference_eval", results, console)
        return results

    def _open(self) -> Mapping[str, Any]:
        return self._get_datasets(
            self._train_eval_cfg,
            self._trainer.partitioner,
            self._eval_steps,
            self._model.FEATURE_CONVERTER_CLS,
        )

    def _log(self, step: int, kind: str, by_task: Metrics, console: Console) -> None:
        for task, metrics in by_task.items():
            name = f"{kind}/{task}"
            if name not in self._writers:
                folder = None if self._folder is None else self._folder / name
                self._writers[name] = MetricWriter(folder, self._step)
            metrics = {k: float(v) for k, v in metrics.items() if _is_number(v)}
            self._writers[name].write(step, metrics)
            shown = "  ".join(f"{k} {v:.4g}" for k, v in metrics.items() if "/" not in k)
            console.say(f"  {name} at step {step}: {shown}")

    def close(self) -> None:
        """Close the logs."""
        for writer in self._writers.values():
            writer.close()


def _is_number(value: Any) -> bool:
    return np.ndim(value) == 0 and np.asarray(value).dtype.kind in "biuf"


def make_evaluator(
    model: Any, cfg: Any, evaluator_cls: Callable[..., Any] | None, log_dir: str | None
) -> Any:
    """The evaluator of predictions.

    Args:
      model: gives the feature converter.
      cfg: a `t5x.utils.DatasetConfig`.
      evaluator_cls: called as `t5x.data.Evaluator`, the default, or seqio's class. Its
        `evaluate(predict_fn=, score_fn=, predict_with_aux_fn=, step=)` returns task -> metric
        name -> value.
      log_dir: folder of its loggers; None runs none.
    """
    from t5x.data import Evaluator

    converter = model.FEATURE_CONVERTER_CLS(pack=False)
    options = {
        "eval_split": cfg.split,
        "sequence_length": cfg.task_feature_lengths,
        "shuffle": cfg.shuffle,
        "seed": cfg.seed,
        "use_memory_cache": cfg.use_memory_cache,
        "use_cached": cfg.use_cached,
        "log_dir": log_dir,
    }
    if evaluator_cls is not None and seqio_evaluation.is_seqio_evaluator(evaluator_cls):
        return seqio_evaluation.SeqioEvaluator(
            evaluator_cls,
            cfg.mixture_or_task_name,
            converter,
            cfg.batch_size,
            log=log_dir is not None,
            **options,
        )
    if log_dir is None:
        options["logger_cls"] = ()
    return (evaluator_cls or Evaluator)(
        mixture_or_task_name=cfg.mixture_or_task_name,
        feature_converter=converter,
        batch_size=cfg.batch_size,
        trim_output_features=cfg.trim_output_features,
        **options,
    )


def prediction_functions(model: Any, partitioner: Any) -> dict[str, Callable[..., Any]]:
    """The model's predictions: "predict_fn", "predict_with_aux_fn", "score_fn" -> a function.

    Each takes (params, whole host batch [, rng]) and returns host arrays; `rng` is for the first
    two.
    """
    methods = {
        "predict_fn": model.predict_batch,
        "predict_with_aux_fn": model.predict_batch_with_aux,
        "score_fn": model.score_batch,
    }
    return {name: _on_devices(method, partitioner) for name, method in methods.items()}


def _on_devices(method: Callable[..., Any], partitioner: Any) -> Callable[..., Any]:
    @jax.jit
    def run(params: Any, batch: Any, rng: Any) -> Any:
        with partitioner.activate():
            options = {} if rng is None else {"rng": rng}
            outputs = method(params, batch, **options)
        return jax.lax.with_sharding_constraint(outputs, partitioner.replicated)

    def on_host(params: Any, batch: Mapping[str, np.ndarray], rng: Any = None) -> Any:
        sharding = partitioner.data_sharding
        whole = {
            name: jax.make_array_from_callback(x.shape, sharding, lambda i, x=x: x[i])
            for name, x in batch.items()
        }
        return jax.device_get(run(params, whole, rng))

    return on_host
