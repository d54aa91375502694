"""Cross-entropy with label smoothing and z-loss, and how losses are normalised.

Letters in shapes: B batch, L length, V vocabulary.

By default a loss is the plain sum over the tokens of a batch: Adafactor does not care about its
scale. Other normalisations are named by `loss_normalizing_factor`.
"""

import enum
import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array


@jax.custom_vjp
def cross_entropy_with_logits(
    logits: Array, targets: Array, z_loss: Array | float
) -> tuple[Array, Array]:
    """Cross-entropy to soft targets, plus z_loss * log(Z)^2 with Z the softmax normaliser.

    The z term keeps logits from drifting away from zero and makes them proper log-probabilities.
    Worked example: equal logits of V = 4 and any target give log 4; with all logits 0 the z term
    is z_loss * (log 4)^2.

    Args:
      logits: float [..., V].
      targets: float [..., V], each summing to 1.
      z_loss: coefficient, a constant for gradients.

    Returns:
      (loss including the z term, z term alone), both [...]; only the first passes gradients on.
    """
    loss, z_term, _ = _soft_cross_entropy(logits, targets, z_loss)
    return loss, z_term


def _soft_cross_entropy(logits, targets, z_loss):
    log_z = jax.nn.logsumexp(logits, axis=-1)
    loss = -jnp.sum(targets * (logits - log_z[..., None]), axis=-1)
    z_term = z_loss * jnp.square(log_z)
    return loss + z_term, z_term, log_z


def _soft_forward(logits, targets, z_loss):
    loss, z_term, log_z = _soft_cross_entropy(logits, targets, z_loss)
    return (loss, z_term), (logits, targets, z_loss, log_z)


def _soft_backward(residuals, cotangents):
    logits, targets, z_loss, log_z = residuals
    cotangent = cotangents[0][..., None]
    grad_logits = cotangent * (_softmax_with_z(logits, log_z, z_loss) - targets)
    grad_targets = -cotangent * (logits - log_z[..., None])
    return (
        grad_logits.astype(logits.dtype),
        grad_targets.astype(targets.dtype),
        jnp.zeros_like(z_loss),
    )


def _softmax_with_z(logits: Array, log_z: Array, z_loss: Array | float) -> Array:
    """Gradient of log(Z) + z_loss * log(Z)^2 by the logits."""
    return (1.0 + 2.0 * z_loss * log_z[..., None]) * jnp.exp(logits - log_z[..., None])


cross_entropy_with_logits.defvjp(_soft_forward, _soft_backward)


def smoothed_targets(targets: Array, vocab_size: int, label_smoothing: float) -> Array:
    """Soft targets [..., V]: 1 - label_smoothing on the target, the rest shared equally."""
    confidence, low = _smoothing(vocab_size, label_smoothing)
    is_target = targets[..., None] == jnp.arange(vocab_size)
    return jnp.where(is_target, confidence, low).astype(jnp.float32)


def _smoothing(vocab_size: int, label_smoothing: float) -> tuple[float, float]:
    others = max(vocab_size - 1, 1)
    return 1.0 - label_smoothing, label_smoothing / others


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _token_cross_entropy(logits, targets, z_loss, label_smoothing):
    """`cross_entropy_with_logits` to integer targets, whose soft form is never stored."""
    return cross_entropy_with_logits(
        logits, smoothed_targets(targets, logits.shape[-1], label_smoothing), z_loss
    )


def _token_forward(logits, targets, z_loss, label_smoothing):
    soft = smoothed_targets(targets, logits.shape[-1], label_smoothing)
    loss, z_term, log_z = _soft_cross_entropy(logits, soft, z_loss)
    return (loss, z_term), (logits, targets, z_loss, log_z)


def _token_backward(label_smoothing, residuals, cotangents):
    logits, targets, z_loss, log_z = residuals
    soft = smoothed_targets(targets, logits.shape[-1], label_smoothing)
    grad = cotangents[0][..., None] * (_softmax_with_z(logits, log_z, z_loss) - soft)
    no_grad = np.zeros(targets.shape, jax.dtypes.float0)
    return grad.astype(logits.dtype), no_grad, jnp.zeros_like(z_loss)


_token_cross_entropy.defvjp(_token_forward, _token_backward)


def smoothing_constant(vocab_size: int, label_smoothing: float) -> float:
    """Entropy of smoothed targets: subtracted so that a perfect prediction has loss 0."""
    confidence, low = _smoothing(vocab_size, label_smoothing)
    if confidence <= 0.0 or label_smoothing == 0.0:
        certain = 0.0
    else:
        certain = confidence * np.log(confidence)
    return -float(certain + (vocab_size - 1) * low * np.log(low + 1e-20))


def compute_weighted_cross_entropy(
    logits: Array,
    targets: Array,
    weights: Array | None = None,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    loss_normalizing_factor: Array | float | None = None,
) -> tuple[Array, Array, Array]:
    """Weighted sum of token cross-entropies.

    Args:
      logits: float [B, L, V].
      targets: int [B, L].
      weights: [B, L] or None for ones.
      label_smoothing: probability mass shared by the wrong tokens.
      z_loss: coefficient of log(Z)^2, see `cross_entropy_with_logits`.
      loss_normalizing_factor: divides the first two results, or None.

    Returns:
      Scalars (loss including z-loss, z-loss alone, sum of weights).

    Raises:
      ValueError: the ranks of logits and targets do not fit.
    """
    if logits.ndim != targets.ndim + 1:
        raise ValueError(
            f"logits {logits.shape} must have one axis more than targets {targets.shape}"
        )
    loss, z_term = _token_cross_entropy(logits, targets, z_loss, label_smoothing)
    loss = loss - smoothing_constant(logits.shape[-1], label_smoothing)
    weight_sum = jnp.asarray(np.prod(targets.shape), jnp.float32)
    if weights is not None:
        loss, z_term = loss * weights, z_term * weights
        weight_sum = jnp.sum(weights, dtype=jnp.float32)
    if loss_normalizing_factor is not None:
        loss, z_term = loss / loss_normalizing_factor, z_term / loss_normalizing_factor
    return jnp.sum(loss), jnp.sum(z_term), weight_sum


@enum.unique
class SpecialLossNormalizingFactor(enum.Enum):
    """Normalising factors which depend on the batch.

    NUM_REAL_TARGET_TOKENS: the sum of the loss weights.
    NUM_TOTAL_TARGET_TOKENS: all target positions, padding included.
    AVERAGE_PER_SEQUENCE: average within each sequence (or packed segment), then over sequences.
    """

    NUM_REAL_TARGET_TOKENS = 1
    NUM_TOTAL_TARGET_TOKENS = 2
    AVERAGE_PER_SEQUENCE = 3


LossNormalizingFactor = float | int | str | SpecialLossNormalizingFactor | None


def convert_special_loss_normalizing_factor_to_enum(name: str) -> SpecialLossNormalizingFactor:
    """The factor called `name`, in any case; raises ValueError for unknown names."""
    try:
        return SpecialLossNormalizingFactor[name.upper()]
    except KeyError:
        known = ", ".join(f.name for f in SpecialLossNormalizingFactor)
        raise ValueError(
            f"unknown loss_normalizing_factor {name!r}: give a number or {known}"
        ) from None


def get_loss_normalizing_factor_and_weights(
    loss_normalizing_factor: LossNormalizingFactor, batch: Mapping[str, Array]
) -> tuple[Array | float | None, Array | None]:
    """(factor, weights) for `compute_weighted_cross_entropy`.

    Args:
      loss_normalizing_factor: None, a number, or a special factor by enum or name.
      batch: `decoder_target_tokens` int [B, L]; optionally `decoder_loss_weights` [B, L], and
        `decoder_segment_ids` int [B, L] of packed rows.

    Returns:
      The number to divide by, or None; the weights [B, L], None if the batch has none and no
      special factor asks for them.
    """
    factor = loss_normalizing_factor
    weights = batch.get("decoder_loss_weights")
    if isinstance(factor, str):
        factor = convert_special_loss_normalizing_factor_to_enum(factor)
    if not isinstance(factor, SpecialLossNormalizingFactor):
        return factor, weights
    targets = batch["decoder_target_tokens"]
    if weights is None:
        weights = jnp.asarray(targets > 0, jnp.float32)
    if factor is SpecialLossNormalizingFactor.NUM_REAL_TARGET_TOKENS:
        return jnp.sum(weights), weights
    if factor is SpecialLossNormalizingFactor.NUM_TOTAL_TARGET_TOKENS:
        return float(np.prod(targets.shape)), weights
    totals = _weights_per_sequence(weights, batch.get("decoder_segment_ids"))
    weights = jnp.where(totals > 0, weights / jnp.where(totals > 0, totals, 1.0), 0.0)
    return jnp.sum(weights), weights


def _weights_per_sequence(weights: Array, segment_ids: Array | None) -> Array:
    """At each position, the sum of the weights [B, L] of its row or packed segment."""
    weights = jnp.asarray(weights, jnp.float32)
    if segment_ids is None:
        return jnp.sum(weights, axis=-1, keepdims=True)

    def per_row(row, ids):
        return jax.ops.segment_sum(row, ids, num_segments=row.shape[0] + 1)[ids]

    return jax.vmap(per_row)(weights, segment_ids)


def token_nats(logits: Array, targets: Array) -> Array:
    """-log p(target), float32 [...], of logits [..., V]."""
    logits = logits.astype(jnp.float32)
    chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    return jax.nn.logsumexp(logits, axis=-1) - chosen


def mean_where(values: Array, counted: Array, axis: int | None = None) -> Array:
    """Mean of the values that are counted, along an axis or of all; 0 where none is."""
    counted = counted.astype(values.dtype)
    return jnp.sum(values * counted, axis) / jnp.maximum(jnp.sum(counted, axis), 1.0)
