"""What a training step costs, by the formula of `t5x.flops`.

6 operations per weight and what it is multiplied with, 12 per channel, query and key of an
attention. Scales and shifts by time, made once a row, and the interpolation of embeddings count as
well.
"""

import math
from typing import Any

from flax.traverse_util import flatten_dict

from cdcd.config import NetworkConfig


def train_step_flops(
    params: Any, config: NetworkConfig, shape: tuple[int, int], extra_forward: float = 0.0
) -> float:
    """FLOPs of a training step.

    Args:
      params: the parameter tree of a network of `cdcd.network`.
      config: of the network.
      shape: B rows of L tokens.
      extra_forward: forward passes beside that which has gradients, as a share of the batch.
    """
    rows, length = shape
    per_row = sum(
        6.0 * math.prod(x.shape) * _multiplied_with(name, length)
        for name, x in flatten_dict(dict(params), sep="/").items()
        if name.endswith("/kernel")
    )
    per_row += 12.0 * config.num_layers * config.width * length**2
    forward = per_row / 3.0
    if extra_forward:
        forward += 2.0 * config.vocab_size * config.embed_dim * length
    return rows * (per_row + extra_forward * forward)


def _multiplied_with(name: str, length: int) -> int:
    """How many vectors of a row a kernel is multiplied with."""
    of_time = name.startswith("time_mlp/") or "norm/" in name
    return 1 if of_time else length
