"""The evaluations inside a training run: teacher-forced loss, and scored predictions."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

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
      evaluator_cls: called as `t5x.data.Evaluator`, the default; its
        `evaluate(predict_fn=, score_fn=, predict_with_aux_fn=, step=)` returns task -> metric
        name -> value.
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
            self._evaluator = _make_evaluator(model, infer_eval_cfg, evaluator_cls, log_dir)
            self._functions = _prediction_functions(model, trainer.partitioner)

    def run(self, step: int, console: Console) -> dict[str, Metrics]:
        """Both evaluations at `step`: "TRAIN_EVAL", "INFER_EVAL" -> task -> metrics."""
        results: dict[str, Metrics] = {}
        if self._train_eval_cfg is not None:
            datasets = self._get_datasets(
                self._train_eval_cfg,
                self._trainer.partitioner,
                self._eval_steps,
                self._model.FEATURE_CONVERTER_CLS,
            )
            try:
                results["TRAIN_EVAL"] = self._trainer.eval(datasets)
            finally:
                for batches in datasets.values():
                    batches.close()
            self._log(step, "training_eval", results["TRAIN_EVAL"], console)
        if self._evaluator is not None:
            params = self._trainer.train_state.params
            bound = {name: partial(f, params) for name, f in self._functions.items()}
            results["INFER_EVAL"] = self._evaluator.evaluate(**bound, step=step)
            self._log(step, "inference_eval", results["INFER_EVAL"], console)
        return results

    def _log(self, step: int, kind: str, by_task: Metrics, console: Console) -> None:
        for task, metrics in by_task.items():
            name = f"{kind}/{task}"
            if name not in self._writers:
                folder = None if self._folder is None else self._folder / name
                self._writers[name] = MetricWriter(folder, self._step)
            metrics = {k: float(v) for k, v in metrics.items() if np.ndim(v) == 0}
            self._writers[name].write(step, metrics)
            shown = "  ".join(f"{k} {v:.4g}" for k, v in metrics.items() if "/" not in k)
            console.say(f"  {name} at step {step}: {shown}")

    def close(self) -> None:
        """Closes the logs."""
        for writer in self._writers.values():
            writer.close()


def _make_evaluator(
    model: Any, cfg: Any, evaluator_cls: Callable[..., Any] | None, log_dir: str | None
) -> Any:
    from t5x.data import Evaluator

    return (evaluator_cls or Evaluator)(
        mixture_or_task_name=cfg.mixture_or_task_name,
        feature_converter=model.FEATURE_CONVERTER_CLS(pack=False),
        eval_split=cfg.split,
        batch_size=cfg.batch_size,
        sequence_length=cfg.task_feature_lengths,
        shuffle=cfg.shuffle,
        seed=cfg.seed,
        use_memory_cache=cfg.use_memory_cache,
        use_cached=cfg.use_cached,
        log_dir=log_dir,
    )


def _prediction_functions(model: Any, partitioner: Any) -> dict[str, Callable[..., Any]]:
    """The model's predictions as functions (params, whole host batch) -> host arrays."""
    methods = {
        "predict_fn": model.predict_batch,
        "predict_with_aux_fn": model.predict_batch_with_aux,
        "score_fn": model.score_batch,
    }
    return {name: _on_devices(method, partitioner) for name, method in methods.items()}


def _on_devices(method: Callable[..., Any], partitioner: Any) -> Callable[..., Any]:
    @jax.jit
    def run(params: Any, batch: Any) -> Any:
        with partitioner.activate():
            outputs = method(params, batch)
        return jax.lax.with_sharding_constraint(outputs, partitioner.replicated)

    def on_host(params: Any, batch: Mapping[str, np.ndarray]) -> Any:
        sharding = partitioner.data_sharding
        whole = {
            name: jax.make_array_from_callback(x.shape, sharding, lambda i, x=x: x[i])
            for name, x in batch.items()
        }
        return jax.device_get(run(params, whole))

    return on_host
