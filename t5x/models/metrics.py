"""The metrics every token model reports, under T5X's names."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax import Array

from t5x import metrics as m

#: Those that presume a loss which is a sum over tokens.
_OF_SUMS = (
    "loss_per_nonpadding_target_token",
    "loss_per_all_target_tokens",
    "z_loss_per_all_target_tokens",
    "cross_ent_loss_per_all_target_tokens",
)


def compute_base_metrics(
    logits: Array,
    targets: Array,
    mask: Array | None,
    loss: Array,
    z_loss: Array | None = None,
    segment_ids: Mapping[str, Array] | None = None,
) -> dict[str, m.Metric]:
    """Metrics of one step.

    Args:
      logits: [B, L, V].
      targets: int [B, L].
      mask: [B, L] which tokens count, or None for all. These are the weights of the data, not
        those a normalisation made fractional.
      loss: scalar, z-loss included.
      z_loss: scalar, or None.
      segment_ids: int [B, length] of packed features by name, 0 on padding.
    """
    num_tokens = float(targets.size)
    counted = jnp.float32(num_tokens) if mask is None else jnp.sum(mask, dtype=jnp.float32)
    result: dict[str, m.Metric] = {
        "accuracy": m.Accuracy.from_model_output(logits, targets, mask),
        "loss": m.AveragePerStep.from_model_output(loss),
        "loss_per_nonpadding_target_token": _ratio(loss, counted),
        "loss_per_all_target_tokens": _ratio(loss, num_tokens),
        "non_padding_fraction/loss_weights": _ratio(counted, num_tokens),
    }
    if z_loss is not None:
        result |= {
            "z_loss": m.AveragePerStep.from_model_output(z_loss),
            "z_loss_per_all_target_tokens": _ratio(z_loss, num_tokens),
            "cross_ent_loss": m.AveragePerStep.from_model_output(loss - z_loss),
            "cross_ent_loss_per_all_target_tokens": _ratio(loss - z_loss, num_tokens),
        }
    return result | _timing(targets.shape[0], num_tokens) | _packing(segment_ids or {})


def metrics_of_mean(found: Mapping[str, m.Metric]) -> dict[str, m.Metric]:
    """Of `compute_base_metrics`, those that hold of a loss which is a mean over tokens."""
    return {name: metric for name, metric in found.items() if name not in _OF_SUMS}


def _ratio(total: Array, count: Array | float) -> m.Metric:
    return m.Average().replace(total=total, count=jnp.asarray(count, jnp.float32))


def _timing(num_examples: int, num_tokens: float) -> dict[str, m.Metric]:
    cores = jax.device_count()
    rates = {
        "timing/seqs_per_second": num_examples,
        "timing/seqs_per_second_per_core": num_examples / cores,
        "timing/target_tokens_per_second": num_tokens,
        "timing/target_tokens_per_second_per_core": num_tokens / cores,
    }
    return {
        **{name: m.TimeRate.from_model_output(number) for name, number in rates.items()},
        "timing/steps_per_second": m.StepsPerTime.from_model_output(),
        "timing/seconds": m.Time(),
        "timing/seqs": m.Sum.from_model_output(jnp.float32(num_examples)),
    }


def _packing(segment_ids: Mapping[str, Array]) -> dict[str, m.Metric]:
    """How many examples a packed batch holds, and how little of it is padding."""
    result: dict[str, m.Metric] = {}
    present, total = jnp.float32(0.0), 0.0
    for name, ids in segment_ids.items():
        examples = jnp.sum(jnp.max(ids, axis=-1))
        tokens = jnp.sum(ids != 0, dtype=jnp.float32)
        result[f"effective_batch_size/{name}"] = m.AveragePerStep.from_model_output(examples)
        result[f"non_padding_fraction/{name}"] = _ratio(tokens, ids.size)
        present, total = present + tokens, total + ids.size
    if segment_ids:
        result["non_padding_fraction/overall"] = _ratio(present, total)
    return result
