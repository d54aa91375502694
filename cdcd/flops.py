"""FLOPs of a training step, by the formula of `t5x.training.flops`.

6 operations per weight and what it is multiplied with, 12 per channel, query and key of an
attention. Scales and shifts by time, once a row, and the interpolation of embeddings count as
well.
"""

import math
from typing import Any

from flax.traverse_util import flatten_dict

from cdcd.config import DenoiserConfig


def train_step_flops(
    params: Any,
    config: DenoiserConfig,
    shape: tuple[int, ...],
    extra_forward: float = 0.0,
    inputs: int = 0,
) -> float:
    """Return FLOPs of a training step.

    Args:
      params: the parameter tree of a network of `cdcd.network` or `cdcd.translation.network`.
      config: of the network.
      shape: B rows of L tokens.
      extra_forward: forward passes beside that which has gradients, as a share of the batch;
        inputs are encoded once.
      inputs: T, tokens of an input, of networks that encode one.
    """
    rows, length = shape
    encoder = 12.0 * getattr(config, "num_encoder_layers", 0) * config.width * inputs**2
    decoder = 12.0 * config.num_layers * config.width * (length**2 + length * inputs)
    flat: dict[str, Any] = flatten_dict(dict(params), sep="/")  # type: ignore[assignment]
    for name, x in flat.items():
        if not name.endswith("/kernel"):
            continue
        flops = 6.0 * math.prod(x.shape) * _multiplied_with(name, length, inputs)
        if name.startswith("encoder/"):
            encoder += flops
        else:
            decoder += flops
    forward = decoder / 3.0
    if extra_forward:
        forward += 2.0 * config.vocab_size * config.embed_dim * length
    return rows * (encoder + decoder + extra_forward * forward)


def _multiplied_with(name: str, length: int, inputs: int) -> int:
    """Return how many vectors of a row a kernel is multiplied with."""
    if name.startswith(("time_mlp/", "length_mlp/")) or "norm/" in name:
        return 1
    of_inputs = name.endswith(("cross_attention/key/kernel", "cross_attention/value/kernel"))
    return inputs if of_inputs or name.startswith("encoder/") else length
