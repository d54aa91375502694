"""The training step: loss, gradients, update and metrics in one jitted, donated function.

`Trainer` is what `t5x.train` drives. A model with another update rule overrides `train_step`, a
pure function; the loop, checkpoints and logging stay as they are.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from t5x import metrics as metrics_lib
from t5x.partitioning import BasePartitioner, PartitioningError, with_sharding_constraint
from t5x.training.actions import ActionMode, BaseAction, EarlyStoppingAction, TerminateOnNanAction
from t5x.training.errors import TrainingError
from t5x.training.weight_metrics import WeightMetricsComputer
from t5x.unsupported import unsupported_names

if not TYPE_CHECKING:  # type checkers still report names that do not exist
    __getattr__ = unsupported_names(__name__)

__all__ = [
    "ActionMode",
    "BaseAction",
    "BaseTrainer",
    "EarlyStoppingAction",
    "TerminateOnNanAction",
    "Trainer",
    "WeightMetricsComputer",
]

_NEVER = -1

Batch = Mapping[str, jax.Array]
MetricsMap = dict[str, metrics_lib.Metric]
Tree = Any


class Trainer:
    """Runs training and evaluation steps of a model.

    Args:
      model: see `t5x.models.BaseModel`. If it has `normalize_globally(batch) -> (model, batch)`,
        microbatches use it to divide by the normalizer of the whole batch.
      train_state: the state to start from; owned (and donated) from now on.
      partitioner: maps states and batches to devices.
      eval_names: names of the evaluations of `eval`.
      summary_dir: where the run logs; None writes nothing.
      train_state_axes: the train state with `PartitionSpec`s for arrays; None derives them.
      rng: base random key; step s uses fold_in(rng, s).
      learning_rate_fn: step (int32) -> learning rate (float32).
      num_microbatches: each batch is processed in so many parts, to save memory; loss, gradients
        and metrics are those of the whole batch. None, 0 and 1 do not split.
      weight_metrics_computer: adds norms of weights, gradients and updates to the metrics.

    Attributes:
      train_state: the current state; its arrays are donated to the next step.
      compile_seconds: time spent compiling training steps.
      flops: floating-point operations of the training steps so far, as XLA counts them.
      model_flops: the same by formula (`t5x.training.flops`); 0 where there is none.
      diverged_step: the first step after which the state was not finite, see `is_finite`; None if
        all were. Known once the metrics of that step are read.
    """

    def __init__(
        self,
        model: Any,
        train_state: Any,
        partitioner: BasePartitioner,
        eval_names: Any = (),
        summary_dir: str | None = None,
        train_state_axes: Any = None,
        rng: jax.Array | None = None,
        learning_rate_fn: Any = None,
        num_microbatches: int | None = None,
        weight_metrics_computer: WeightMetricsComputer | None = None,
    ):
        if learning_rate_fn is None:
            raise ValueError(
                "Trainer needs learning_rate_fn, such as create_learning_rate_scheduler()."
            )
        self.model = model
        self.train_state = train_state
        self.partitioner = partitioner
        self.eval_names = tuple(eval_names)
        self.summary_dir = summary_dir
        self.learning_rate_fn = learning_rate_fn
        self.num_microbatches = num_microbatches or 1
        self.compile_seconds = 0.0
        self.flops = 0.0
        self.model_flops = 0.0
        self.diverged_step: int | None = None
        self._base_rng = np.asarray(jax.random.PRNGKey(0) if rng is None else rng)
        self._weight_metrics = weight_metrics_computer
        self._axes = partitioner.get_mesh_axes(train_state)
        if train_state_axes is not None:
            self._axes = train_state_axes
        self._compiled_steps: dict[Any, Any] = {}
        self._totals: MetricsMap | None = None
        self._first = jnp.asarray(True)
        self._diverged = jnp.asarray(_NEVER, jnp.int32)
        self._compiled_eval: dict[Any, Any] = {}

    # ------------------------------------------------------------------ the pure functions

    def train_step(self, train_state: Any, batch: Batch) -> tuple[Any, MetricsMap]:
        """One update. Pure; traced once. Override for other update rules.

        Args:
          train_state: the state before the step.
          batch: name -> [B, ...] arrays.

        Returns:
          (state after the step, metrics of this step).
        """
        rng = jax.random.fold_in(jnp.asarray(self._base_rng), train_state.step)
        learning_rate = self.learning_rate_fn(train_state.step)
        grads, metrics, mutables = self.gradients(train_state, batch, rng)
        updated = train_state.apply_gradient(
            grads, learning_rate=learning_rate, flax_mutables=mutables
        )
        metrics["learning_rate"] = metrics_lib.AveragePerStep.from_model_output(learning_rate)
        norm = global_norm(grads)
        metrics["grad_norm"] = metrics_lib.AveragePerStep.from_model_output(norm)
        if self._weight_metrics is not None:
            metrics |= self._weight_metrics.compute_metrics(grads, train_state, updated)
        return updated, metrics

    def gradients(self, state: Any, batch: Batch, rng: jax.Array) -> tuple[Tree, MetricsMap, Tree]:
        """Gradients, metrics and new mutables of the whole batch, in microbatches if so set."""
        if self.num_microbatches > 1:
            return _microbatched_gradients(self.model, state, batch, rng, self.num_microbatches)
        return _gradients(self.model, state.params, state.flax_mutables, batch, rng)

    def eval_step(self, train_state: Any, batch: Batch) -> MetricsMap:
        """Metrics of a batch without update or dropout. Pure; traced once."""
        mutables = (train_state.flax_mutables,) if train_state.flax_mutables else ()
        _, metrics = self.model.eval_fn(train_state.eval_params, batch, *mutables)
        return metrics

    # ------------------------------------------------------------------ driving them

    def _accumulating_step(
        self, state: Any, totals: MetricsMap, first: jax.Array, diverged: jax.Array, batch: Batch
    ) -> tuple[Any, MetricsMap, jax.Array, jax.Array]:
        state, metrics = self.train_step(state, batch)
        totals = metrics_lib.accumulate(totals, metrics, first)
        fine = (diverged != _NEVER) | is_finite(state)
        step = jnp.asarray(state.step, jnp.int32)
        return state, totals, jnp.zeros_like(first), jnp.where(fine, diverged, step)

    def compile_train(self, batch: Batch) -> None:
        """Compile the step for batches like `batch`; add to compile_seconds."""
        start = time.perf_counter()
        with self.partitioner.activate():
            _, shapes = jax.eval_shape(self.train_step, self.train_state, batch)
        if self._totals is None:
            self._totals = jax.device_put(
                metrics_lib.empty_like(shapes), self.partitioner.replicated
            )
            self._first, self._diverged = jax.device_put(
                (self._first, self._diverged), self.partitioner.replicated
            )
        whole = PartitionSpec()
        step = self.partitioner.partition(
            self._accumulating_step,
            in_axis_resources=(
                self._axes,
                whole,
                whole,
                whole,
                self.partitioner.data_partition_spec,
            ),
            out_axis_resources=(self._axes, whole, whole, whole),
            donate_argnums=(0, 1, 2, 3),
        )
        compiled = self.partitioner.compile(
            step, self.train_state, self._totals, self._first, self._diverged, batch
        )
        by_formula = self.model.train_step_flops(self.train_state.params, batch) or 0.0
        # XLA counts the body of a loop once.
        by_xla = _flops(compiled) * self.num_microbatches
        self._compiled_steps[_shapes(batch)] = (compiled, by_xla, by_formula)
        self.compile_seconds += time.perf_counter() - start

    def step(self, batch: Batch) -> None:
        """Start one training step and return without waiting for it."""
        shapes = _shapes(batch)
        if shapes not in self._compiled_steps:
            self.compile_train(batch)
        run, by_xla, by_formula = self._compiled_steps[shapes]
        self.train_state, self._totals, self._first, self._diverged = run(
            self.train_state, self._totals, self._first, self._diverged, batch
        )
        self.flops += by_xla
        self.model_flops += by_formula

    def read_metrics(self) -> MetricsMap:
        """Wait for the started steps; return their merged metrics, on the host, and reset them."""
        if self._totals is None:
            raise ValueError("No training step has run, so there are no metrics.")
        metrics, diverged = jax.device_get((self._totals, self._diverged))
        self.diverged_step = None if diverged == _NEVER else int(diverged)
        self._first = jax.device_put(jnp.asarray(True), self.partitioner.replicated)
        return metrics

    def train(self, batch_iter: Iterator[Batch], num_steps: int) -> dict[str, float]:
        """Run `num_steps` steps and return their metrics.

        Raises:
          TrainingError: the state is no longer finite.
        """
        compiling, start = self.compile_seconds, time.perf_counter()
        for _ in range(num_steps):
            self.step(self.to_device(next(batch_iter)))
        metrics = self.read_metrics()
        if self.diverged_step is not None:
            raise TrainingError(
                f"The state is NaN or infinite since step {self.diverged_step}: lower the learning "
                "rate, warm it up or clip the gradients."
            )
        seconds = time.perf_counter() - start - (self.compile_seconds - compiling)
        return metrics_lib.compute(metrics_lib.set_duration(metrics, seconds))

    def eval(self, batch_iters: Mapping[str, Iterator[Batch]]) -> dict[str, dict[str, float]]:
        """Run each iterator to its end and return metrics by evaluation name.

        Raises:
          ValueError: an iterator without batches.
        """
        return {name: self._eval_one(name, batches) for name, batches in batch_iters.items()}

    def _eval_one(self, name: str, batches: Iterator[Batch]) -> dict[str, float]:
        start, totals = time.perf_counter(), None
        for batch in batches:
            metrics = self._run_eval(self.to_device(batch))
            totals = metrics if totals is None else _merge(totals, metrics)
        if totals is None:
            raise ValueError(f"Evaluation {name!r} has no batches: its split is smaller than one.")
        totals = jax.device_get(totals)
        seconds = time.perf_counter() - start
        return metrics_lib.compute(metrics_lib.set_duration(totals, seconds))

    def compile_eval(self, batch: Batch) -> None:
        """Compile the evaluation step for batches shaped like `batch`."""
        step = self.partitioner.partition(
            self.eval_step,
            in_axis_resources=(self._axes, self.partitioner.data_partition_spec),
            out_axis_resources=PartitionSpec(),
        )
        self._compiled_eval[_shapes(batch)] = self.partitioner.compile(
            step, self.train_state, batch
        )

    def _run_eval(self, batch: Batch) -> MetricsMap:
        shapes = _shapes(batch)
        if shapes not in self._compiled_eval:
            self.compile_eval(batch)
        return self._compiled_eval[shapes](self.train_state, batch)

    def to_device(self, batch: Mapping[str, Any]) -> Batch:
        """The batch as global device arrays; those that are already are left alone."""
        if all(isinstance(x, jax.Array) for x in batch.values()):
            return batch
        return self.partitioner.shard_batch(batch)


#: Upstream's name of what other trainers derive from.
BaseTrainer = Trainer

_merge = jax.jit(metrics_lib.merge)


def _shapes(batch: Batch) -> tuple[Any, ...]:
    return tuple((name, x.shape, x.dtype) for name, x in batch.items())


def global_norm(tree: Tree) -> jax.Array:
    """L2 norm of all arrays of `tree` together, float32."""
    return jnp.sqrt(_sum_of_squares(jax.tree.leaves(tree)))


def _sum_of_squares(arrays: Sequence[jax.Array]) -> jax.Array:
    squares = [jnp.sum(jnp.square(x.astype(jnp.float32))) for x in arrays]
    return sum(squares, jnp.zeros((), jnp.float32))


def is_finite(state: Any) -> jax.Array:
    """Return whether a train state can be used: a bool scalar.

    That is, the L2 norm of its parameters is finite in float32 (so that 1e20 counts as diverged,
    one step before its products overflow), and nothing else of it is NaN. Infinities elsewhere may
    be meant, such as the best loss so far.
    """
    floats = [x for x in jax.tree.leaves(state) if jnp.issubdtype(jnp.result_type(x), jnp.inexact)]
    # Infinities make no NaN of a sum of squares, and those of the parameters are summed anyway.
    return jnp.isfinite(global_norm(state.params)) & ~jnp.isnan(_sum_of_squares(floats))


def _flops(compiled: Any) -> float:
    """Floating-point operations of one call on all devices, as XLA counts them (0: unknown)."""
    analysis = compiled.cost_analysis()
    analysis = analysis[0] if isinstance(analysis, list) else analysis
    return float((analysis or {}).get("flops", 0.0)) * jax.device_count()


def _gradients(
    model: Any, params: Tree, mutables: Tree, batch: Batch, rng: jax.Array
) -> tuple[Tree, MetricsMap, Tree]:
    """Gradients, metrics and new mutables of the model's loss on one batch."""

    def loss_fn(params: Tree) -> tuple[jax.Array, tuple[MetricsMap, Tree]]:
        if not mutables:
            loss, metrics = model.loss_fn(params, batch, rng)
            return loss, (dict(metrics), mutables)
        loss, (metrics, new_mutables) = model.loss_fn(params, batch, rng, mutables)
        return loss, (dict(metrics), new_mutables)

    grads, (metrics, new_mutables) = jax.grad(loss_fn, has_aux=True)(params)
    return grads, metrics, new_mutables


def _microbatched_gradients(
    model: Any, state: Any, batch: Batch, rng: jax.Array, num_microbatches: int
) -> tuple[Tree, MetricsMap, Tree]:
    """As `_gradients`, part by part, with float32 sums.

    The model normalizes by the whole batch (`normalize_globally`), so that the sum over parts is
    the loss of the batch. Microbatch i takes the rows i, i + n, i + 2n, ..., which leaves the rows
    of every device on that device.
    """
    if hasattr(model, "normalize_globally"):
        model, batch = model.normalize_globally(batch)
    parts = {name: _split_rows(name, x, num_microbatches) for name, x in batch.items()}
    keys = jax.random.split(rng, num_microbatches)

    def one(mutables: Tree, part: Batch, key: jax.Array) -> tuple[Tree, MetricsMap, Tree]:
        return _gradients(model, state.params, mutables, part, key)

    first_part = jax.tree.map(lambda x: x[0], parts)
    _, metrics_shape, _ = jax.eval_shape(one, state.flax_mutables, first_part, keys[0])

    def body(carry: Any, xs: Any) -> tuple[Any, None]:
        grads, metrics, mutables = carry
        index, part, key = xs
        new_grads, new_metrics, mutables = one(mutables, part, key)
        grads = jax.tree.map(jnp.add, grads, new_grads)
        metrics = metrics_lib.accumulate(metrics, new_metrics, index == 0)
        return (grads, metrics, mutables), None

    zeros = jax.tree.map(lambda p: jnp.zeros(p.shape, jnp.float32), state.params)
    start = (zeros, metrics_lib.empty_like(metrics_shape), state.flax_mutables)
    xs = (jnp.arange(num_microbatches), parts, keys)
    (grads, metrics, mutables), _ = jax.lax.scan(body, start, xs)
    return grads, metrics_lib.set_steps(metrics, 1), mutables


def _split_rows(name: str, x: jax.Array, num_microbatches: int) -> jax.Array:
    """[B, ...] -> [num_microbatches, B / num_microbatches, ...]."""
    rows = x.shape[0] if x.ndim else 0
    if not rows or rows % num_microbatches:
        raise PartitioningError(
            f"num_microbatches={num_microbatches} does not divide the {rows} rows of {name}."
        )
    parts = x.reshape(rows // num_microbatches, num_microbatches, *x.shape[1:]).swapaxes(0, 1)
    return with_sharding_constraint(parts, (None, "batch", *([None] * (x.ndim - 1))))
