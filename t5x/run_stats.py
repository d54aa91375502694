"""Rates of a run between reports: steps, examples, waiting, utilisation."""

import contextlib
import time
from collections.abc import Iterator
from typing import Any

from t5x import metrics as metrics_lib
from t5x.hardware import peak_flops


class Stats:
    """Reads the trainer's metrics once a period and adds what only the host knows.

    Args:
      trainer: gives metrics, compile_seconds and flops.
      batches: gives wait_seconds.
      batch_size: global examples per step.
      step: the step before the first.
      start: `time.perf_counter()` when the process began.
    """

    def __init__(self, trainer: Any, batches: Any, batch_size: int, step: int, start: float):
        self._trainer = trainer
        self._batches = batches
        self._batch_size = batch_size
        self._start = start
        self._aside = {"checkpoint": 0.0, "evaluate": 0.0}
        self._trained = 0.0
        self._peak = peak_flops()
        self._init_seconds = time.perf_counter() - start
        self._begin(step)

    def _begin(self, step: int) -> None:
        self._step = step
        self._now = time.perf_counter()
        self._before = self._counters()

    def _counters(self) -> tuple[float, float, float, float]:
        """Seconds not spent training; those compiling; those waiting for data; FLOPs."""
        compiling = self._trainer.compile_seconds
        away = compiling + sum(self._aside.values())
        return away, compiling, self._batches.wait_seconds, self._trainer.flops

    @contextlib.contextmanager
    def aside(self, what: str) -> Iterator[None]:
        """Time inside counts for `what` ("checkpoint" or "evaluate"), not for training."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._aside[what] += time.perf_counter() - start

    def read(self, step: int) -> dict[str, float]:
        """Waits for the steps up to `step`; their metrics since the last call, computed."""
        on_host = self._trainer.read_metrics()
        away, _, waited, flops = (
            now - before for now, before in zip(self._counters(), self._before)
        )
        seconds = max(time.perf_counter() - self._now - away, 1e-9)
        steps = step - self._step
        self._trained += seconds
        uptime = time.perf_counter() - self._start
        values = metrics_lib.compute(metrics_lib.set_duration(on_host, seconds))
        values |= {
            "timing/steps_per_second": steps / seconds,
            "timing/examples_per_second": steps * self._batch_size / seconds,
            "timing/data_wait_fraction": min(waited / seconds, 1.0),
            "timing/tflops_per_second": flops / seconds / 1e12,
            "timing/uptime": uptime,
            "timing/goodput": self._trained / uptime,
            "timing/init_or_restore_seconds": self._init_seconds,
            "timing/compilation_seconds": self._trainer.compile_seconds,
            "timing/checkpoint_seconds": self._aside["checkpoint"],
            "timing/evaluate_seconds": self._aside["evaluate"],
        }
        if self._peak:
            values["timing/mfu"] = flops / seconds / self._peak
        self._begin(step)
        return values
