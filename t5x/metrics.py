"""Metrics that accumulate on the device: small pytrees with `merge` and `compute`.

A model's `loss_fn` returns a dict from names to these objects. One training step yields one object
per name; the trainer merges them inside the jitted step and reads them once per logging period, so
no metric costs a host synchronisation per step. Sums are float32.

Two things are only known on the host and are filled in after the read: the duration of the period
(`set_duration`) and, with microbatches, that several merged parts were one step (`set_steps`).

    metric            compute()
    Sum               total
    Average           total / count
    Accuracy          fraction of positions whose argmax is the label
    AveragePerStep    total / steps
    Step              steps
    Time              seconds
    TimeRate          numerator / seconds
    StepsPerTime      steps / seconds
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import flax.struct
import jax
import jax.numpy as jnp

from t5x.reductions import argmax
from t5x.unsupported import unsupported_names

if not TYPE_CHECKING:  # type checkers still report names that do not exist
    __getattr__ = unsupported_names(__name__)

Array = Any  # jax.Array on the device, np.ndarray or float once read


class Metric(flax.struct.PyTreeNode):
    """Base of all metrics: immutable, `merge` is associative and commutative."""

    def merge(self, other: Self) -> Self:
        """The metric of both sets of observations."""
        raise NotImplementedError

    def compute(self) -> Array:
        """The value, a scalar."""
        raise NotImplementedError


def _masked_sum(values: Array, mask: Array | None) -> Array:
    values = jnp.asarray(values, jnp.float32)
    return values.sum() if mask is None else (values * mask).sum()


class Sum(Metric):
    """Sum of everything seen. `total`: float32 scalar."""

    total: Array = 0.0

    @classmethod
    def from_model_output(cls, values: Array, mask: Array | None = None) -> Self:
        """Sums `values` of any shape, where `mask` (same shape, 0/1 or weights) says."""
        return cls(total=_masked_sum(values, mask))

    def merge(self, other: Self) -> Self:
        return self.replace(total=self.total + other.total)

    def compute(self) -> Array:
        return self.total


class Average(Metric):
    """Weighted mean. `total`: sum of weight * value; `count`: sum of weights."""

    total: Array = 0.0
    count: Array = 0.0

    @classmethod
    def from_model_output(cls, values: Array, mask: Array | None = None) -> Self:
        """Mean of `values` (any shape) weighted by `mask` (broadcastable; default ones)."""
        values = jnp.asarray(values, jnp.float32)
        weights = jnp.broadcast_to(jnp.asarray(1.0 if mask is None else mask), values.shape)
        return cls(total=(values * weights).sum(), count=weights.sum(dtype=jnp.float32))

    def merge(self, other: Self) -> Self:
        return self.replace(total=self.total + other.total, count=self.count + other.count)

    def compute(self) -> Array:
        return self.total / (self.count + (self.count == 0))  # 0 when nothing counted


class Accuracy(Average):
    """Fraction of positions where the largest logit is the label, weighted by the mask."""

    @classmethod
    def from_model_output(cls, logits: Array, labels: Array, mask: Array | None = None) -> Self:
        """From `logits` [..., V] and integer `labels` [...]; `mask` [...] leaves padding out."""
        return super().from_model_output(argmax(logits) == labels, mask)


class Step(Metric):
    """Number of training steps seen."""

    steps: Array = 1

    def replace_steps(self, steps: Array) -> Self:
        return self.replace(steps=steps)

    def merge(self, other: Self) -> Self:
        return self.replace(steps=self.steps + other.steps)

    def compute(self) -> Array:
        return self.steps


class AveragePerStep(Step):
    """Mean over steps of a quantity that is a total within each step."""

    total: Array = 0.0

    @classmethod
    def from_model_output(cls, values: Array, steps: Array = 1) -> Self:
        """The step's total is the sum of `values`, of any shape."""
        return cls(total=_masked_sum(values, None), steps=steps)

    def merge(self, other: Self) -> Self:
        return self.replace(total=self.total + other.total, steps=self.steps + other.steps)

    def compute(self) -> Array:
        return self.total / self.steps


def _known(duration: Array | None) -> Array:
    if duration is None:
        raise ValueError(
            "A timing metric was computed before its duration was set: "
            "call `set_duration(metrics, seconds)` on what came from the device first."
        )
    return duration


def _add_seconds(a: Array | None, b: Array | None) -> Array | None:
    if a is None or b is None:
        return a if b is None else b
    return a + b


class Time(Metric):
    """Seconds taken, set on the host by `set_duration`."""

    duration: Array | None = None

    def replace_duration(self, duration: Array) -> Self:
        return self.replace(duration=duration)

    def merge(self, other: Self) -> Self:
        return self.replace(duration=_add_seconds(self.duration, other.duration))

    def compute(self) -> Array:
        return _known(self.duration)


class TimeRate(Time):
    """A total per second, such as examples per second."""

    numerator: Array = 0.0

    @classmethod
    def from_model_output(cls, numerator: Array) -> Self:
        return cls(numerator=jnp.asarray(numerator, jnp.float32))

    def merge(self, other: Self) -> Self:
        return self.replace(
            numerator=self.numerator + other.numerator,
            duration=_add_seconds(self.duration, other.duration),
        )

    def compute(self) -> Array:
        return self.numerator / _known(self.duration)


class StepsPerTime(Step):
    """Training steps per second."""

    duration: Array | None = None

    @classmethod
    def from_model_output(cls, steps: Array = 1) -> Self:
        return cls(steps=steps)

    def replace_duration(self, duration: Array) -> Self:
        return self.replace(duration=duration)

    def merge(self, other: Self) -> Self:
        return self.replace(
            steps=self.steps + other.steps, duration=_add_seconds(self.duration, other.duration)
        )

    def compute(self) -> Array:
        return self.steps / _known(self.duration)


MetricsMap = Mapping[str, Metric]


def merge(a: MetricsMap, b: MetricsMap) -> dict[str, Metric]:
    """Merge two dicts of metrics name by name.

    Raises:
      ValueError: the names differ; every step must report the same metrics.
    """
    if a.keys() != b.keys():
        raise ValueError(f"Metrics differ between steps: {sorted(a.keys() ^ b.keys())}")
    return {name: a[name].merge(b[name]) for name in a}


def set_steps(metrics: MetricsMap, steps: Array) -> dict[str, Metric]:
    """Say that `metrics` came from `steps` steps, whatever was merged into them."""
    return {k: m.replace_steps(steps) if isinstance(m, Step) else m for k, m in metrics.items()}


def set_duration(metrics: MetricsMap, seconds: float) -> dict[str, Metric]:
    """Say that `metrics` took `seconds` of wall time."""
    timed = (Time, StepsPerTime)
    return {
        k: m.replace_duration(seconds) if isinstance(m, timed) else m for k, m in metrics.items()
    }


def compute(metrics: MetricsMap) -> dict[str, float]:
    """Read all metrics to the host in one transfer and compute them."""
    return {name: float(metric.compute()) for name, metric in jax.device_get(metrics).items()}


def empty_like(metrics: MetricsMap) -> dict[str, Metric]:
    """Zeros of the shapes of `metrics` (arrays or structs), to `accumulate` into."""
    return jax.tree.map(lambda x: jnp.zeros(jnp.shape(x), jnp.result_type(x)), dict(metrics))


def accumulate(total: MetricsMap, new: MetricsMap, first: Array) -> dict[str, Metric]:
    """`new` if `first` (a boolean scalar) else both merged; so `total` may start as anything."""

    def choose(merged: Array, alone: Array, before: Array) -> Array:
        return jnp.where(first, alone, merged).astype(jnp.result_type(before))

    return jax.tree.map(choose, merge(total, new), dict(new), dict(total))
