"""T5 from and to the names of Hugging Face `transformers`: T5 1.0 and 1.1, mT5, ByT5, umT5.

    params, fields = load_hugging_face("t5-v1_1-small")     # a folder, as downloaded
    module = network.Transformer(network.T5Config(**fields))
    save_hugging_face("exported", params, config)           # config.json and model.safetensors

`transformers` keeps kernels as (outputs, inputs), the transpose of ours, and the table of relative
positions as (buckets, heads) in the first block; umT5, like `t5x.examples.scalable_t5` with
scan_layers=False, has one in every block. T5 1.0 ties its logits to the embedding (and scales them
by 1 / sqrt(E), as we do): it has no `lm_head.weight` of its own.
"""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax import traverse_util

from t5x.checkpoints.errors import CheckpointError
from t5x.checkpoints.safetensors import load_safetensors, save_safetensors
from t5x.checkpoints.sizes import read_bytes
from t5x.files import write_json

Tree = Any

_WEIGHTS = "model.safetensors"
_LARGEST_JSON = 2**26
_KERNELS = {
    "attention": {"query": "q", "key": "k", "value": "v", "out": "o"},
    "mlp": {"wi": "wi", "wo": "wo"},
    "gated mlp": {"wi_0": "wi_0", "wi_1": "wi_1", "wo": "wo"},
}
#: (our name, their name, the name of our norm) of the sublayers of a layer, in their order.
_SUBLAYERS = {
    "encoder": (
        ("attention", "SelfAttention", "pre_attention_layer_norm"),
        ("mlp", "DenseReluDense", "pre_mlp_layer_norm"),
    ),
    "decoder": (
        ("self_attention", "SelfAttention", "pre_self_attention_layer_norm"),
        ("encoder_decoder_attention", "EncDecAttention", "pre_cross_attention_layer_norm"),
        ("mlp", "DenseReluDense", "pre_mlp_layer_norm"),
    ),
}
#: `feed_forward_proj` by our `mlp_activations`. Their gated "gelu" is the tanh form, as ours is.
_FEED_FORWARD = {
    ("relu",): "relu",
    ("relu", "linear"): "gated-relu",
    ("gelu", "linear"): "gated-gelu",
    ("silu", "linear"): "gated-silu",
}
_CONFIG_FIELDS = {
    "vocab_size": "vocab_size",
    "emb_dim": "d_model",
    "num_heads": "num_heads",
    "num_encoder_layers": "num_layers",
    "num_decoder_layers": "num_decoder_layers",
    "head_dim": "d_kv",
    "mlp_dim": "d_ff",
    "dropout_rate": "dropout_rate",
    "logits_via_embedding": "tie_word_embeddings",
}
#: What our networks take for granted, and `transformers` assumes where it is not named.
_FIXED = {
    "relative_attention_num_buckets": 32,
    "relative_attention_max_distance": 128,
    "layer_norm_epsilon": 1e-6,
}


def to_hugging_face(params: Mapping[str, Tree]) -> dict[str, np.ndarray]:
    """The state dict of a `T5ForConditionalGeneration` from parameters of a T5.

    Raises:
      CheckpointError: the parameters are not those of `t5x.examples.t5` (scanned ones: see
        `t5x.checkpoints.unscan_params`); says which are missing or unknown.
    """
    ours = traverse_util.flatten_dict(dict(params), sep="/")
    names = _names(
        {s: _count(ours, f"{s}/layers_", "/") for s in _SUBLAYERS},
        gated="encoder/layers_0/mlp/wi_0/kernel" in ours,
        tied="decoder/logits_dense/kernel" not in ours,
        own_positions="encoder/layers_0/relpos_bias/rel_embedding" in ours,
    )
    _require(ours, names, "These are not the parameters of a T5 that does not scan its layers")
    return {theirs: _transpose(ours[name], name) for name, theirs in names.items()}


def from_hugging_face(state_dict: Mapping[str, Any]) -> dict[str, Tree]:
    """Parameters of `t5x.examples.t5` from the state dict of a `T5ForConditionalGeneration`.

    Args:
      state_dict: {name: array}. `lm_head` and the two `embed_tokens` may be copies of `shared`.

    Raises:
      CheckpointError: names are missing or unknown, or a table of embeddings differs.
    """
    theirs = _without_copies({k: np.asarray(v) for k, v in state_dict.items()})
    first = "block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    names = _names(
        {s: _count(theirs, f"{s}.block.", ".") for s in _SUBLAYERS},
        gated="encoder.block.0.layer.1.DenseReluDense.wi_0.weight" in theirs,
        tied="lm_head.weight" not in theirs,
        own_positions=f"encoder.{first.replace('block.0', 'block.1')}" in theirs,
    )
    _require(theirs, names.values(), "This is not the state dict of a T5ForConditionalGeneration")
    flat = {ours: _transpose(theirs[name], ours) for ours, name in names.items()}
    return traverse_util.unflatten_dict(flat, sep="/")


def _names(
    depth: Mapping[str, int], *, gated: bool, tied: bool, own_positions: bool
) -> dict[str, str]:
    """{our name: their name} of every parameter."""
    names = {"token_embedder/embedding": "shared.weight"}
    if not tied:
        names["decoder/logits_dense/kernel"] = "lm_head.weight"
    for stack, sublayers in _SUBLAYERS.items():
        names[f"{stack}/{stack}_norm/scale"] = f"{stack}.final_layer_norm.weight"
        for i in range(depth[stack]):
            ours, theirs = f"{stack}/layers_{i}", f"{stack}.block.{i}.layer"
            if own_positions or i == 0:
                table = f"{ours if own_positions else stack}/relpos_bias/rel_embedding"
                names[table] = f"{theirs}.0.SelfAttention.relative_attention_bias.weight"
            for j, (our_part, their_part, norm) in enumerate(sublayers):
                names[f"{ours}/{norm}/scale"] = f"{theirs}.{j}.layer_norm.weight"
                kind = ("gated mlp" if gated else "mlp") if our_part == "mlp" else "attention"
                for our_kernel, their_kernel in _KERNELS[kind].items():
                    name = f"{theirs}.{j}.{their_part}.{their_kernel}.weight"
                    names[f"{ours}/{our_part}/{our_kernel}/kernel"] = name
    return names


def _count(names: Collection[str], prefix: str, end: str) -> int:
    """How many numbers follow `prefix`: the depth of a stack."""
    rests = (name.removeprefix(prefix) for name in names if name.startswith(prefix))
    return len({rest.partition(end)[0] for rest in rests})


def _require(found: Collection[str], expected: Collection[str], what: str) -> None:
    missing, unknown = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    if missing or unknown:
        raise CheckpointError(
            f"{what}: {len(missing)} are missing {missing[:5]}, {len(unknown)} are unknown "
            f"{unknown[:5]}."
        )


def _transpose(array: Any, our_name: str) -> np.ndarray:
    """Kernels and tables of positions lie the other way; embeddings and norms do not."""
    array = np.asarray(array)
    turned = our_name.endswith(("/kernel", "/rel_embedding"))
    return np.ascontiguousarray(array.T) if turned else array


def _without_copies(theirs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Leave out the tables which only repeat `shared.weight`."""
    theirs = dict(theirs)
    copies = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight")
    for name in copies[:2]:
        if name in theirs:
            theirs.setdefault("shared.weight", theirs[name])
    shared = theirs.get("shared.weight")
    for name in copies:
        if name not in theirs:
            continue
        if shared is not None and np.array_equal(theirs[name], shared):
            del theirs[name]
        elif name != "lm_head.weight":
            raise CheckpointError(
                f"{name} differs from shared.weight; t5x.examples.t5 has one embedding."
            )
    return theirs


def config_from_hugging_face(config: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of `T5Config` from the content of a `config.json`.

    Raises:
      CheckpointError: another kind of model, or an option that our networks do not have.
    """
    kind = config.get("model_type")
    if kind not in ("t5", "mt5", "umt5"):
        raise CheckpointError(f"config.json: model_type {kind!r} is not t5, mt5 or umt5.")
    for name, value in _FIXED.items():
        if config.get(name, value) != value:
            raise CheckpointError(
                f"config.json: {name}={config[name]}; t5x.examples.t5 has {value}."
            )
    activations = {v: k for k, v in _FEED_FORWARD.items()}
    projection = config.get("feed_forward_proj", "relu")
    if projection not in activations:
        known = ", ".join(activations)
        raise CheckpointError(f"config.json: feed_forward_proj={projection!r} is not in {known}.")
    given = {"tie_word_embeddings": True, "dropout_rate": 0.1, **config}
    given.setdefault("num_decoder_layers", given.get("num_layers"))
    absent = sorted(set(_CONFIG_FIELDS.values()) - set(given))
    if absent:
        raise CheckpointError(f"config.json: lacks {', '.join(absent)}.")
    fields = {ours: given[theirs] for ours, theirs in _CONFIG_FIELDS.items()}
    return {**fields, "mlp_activations": activations[projection]}


def config_to_hugging_face(config: Any) -> dict[str, Any]:
    """The content of a `config.json` from a `T5Config`.

    Raises:
      CheckpointError: activations which `transformers` has no name for.
    """
    activations = tuple(config.mlp_activations)
    if activations not in _FEED_FORWARD:
        known = list(_FEED_FORWARD)
        raise CheckpointError(f"mlp_activations={activations} is not one of {known}.")
    return {
        "architectures": ["T5ForConditionalGeneration"],
        "model_type": "t5",
        "is_encoder_decoder": True,
        **{theirs: getattr(config, ours) for ours, theirs in _CONFIG_FIELDS.items()},
        "feed_forward_proj": _FEED_FORWARD[activations],
        **_FIXED,
        "initializer_factor": 1.0,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "decoder_start_token_id": 0,
    }


def load_hugging_face(folder: str | Path) -> tuple[dict[str, Tree], dict[str, Any]]:
    """Read `config.json` and the `.safetensors` files of a folder.

    Returns:
      (parameters of `t5x.examples.t5`, fields of its `T5Config`).

    Raises:
      CheckpointError: a file is absent (pickled `.bin` files are not read) or does not fit.
    """
    folder = Path(folder)
    fields = config_from_hugging_face(_read_json(folder / "config.json"))
    files = [folder / _WEIGHTS]
    index = folder / f"{_WEIGHTS}.index.json"
    if index.exists():
        files = [_beside(index, name) for name in sorted(set(_weight_map(index).values()))]
    if not files[0].exists():
        raise CheckpointError(
            f"{folder}: has no {_WEIGHTS}. Pickled weights (.bin) are not read: save the model "
            "with safe_serialization=True in transformers."
        )
    state_dict = {}
    for file in files:
        state_dict.update(load_safetensors(file)[0])
    return from_hugging_face(state_dict), fields


def save_hugging_face(folder: str | Path, params: Mapping[str, Tree], config: Any) -> None:
    """Write a folder that `T5ForConditionalGeneration.from_pretrained` opens.

    Args:
      folder: made if absent; what it has of these files is replaced.
      params: parameters of `t5x.examples.t5`.
      config: its `T5Config`.

    Raises:
      CheckpointError: see `to_hugging_face` and `config_to_hugging_face`.
    """
    folder = Path(folder)
    content = config_to_hugging_face(config)
    if any("relpos_bias" in layer for layer in params["encoder"].values()):
        content |= {"architectures": ["UMT5ForConditionalGeneration"], "model_type": "umt5"}
    save_safetensors(folder / _WEIGHTS, to_hugging_face(params), {"format": "pt"})
    write_json(folder / "config.json", content)


def _weight_map(index: Path) -> Mapping[str, str]:
    names = _read_json(index).get("weight_map")
    if not isinstance(names, Mapping) or not all(isinstance(n, str) for n in names.values()):
        raise CheckpointError(f"{index}: weight_map is no object of file names.")
    return names


def _beside(index: Path, name: str) -> Path:
    """The file of a name in the index's folder; a link may lead on, as in a cache of downloads."""
    if Path(name).name != name or name == "..":
        raise CheckpointError(f"{index}: {name!r} is no name of a file in the same folder.")
    return index.with_name(name)


def _read_json(path: Path) -> dict[str, Any]:
    data = read_bytes(path, _LARGEST_JSON, "the file")
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not JSON ({error}).") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds {type(content).__name__}, expected an object.")
    return content
