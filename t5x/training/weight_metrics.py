"""Norms of weights, gradients and updates, by parameter: for diagnosing a run."""

from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp

from t5x.metrics import AveragePerStep

Tree = Any


def _flat(tree: Tree) -> dict[str, jax.Array]:
    flat: dict[str, Any] = flax.traverse_util.flatten_dict(dict(tree), sep="/")
    return flat


def _rms(x: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.mean(jnp.square(x.astype(jnp.float32))))


class WeightMetricsComputer:
    """Adds, for every parameter p, the metrics

    weight_rms/p, weight_gradient_rms/p, weight_update_rms/p (root mean squares),
    weight_update_divided_by_weight_rms/p, weight_max/p (largest magnitude),
    and weight_gradient_norm (L2 norm over all parameters).
    """

    def compute_metrics(
        self, gradients: Tree, old_train_state: Any, new_train_state: Any
    ) -> dict[str, AveragePerStep]:
        """Metrics of one update, averaged over steps when merged."""
        values: dict[str, jax.Array] = {}
        grads, old, new = map(_flat, (gradients, old_train_state.params, new_train_state.params))
        for name, weight in old.items():
            update = new[name] - weight
            values[f"weight_rms/{name}"] = _rms(weight)
            values[f"weight_gradient_rms/{name}"] = _rms(grads[name])
            values[f"weight_update_rms/{name}"] = _rms(update)
            values[f"weight_update_divided_by_weight_rms/{name}"] = _rms(update) / _rms(weight)
            values[f"weight_max/{name}"] = jnp.max(jnp.abs(weight))
        squares = [jnp.sum(jnp.square(g.astype(jnp.float32))) for g in grads.values()]
        values["weight_gradient_norm"] = jnp.sqrt(sum(squares, jnp.zeros(())))
        return {name: AveragePerStep.from_model_output(value) for name, value in values.items()}
