"""What a training step of a transformer costs, by formula.

XLA counts the operations of the compiled step, recomputation included. The formula counts those of
the model, whatever the implementation: 6 operations per weight and token (2 forward, 4 backward),
and 12 * heads * head_dim * (queries * keys) per attention (Chowdhery et al. 2022, "PaLM", appendix
B). Their share of the devices' peak is the model FLOPs utilisation (MFU).
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
from flax.traverse_util import flatten_dict

# Dense bfloat16 FLOP/s of one device, from the makers' data sheets.
_PEAK_FLOPS = {
    "TPU v3": 61.5e12,  # per core
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5p": 459e12,
    "TPU v5": 459e12,
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
    "A100": 312e12,
    "H100": 989e12,
    "H200": 989e12,
    "L4": 121e12,
    "V100": 125e12,
    "T4": 65e12,
}


def train_step_flops(params: Any, config: Any, batch: Mapping[str, Any]) -> float | None:
    """FLOPs of one training step on `batch`, or None if this is not a transformer over tokens.

    Args:
      params: the parameter tree; names as in T5 (`encoder/`, `decoder/`, `token_embedder/`).
      config: of the network, with `num_heads`, `head_dim` and numbers of layers.
      batch: name -> array or `jax.ShapeDtypeStruct`, [B, L].
    """
    shapes = {name: tuple(x.shape) for name, x in batch.items()}
    target = shapes.get("decoder_input_tokens", ())
    source = shapes.get("encoder_input_tokens")
    known = hasattr(config, "num_heads") and hasattr(config, "head_dim")
    if not known or len(target) != 2 or (source is not None and len(source) != 2):
        return None
    rows, length = target
    inputs = source[1] if source else 0
    tokens = {"encoder": rows * inputs, "decoder": rows * length}
    tied = bool(getattr(config, "logits_via_embedding", False))
    flops = sum(
        6.0 * math.prod(x.shape) * _tokens_through(name, tokens, tied)
        for name, x in flatten_dict(dict(params), sep="/").items()
        if len(x.shape) > 1
    )
    return flops + rows * _attention_flops(config, length, inputs)


def _tokens_through(name: str, tokens: Mapping[str, int], tied: bool) -> int:
    """How many tokens a weight is multiplied with."""
    if "relpos_bias" in name or name.endswith("/scale"):
        return 0
    if "token_embedder/" in name:
        return tokens["decoder"] if tied else 0  # looking up costs nothing
    if name.startswith("encoder/"):
        return tokens["encoder"]
    cross = "encoder_decoder_attention/" in name and name.split("/")[-2] in ("key", "value")
    return tokens["encoder"] if cross else tokens["decoder"]


def _attention_flops(config: Any, length: int, inputs: int) -> float:
    """Products of queries with keys, and of probabilities with values, for one row."""
    decoder = getattr(config, "num_decoder_layers", getattr(config, "num_layers", 0))
    encoder = getattr(config, "num_encoder_layers", 0) if inputs else 0
    pairs = encoder * inputs**2 + decoder * (length**2 + length * inputs)
    return 12.0 * config.num_heads * config.head_dim * pairs


def peak_flops() -> float | None:
    """Peak FLOP/s of all devices together, or None where it is not known (as for CPUs)."""
    kind = jax.devices()[0].device_kind
    matching = [name for name in _PEAK_FLOPS if name in kind]
    if not matching:
        return None
    return _PEAK_FLOPS[max(matching, key=len)] * jax.device_count()
