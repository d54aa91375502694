"""The optimizers and learning rates of the reference, by their names.

An update is: gradients clipped to a global norm, the rule, the learning rate, and a minus sign.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import optax

from t5x import optimizers
from t5x.schedules import Schedule

_RULES: dict[str, Callable[[], optax.GradientTransformation]] = {
    "adam": lambda: optax.adam(1.0, b1=0.9, b2=0.999, eps=1e-8),
    "sgd": lambda: optax.sgd(1.0, momentum=0.9, nesterov=True),
    "lamb": lambda: optax.lamb(1.0, eps=1e-6),
    "adafactor": lambda: optax.adafactor(1.0),
    "sm3": lambda: optax.sm3(1.0),
}


def optimizer(name: str = "adam", max_norm: float | None = 1.0) -> optimizers.OptaxWrapper:
    """Return a rule of the reference, at the trainer's learning rate.

    With a loss that is a sum over tokens the gradient is practically always longer than
    `max_norm`, so that only its direction counts; with a mean its length counts too.

    Args:
      name: `adam`, `sgd`, `lamb`, `adafactor` or `sm3`.
      max_norm: the global norm that gradients are clipped to; None does not clip.

    Raises:
      ValueError: an unknown name.
    """
    if name not in _RULES:
        raise ValueError(f"optimizer name={name!r}: expected one of {', '.join(_RULES)}")
    clip = [] if max_norm is None else [optax.clip_by_global_norm(max_norm)]
    return optimizers.chain([*clip, _RULES[name]()], use_trainer_learning_rate=True)


def learning_rate_schedule(
    kind: str = "constant",
    base_learning_rate: float = 3e-4,
    warmup_steps: int = 10_000,
    training_steps: int = 1_000_000,
) -> Schedule:
    """Return a linear warm-up from 0 followed by a schedule: step -> float32.

    Args:
      kind: `constant`; `cosine`, down to 0 in `training_steps` after the warm-up; `steps`,
        divided by 10 after 50, 80 and 95 % of `training_steps`; or `t5`, falling with the square
        root of the step.
      base_learning_rate: at the end of the warm-up.
      warmup_steps: of the warm-up.
      training_steps: see above.

    Raises:
      ValueError: an unknown kind.
    """
    base, warmup = base_learning_rate, max(warmup_steps, 1)
    # Steps of what comes after the warm-up are counted from its end.
    after: dict[str, Callable[[], Any]] = {
        "constant": lambda: optax.constant_schedule(base),
        "cosine": lambda: optax.cosine_decay_schedule(base, training_steps),
        "steps": lambda: optax.piecewise_constant_schedule(
            base, {int(f * training_steps) - warmup_steps: 0.1 for f in (0.5, 0.8, 0.95)}
        ),
        "t5": lambda: lambda step: base * (warmup / (warmup + jnp.maximum(step, 0))) ** 0.5,
    }
    if kind not in after:
        raise ValueError(f"learning-rate kind={kind!r}: expected one of {', '.join(after)}")
    rising = optax.linear_schedule(0.0, base, warmup)
    joined: Any = optax.join_schedules([rising, after[kind]()], [warmup_steps])
    return joined
