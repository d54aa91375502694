"""The optimizer: Adam in groups, so that the warp, the embeddings and the rest do not disturb each
other."""

from typing import Any

import jax
import optax

from t5x import optimizers


def grouped_adam(
    warp_learning_rate: float | None = 1e-2,
    embedding_factor: float = 1.0,
    beta1: float = 0.9,
    beta2: float = 0.99,
    weight_decay: float = 0.0,
    max_norm: float | None = 1.0,
    average_decay: float | None = None,
) -> optimizers.OptimizerDef:
    """Return Adam at the trainer's learning rate (section 6.1).

    Gradients of small embedding tables that are normalised are large: they are not clipped, and
    have no part in the norm by which the others are.

    Args:
      warp_learning_rate: of the curves of the time warp, constant; None where a model has none.
      embedding_factor: multiplies the learning rate of embeddings.
      beta1, beta2: of Adam.
      weight_decay: of all but embeddings, curves and the frequencies of times (Loshchilov & Hutter
        2019).
      max_norm: the global norm that gradients are clipped to; None does not clip.
      average_decay: also keep an average of the parameters, see
        `t5x.optimizers.ExponentialMovingAverage`; None for none.
    """

    def adam(*before: optax.GradientTransformation, factor: float = 1.0, decay: float = 0.0):
        mask = _are_trained if decay else None
        rule = optax.adamw(factor, b1=beta1, b2=beta2, weight_decay=decay, mask=mask)
        return optimizers.chain([*before, rule], use_trainer_learning_rate=True)

    clip = [] if max_norm is None else [optax.clip_by_global_norm(max_norm)]
    groups: list[tuple[str, optimizers.OptimizerDef]] = [
        ("(.*/)?token_embed/.*", adam(factor=embedding_factor)),
        (".*", adam(*clip, decay=weight_decay)),
    ]
    if warp_learning_rate is not None:
        groups.insert(0, ("warp/.*", optimizers.adam(learning_rate=warp_learning_rate, b2=beta2)))
    rule = optimizers.MultiOptimizer(groups)
    if average_decay is None:
        return rule
    return optimizers.ExponentialMovingAverage(rule, average_decay)


def _are_trained(params: Any) -> Any:
    """Return for each parameter whether it is trained; random frequencies are not."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key != "fourier", params)
