"""Conversion of the reference implementation's parameters to ours.

    python -m perceiver_ar.checkpoints params.npz config.json params.safetensors

where `config.json` has the values of a `PerceiverARConfig` that differ from its defaults.
The reference's parameters (haiku) are arrays by module and name. A file of them has one array each,
called `<module>:<name>`, such as `perceiver_ar/~/cross_attention/attention/linear_1:w`:

    flat = {f"{module}:{name}": w for module, ws in params.items() for name, w in ws.items()}
    np.savez("params.npz", **flat)
"""

import argparse
import dataclasses
import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from perceiver_ar.config import PerceiverARConfig
from perceiver_ar.network import PerceiverAR
from t5x.checkpoints import CheckpointError, load_safetensors, save_safetensors
from t5x.checkpoints.npz import load_npz

_LINEAR = {"kernel": "w", "bias": "b"}
_NORM = {"scale": "scale", "bias": "offset"}
_ATTENTION = ("query", "key", "value", "out")
type Names = tuple[str, ...]


def _numbered(name: str, number: int) -> str:
    return f"{name}_{number}" if number else name


def _block(ours: str, theirs: str, norms: tuple[str, ...]) -> dict[Names, str]:
    """Return names of one cross- or self-attention block; norms are numbered in the given order."""
    names = {}
    for number, norm in enumerate(norms):
        for a, b in _NORM.items():
            names[ours, norm, a] = f"{theirs}/{_numbered('layer_norm', number)}:{b}"
    for number, part in enumerate(_ATTENTION):
        for a, b in _LINEAR.items():
            name = f"{theirs}/attention/{_numbered('linear', number)}:{b}"
            names[ours, "attention", part, a] = name
    for number, part in enumerate(("wi", "wo")):
        for a, b in _LINEAR.items():
            names[ours, "mlp", part, a] = f"{theirs}/dense/{_numbered('linear', number)}:{b}"
    return names


def haiku_names(config: PerceiverARConfig) -> dict[Names, str]:
    """Return the reference's names of our parameters, without scanned layers.

    Raises:
      CheckpointError: the reference's names of some parameters are not known.
    """
    if config.initial_query_embed_style == "learned" or config.num_latents_per_position > 1:
        raise CheckpointError(
            "initial_query_embed_style='learned' and num_latents_per_position > 1 have parameters "
            "whose names in the reference are not known; give them by our names"
        )
    root = "perceiver_ar/~"
    names: dict[Names, str] = {("token_embed", "embedding"): f"{root}/embed:embeddings"}
    if not config.rotary:
        for i in range(len(config.input_idx_size)):
            name = f"{root}/embed_{i + 1}:embeddings"
            names["position_embed", f"embedding_{i}"] = name
    mlp = config.initial_query_embed_style == "mlp"
    linears = ("mlp_0", "mlp_1", "linear") if mlp else ("linear",)
    for number, ours in enumerate(linears):
        for a, b in _LINEAR.items():
            names["initial_queries", ours, a] = f"{root}/{_numbered('linear', number)}:{b}"
    crosses = ["cross_attention"] if config.include_initial_cross_attention else []
    crosses += [f"cross_after_{i}" for i in range(len(config.additional_cross_attend_after_layers))]
    for number, ours in enumerate(crosses):
        theirs = f"{root}/{_numbered('cross_attention', number)}"
        names |= _block(ours, theirs, ("query_norm", "input_norm", "mlp_norm"))
    for number in range(config.num_transformers_per_block):
        theirs = f"{root}/{_numbered('self_attention', number)}"
        names |= _block(f"layers_{number}", theirs, ("attention_norm", "mlp_norm"))
    for a, b in _NORM.items():
        names["final_norm", a] = f"perceiver_ar/layer_norm:{b}"
    for a, b in _LINEAR.items():
        names["logits", a] = f"{root}/logits:{b}"
    return names


def flatten_haiku(params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return {"module:name": array} of Haiku's {module: {name: array}}; keep such a dict."""
    flat = {}
    for module, value in params.items():
        if isinstance(value, Mapping):
            flat |= {f"{module}:{name}": np.asarray(array) for name, array in value.items()}
        else:
            flat[module] = np.asarray(value)
    return flat


def read_haiku(path: str | Path) -> dict[str, np.ndarray]:
    """Read the reference's parameters in an `.npz` or `.safetensors` file.

    Raises:
      CheckpointError: it is neither, or not readable; names the file.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        flat = flatten_dict(load_safetensors(path)[0], sep="/")
        return {str(name): np.asarray(value) for name, value in flat.items()}
    return load_npz(path)


def from_haiku(params: Mapping[str, Any], config: PerceiverARConfig) -> dict[str, Any]:
    """Convert the reference's parameters to a tree of `perceiver_ar.network.PerceiverAR`.

    Args:
      params: see `flatten_haiku`.
      config: of the network.

    Raises:
      CheckpointError: a parameter is missing, left over, or of another shape; names all of them.
    """
    given = flatten_haiku(params)
    names = haiku_names(config)
    shapes = _shapes(config)
    problems = [f"missing: {name}" for name in names.values() if name not in given]
    problems += [f"left over: {name}" for name in sorted(given.keys() - set(names.values()))]
    for ours, name in names.items():
        if name in given and given[name].shape != shapes[ours]:
            problems.append(f"{name} is {given[name].shape}, expected {shapes[ours]}")
    if problems:
        raise CheckpointError(
            "the parameters do not fit the configuration:\n  "
            + "\n  ".join(problems)
            + "\nchange the configuration (layers, widths, positions, query style) to theirs"
        )
    tree = unflatten_dict({ours: np.asarray(given[name]) for ours, name in names.items()})
    return stack_layers(tree, config) if config.scan_layers else tree


def to_haiku(params: Mapping[str, Any], config: PerceiverARConfig) -> dict[str, np.ndarray]:
    """Convert back to {"module:name": array}, the inverse of `from_haiku`."""
    flat = flatten_dict(unstack_layers(params, config))
    return {name: np.asarray(flat[ours]) for ours, name in haiku_names(config).items()}


def _shapes(config: PerceiverARConfig) -> dict[Names, tuple[int, ...]]:
    """Return shapes of our parameters without scanned layers."""
    module = PerceiverAR(dataclasses.replace(config, scan_layers=False))
    tokens = jnp.ones((1, config.max_context_length), jnp.int32)
    coordinates = 1 if config.rotary else len(config.input_idx_size)
    positions = jnp.ones((*tokens.shape, coordinates), jnp.int32)
    init = jax.eval_shape(module.init, jax.random.PRNGKey(0), tokens, positions)
    flat: dict[Any, Any] = flatten_dict(dict(init["params"]))  # type: ignore[assignment]
    return {path: value.shape for path, value in flat.items()}


#: Axis of the layers in scanned parameters, the default of `t5x.layers.stacks`.
_SCAN_AXIS = 1


def stack_layers(params: Mapping[str, Any], config: PerceiverARConfig) -> dict[str, Any]:
    """Stack parameters `layers_0`, `layers_1`, ... as those of scanned layers."""
    layers = [params[f"layers_{i}"] for i in range(config.num_transformers_per_block)]
    rest = {k: v for k, v in params.items() if not k.startswith("layers_")}
    stacked = jax.tree.map(lambda *each: jnp.stack(each, axis=_SCAN_AXIS), *layers)
    return {**rest, "self_attention": stacked}


def unstack_layers(params: Mapping[str, Any], config: PerceiverARConfig) -> dict[str, Any]:
    """Undo `stack_layers`; return parameters that are not scanned unchanged."""
    if not config.scan_layers:
        return dict(params)
    rest = {k: v for k, v in params.items() if k != "self_attention"}
    for i in range(config.num_transformers_per_block):
        layer = functools.partial(jnp.take, indices=i, axis=_SCAN_AXIS)
        rest[f"layers_{i}"] = jax.tree.map(layer, params["self_attention"])
    return rest


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("params", help=".npz or .safetensors file of the reference's parameters")
    parser.add_argument("config", help="JSON file of the configuration they belong to")
    parser.add_argument("out", help="safetensors file to write, parameters by our names")
    args = parser.parse_args()
    config = PerceiverARConfig(**json.loads(Path(args.config).read_text()))
    save_safetensors(args.out, from_haiku(read_haiku(args.params), config))


if __name__ == "__main__":
    main()
