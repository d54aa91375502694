"""FLOPs of a training step of Perceiver AR, by the formula of `t5x.training.flops`.

6 operations per weight and multiplied vector, and 12 per channel, query and key of an attention.
Cross-attention computes keys and values of all T inputs, for N latents; the layers see the latents
only. Masked keys are counted; recomputation is not.
"""

import math
from typing import Any

from flax.traverse_util import flatten_dict

from perceiver_ar.config import PerceiverARConfig


def train_step_flops(params: Any, config: PerceiverARConfig, rows: int, length: int) -> float:
    """Return FLOPs of a training step.

    Args:
      params: the parameter tree of `perceiver_ar.network.PerceiverAR`.
      config: of the network.
      rows: B.
      length: T.
    """
    inputs = min(config.train_input_positions or length, length)
    latents = config.z_index_dim * config.num_latents_per_position
    flat: dict[str, Any] = flatten_dict(dict(params), sep="/")  # type: ignore[assignment]
    per_row = sum(
        6.0 * math.prod(x.shape) * _multiplied_with(name, config, inputs)
        for name, x in flat.items()
        if name.endswith("/kernel")
    )
    crosses = config.include_initial_cross_attention + len(
        config.additional_cross_attend_after_layers
    )
    per_row += 12.0 * crosses * config.cross_attention_width * latents * inputs
    layers = config.num_transformers_per_block
    return rows * (per_row + 12.0 * layers * config.num_z_channels * latents**2)


def _multiplied_with(name: str, config: PerceiverARConfig, inputs: int) -> int:
    """Return how many vectors of a row a kernel is multiplied with."""
    if name.startswith("cross_") and name.split("/")[-2] in ("key", "value"):
        return inputs
    if name.startswith(("initial_queries/", "logits/")):
        return config.z_index_dim
    return config.z_index_dim * config.num_latents_per_position
