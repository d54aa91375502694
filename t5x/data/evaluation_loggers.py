"""What an `Evaluator` does with its results, under seqio's names: files, TensorBoard, the log.

A logger is made with `output_dir` and called once a task and evaluation.
"""

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

from t5x.files import BriefArrayEncoder, read_json_lines, write_json_lines


class Logger:
    """Base of the loggers.

    Args:
      output_dir: the folder of all tasks.
    """

    def __init__(self, output_dir: str):
        self.output_dir = Path(output_dir)

    def __call__(
        self,
        task_name: str,
        step: int,
        metrics: Mapping[str, Any],
        dataset: Iterable[Mapping[str, Any]],
        inferences: Mapping[str, Any],
        targets: Sequence[Any],
    ) -> None:
        """Log one evaluation of one task.

        Args:
          task_name: the task.
          step: training step of the parameters.
          metrics: name -> value.
          dataset: the task's preprocessed examples, in order.
          inferences: "prediction" and "score" -> a list with one entry an example; "aux_value" ->
            {name: such a list}.
          targets: postprocessed targets, one an example.
        """
        raise NotImplementedError


class JSONLogger(Logger):
    """Appends to `<task>-metrics.jsonl` and writes predictions to `<task>-<step>.jsonl`.

    Every line of the second has `input` (the example), `prediction`, `score`, `aux_value` and
    `target`, as far as there are any.

    Args:
      output_dir: folder of both.
      write_n_results: predictions to write, from the first example on; None writes all.
      json_encoder_cls: encodes what JSON does not know.
    """

    def __init__(
        self,
        output_dir: str,
        write_n_results: int | None = None,
        json_encoder_cls: type[json.JSONEncoder] = BriefArrayEncoder,
    ):
        super().__init__(output_dir)
        self._limit = write_n_results
        self._encoder = json_encoder_cls

    def __call__(self, task_name, step, metrics, dataset, inferences, targets) -> None:
        path = self.output_dir / f"{task_name}-metrics.jsonl"
        before = read_json_lines(path) if path.is_file() else []
        kept = [line for line in before if line.get("step") != step]
        write_json_lines(path, [*kept, {"step": step, **metrics}], self._encoder)
        if self._limit == 0:
            return
        lines = self._lines(dataset, inferences, targets)
        write_json_lines(self.output_dir / f"{task_name}-{step:06}.jsonl", lines, self._encoder)

    def _lines(self, dataset, inferences, targets):
        aux = inferences.get("aux_value", {})
        for number, example in enumerate(dataset):
            if self._limit is not None and number >= self._limit:
                return
            line: dict[str, Any] = {"input": dict(example)}
            for name in ("prediction", "score"):
                if name in inferences:
                    line[name] = inferences[name][number]
            if aux:
                line["aux_value"] = {name: values[number] for name, values in aux.items()}
            if number < len(targets):
                line["target"] = targets[number]
            yield line


class TensorBoardLogger(Logger):
    """Scalars in `<task>/`, below the folder."""

    def __init__(self, output_dir: str):
        super().__init__(output_dir)
        self._boards: dict[str, Any] = {}

    def __call__(self, task_name, step, metrics, dataset, inferences, targets) -> None:
        from tensorboardX import SummaryWriter

        if task_name not in self._boards:
            self._boards[task_name] = SummaryWriter(str(self.output_dir / task_name))
        for name, value in metrics.items():
            if isinstance(value, Real) or np.ndim(value) == 0:
                self._boards[task_name].add_scalar(f"eval/{name}", float(value), step)
        self._boards[task_name].flush()


class PyLoggingLogger(Logger):
    """One line a metric through Python's `logging`."""

    def __init__(self, output_dir: str, level: int = logging.INFO):
        super().__init__(output_dir)
        self._level = level

    def __call__(self, task_name, step, metrics, dataset, inferences, targets) -> None:
        for name, value in metrics.items():
            logging.log(self._level, "%s at step %d, %s: %s", task_name, step, name, value)
