"""The training loop: steps, reports, checkpoints and evaluations until the run ends."""

import contextlib
import dataclasses
import functools
import gc
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax

from t5x.data.prefetch import Prefetcher
from t5x.loggers import Console, MetricWriter
from t5x.trainer import Trainer
from t5x.training.actions import BaseAction
from t5x.training.errors import TrainingError
from t5x.training.evaluations import Evaluations
from t5x.training.preemption import StopRequest
from t5x.training.profiling import Profiler
from t5x.training.run import Run
from t5x.training.stats import Stats


@dataclasses.dataclass
class Loop:
    """The parts of a run, all of which `train` closes.

    Attributes:
      run: saves checkpoints.
      trainer: takes the steps.
      batches: the training batches, on the devices.
      stats: what is reported.
      evaluations: run every `eval_period` steps.
      writer: writes the reports.
      console: prints them.
      profiler: traces some steps.
      actions: mode -> what may end the run by its metrics.
      total_steps: step to end at.
      eval_period: steps between evaluations; 0 never evaluates.
      stats_period: steps between reports.
      gc_period: collect garbage only every so many steps; 0 leaves it to Python.
      end_when_diverged: raise when the state is not finite; otherwise go on, without saving.
    """

    run: Run
    trainer: Trainer
    batches: Prefetcher
    stats: Stats
    evaluations: Evaluations
    writer: MetricWriter
    console: Console
    profiler: Profiler
    actions: Mapping[str, Sequence[BaseAction]]
    total_steps: int
    eval_period: int
    stats_period: int
    gc_period: int
    end_when_diverged: bool = True

    def train(self, first: int, evaluate_first: bool = False) -> int:
        """Train until `total_steps`, a stop request, or an action that ends the run; then save.

        Args:
          first: the step that the run stands at.
          evaluate_first: evaluate before the first step.

        Returns:
          The step reached.

        Raises:
          TrainingError: the state is not finite; see `t5x.trainer.is_finite`.
        """
        step, stopping, ended_by = first, False, []
        stop = StopRequest()
        with contextlib.ExitStack() as stack:
            stack.enter_context(_managed_garbage(self.gc_period))
            stack.enter_context(self._closing())
            if evaluate_first:
                with self.stats.aside("evaluate"):  # without the actions, which count evaluations
                    self.evaluations.run(step, self.console)
            while step < self.total_steps and not stopping and not ended_by:
                batch = self._next_batch(stop)
                if batch is None:
                    break
                self.profiler.before(step)
                self.trainer.step(batch)
                if step == first:  # from now on there is something to save
                    stack.enter_context(stop)
                step += 1
                self.console.step(step)

                report = self._is_report_step(step)
                stopping = stop.requested if jax.process_count() == 1 else report and stop.agreed()
                if report or stopping:
                    ended_by += self._report(step)
                    if self.end_when_diverged and not ended_by:
                        self._check_finite(step)
                if self.run.is_save_step(step) and all(action.saves for action in ended_by):
                    with self.stats.aside("checkpoint"):
                        self._save(step)
                if self._is_evaluation_step(step) and not stopping:
                    for mode, by_task in self._evaluate(step, stop).items():
                        ended_by += self._triggered(mode, step, by_task)
                if self.gc_period and step % self.gc_period == 0:
                    gc.collect()

            if step > first and all(action.saves for action in ended_by):
                self._save(step)
            self.run.wait()
            why = "".join(f", by {type(action).__name__}" for action in ended_by)
            self.console.say(f"ended at step {step} of {self.total_steps}{why}")
        return step

    def _next_batch(self, stop: StopRequest) -> Any:
        """Return the next batch; None if a request to stop came while waiting for it."""
        try:
            return stop.interruptible(self.batches.__next__)
        except Exception:
            if stop.requested:  # Ctrl-C reaches the processes that make the data, too
                return None
            raise

    def _is_evaluation_step(self, step: int) -> bool:
        if not self.eval_period:
            return False
        return step >= self.total_steps or step % self.eval_period == 0

    def _is_report_step(self, step: int) -> bool:
        periodic = step >= self.total_steps or step % self.stats_period == 0
        return periodic or self._is_evaluation_step(step) or self.run.is_save_step(step)

    def _report(self, step: int) -> list[BaseAction]:
        """Log the metrics since the last report; return the actions that end the run."""
        metrics = self.stats.read(step)
        self.run.trained_seconds = self.stats.trained_seconds
        self.writer.write(step, metrics)
        self.console.report(step, metrics)
        return self._triggered("TRAIN", step, {"train": metrics})

    def _evaluate(self, step: int, stop: StopRequest) -> Mapping[str, Any]:
        """Evaluate; return mode -> task -> metrics, nothing if a request to stop breaks it off."""
        evaluate = functools.partial(self.evaluations.run, step, self.console)
        with self.stats.aside("evaluate"):
            return stop.interruptible(evaluate) or {}

    def _triggered(
        self, mode: str, step: int, metrics: Mapping[str, Mapping[str, float]]
    ) -> list[BaseAction]:
        """Return the actions of `mode` that end the run. All are asked, since they keep count."""
        return [action for action in self.actions.get(mode, ()) if action.run(step, metrics)]

    def _check_finite(self, step: int) -> None:
        diverged = self.trainer.diverged_step
        if diverged is None:
            return
        self.run.wait()
        raise TrainingError(
            f"{self.run.folder}: the state is NaN or infinite since step {diverged} (seen at step "
            f"{step}), and is not saved; {self.run.last_checkpoint()}. Lower the learning rate, "
            "warm it up or clip the gradients, then start the run again: it continues from the "
            "last checkpoint. (train.end_when_diverged = False goes on all the same.)"
        )

    def _save(self, step: int) -> None:
        """Save the state unless it is not finite; every save comes after a report of its step."""
        if self.trainer.diverged_step is None:
            self.run.save(step, self.trainer.train_state, self.batches)

    @contextlib.contextmanager
    def _closing(self) -> Iterator[None]:
        """Close all parts at the end, from last to first."""
        parts = (self.run, self.evaluations, self.writer, self.console, self.batches, self.profiler)
        with contextlib.ExitStack() as stack:
            for part in parts:
                stack.callback(part.close)
            yield


@contextlib.contextmanager
def _managed_garbage(period: int) -> Iterator[None]:
    if period:
        gc.disable()
    try:
        yield
    finally:
        if period:
            gc.enable()
