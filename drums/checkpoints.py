"""OaF Drums' TensorFlow variables as a model folder.

    python -m drums.checkpoints variables.npz models/oaf-drums

The file holds the variables by their names, as `.npz` or `.safetensors`; with TensorFlow:

    reader = tf.train.load_checkpoint("model.ckpt")
    names = reader.get_variable_to_shape_map()
    np.savez("variables.npz", **{name: reader.get_tensor(name) for name in names})
"""

import argparse
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from drums.features import DrumFeatures
from drums.model_config import ModelConfig
from drums.network import OafDrumsConfig
from musax.pretrained import save_model_folder
from t5x.checkpoints import check_params, load_safetensors
from t5x.checkpoints.npz import load_npz

_STATISTICS = ("moving_mean", "moving_variance")
_LSTM = "lstm/stack_bidirectional_rnn/cell_0/bidirectional_rnn/{}/basic_lstm_cell/"
#: Variables that the reference never uses, and those of its optimizer.
_UNUSED = re.compile(
    r"(frame|offsets|global_step|beta[12]_power|learning_rate)(/|$|_)|.*/(Adam(_1)?|Momentum|ExponentialMovingAverage)$"
)


def our_name(variable: str) -> tuple[str, ...]:
    """Return the path of a variable: collection, then names in the network.

    'onsets/lstm/stack_bidirectional_rnn/cell_0/bidirectional_rnn/fw/basic_lstm_cell/kernel'
    becomes ('params', 'onsets', 'lstm', 'fw', 'kernel').
    """
    for direction in ("fw", "bw"):
        variable = variable.replace(_LSTM.format(direction), f"lstm/{direction}/")
    names = tuple(variable.split("/"))
    return ("batch_stats" if names[-1] in _STATISTICS else "params", *names)


def tf_name(names: tuple[str, ...]) -> str:
    """Return the TensorFlow name of a path; the inverse of `our_name`."""
    variable = "/".join(names[1:])
    return re.sub(r"lstm/(fw|bw)/", lambda match: _LSTM.format(match[1]), variable)


def from_tf_variables(variables: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Return `{"params", "batch_stats"}` of `drums.network.OafDrums` from variables by name.

    Variables of the unused heads and of the optimizer are skipped.
    """
    tree: dict[str, Any] = {}
    for variable, value in variables.items():
        if _UNUSED.match(variable):
            continue
        node = tree
        *path, last = our_name(variable)
        for name in path:
            node = node.setdefault(name, {})
        node[last] = np.asarray(value, np.float32)
    return tree


def read_variables(path: str | Path) -> dict[str, np.ndarray]:
    """Return arrays by name from an `.npz` or `.safetensors` file.

    Raises:
      CheckpointError: neither, or not readable; names the file.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        return _flat(load_safetensors(path)[0])
    return load_npz(path)


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, np.ndarray]:
    found = {}
    for name, value in tree.items():
        inner = isinstance(value, Mapping)
        found |= _flat(value, f"{prefix}{name}/") if inner else {f"{prefix}{name}": value}
    return found


def import_checkpoint(path: str | Path, out_dir: str | Path, hop_width: int = 512) -> Path:
    """Write a model folder from OaF Drums' variables; return its path.

    Args:
      path: see `read_variables`.
      out_dir: where the folder goes.
      hop_width: samples between frames; the released model was trained with 512.

    Raises:
      CheckpointError: variables are missing or of another shape; names them.
    """
    config = ModelConfig(OafDrumsConfig(), DrumFeatures(hop_width=hop_width))
    variables = from_tf_variables(read_variables(path))
    check_params(variables, config.param_shapes(), path)
    card = f"# {Path(out_dir).name}\n\nOaF Drums (Callender et al. 2020), from {Path(path).name}.\n"
    return save_model_folder(out_dir, variables, config.to_json(), card)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("variables", help=".npz or .safetensors file")
    parser.add_argument("out_dir")
    parser.add_argument("--hop-width", type=int, default=512, help="samples; default: 512")
    args = parser.parse_args()
    print(import_checkpoint(args.variables, args.out_dir, args.hop_width))


if __name__ == "__main__":
    main()
