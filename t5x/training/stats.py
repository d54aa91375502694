"""Rates of a run between reports: steps, examples, waiting, utilisation."""

import contextlib
import time
from collections.abc import Iterator
from typing import Any

from t5x import metrics as metrics_lib
from t5x.training.flops import peak_flops


class Stats:
    """Reads the trainer's metrics once a period and adds what only the host knows.

    Args:
      trainer: gives metrics, compile_seconds, flops and model_flops.
      batches: gives wait_seconds.
      batch_size: global examples per step.
      step: the step before the first.
      start: `time.perf_counter()` when the process began.
      trained_before: seconds that earlier processes of this run have trained.

    Attributes:
      trained_seconds: time spent training, all processes of the run together.
    """

    def __init__(
        self,
        trainer: Any,
        batches: Any,
        batch_size: int,
        step: int,
        start: float,
        trained_before: float = 0.0,
    ):
        self.trained_seconds = trained_before
        self._trainer = trainer
        self._batches = batches
        self._batch_size = batch_size
        self._start = start
        self._aside = {"checkpoint": 0.0, "evaluate": 0.0}
        self._useful = 0.0
        self._peak = peak_flops()
        self._init_seconds = time.perf_counter() - start
        self._begin(step)

    def _begin(self, step: int) -> None:
        self._step = step
        self._now = time.perf_counter()
        self._before = self._counters()

    def _counters(self) -> tuple[float, float, float, float]:
        """Seconds not spent training; those waiting for data; FLOPs by XLA and by formula."""
        away = self._trainer.compile_seconds + sum(self._aside.values())
        trainer = self._trainer
        return away, self._batches.wait_seconds, trainer.flops, trainer.model_flops

    @contextlib.contextmanager
    def aside(self, what: str) -> Iterator[None]:
        """Time inside counts for `what` ("checkpoint" or "evaluate"), not for training."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._aside[what] += time.perf_counter() - start

    def read(self, step: int) -> dict[str, float]:
        """Wait for the steps up to `step`; their metrics since the last call, computed."""
        on_host = self._trainer.read_metrics()
        away, waited, by_xla, by_formula = (
            now - before for now, before in zip(self._counters(), self._before)
        )
        seconds = max(time.perf_counter() - self._now - away, 1e-9)
        waited = min(waited, seconds)
        steps = step - self._step
        self.trained_seconds += seconds
        self._useful += seconds - waited
        values = metrics_lib.compute(metrics_lib.set_duration(on_host, seconds))
        values |= {
            "timing/steps_per_second": steps / seconds,
            "timing/examples_per_second": steps * self._batch_size / seconds,
            "timing/data_wait_fraction": waited / seconds,
            "timing/tflops_per_second": by_xla / seconds / 1e12,
            "timing/trained_seconds": self.trained_seconds,
            **self._goodput(),
        }
        if by_formula:
            values["timing/model_tflops_per_second"] = by_formula / seconds / 1e12
        if self._peak:
            values["timing/hfu"] = by_xla / seconds / self._peak
            values["timing/mfu"] = (by_formula or by_xla) / seconds / self._peak
        self._begin(step)
        return values

    def _goodput(self) -> dict[str, float]:
        """Where this process's time went: seconds, and shares that sum to at most 1."""
        uptime = time.perf_counter() - self._start
        seconds = {
            "init_or_restore": self._init_seconds,
            "compilation": self._trainer.compile_seconds,
            "data_wait": self._batches.wait_seconds,
            **self._aside,
        }
        return {
            "timing/uptime": uptime,
            "timing/goodput": self._useful / uptime,
            **{f"timing/{name}_seconds": value for name, value in seconds.items()},
            **{f"timing/badput/{name}": value / uptime for name, value in seconds.items()},
        }
