"""Run an exported model without its code: `python -m t5x.run_exported FOLDER --inputs FILE`.

    model = ExportedModel("exported/my_model")
    model("predict", {"encoder_input_tokens": tokens})["prediction"]

Needs jax, numpy and safetensors, and nothing else of this distribution: the file can be copied
beside an exported folder. The folder holds `signature.json` (names, shapes and types of what goes
in and out, and the vocabularies), `<function>.bin` (made by `jax.export`), the same function as
`<function>.stablehlo` for other runtimes, and the parameters as `params.safetensors`, unless they
are inside the functions.

Inputs are a `.npz` of arrays, or a `.jsonl` with one example a line: model features as in the
signature or, for encoder-decoder models, `inputs` (and, to score, `targets`) as text or ids. Inputs
that the function does not read may be left out.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

FORMAT = 1
BATCH = "batch"
Arrays = dict[str, np.ndarray]


class ExportedModel:
    """The functions of an exported folder.

    Args:
      folder: made by `t5x.export`.

    Attributes:
      signature: `signature.json`, see `docs`.

    Raises:
      ValueError: no such folder, or one of another format.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        file = self.folder / "signature.json"
        if not file.is_file():
            raise ValueError(
                f"{file}: no such file; FOLDER must be a folder written by t5x.export."
            )
        try:
            self.signature: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{file}: not JSON ({error}).") from error
        found = self.signature.get("format") if isinstance(self.signature, dict) else None
        if found != FORMAT:
            raise ValueError(f"{file}: format {found}, but this reads {FORMAT}.")
        _check_signature(self.signature, file)
        self._functions: dict[str, Any] = {}
        self._params: dict[str, jax.Array] | None = None

    @property
    def functions(self) -> list[str]:
        """Names of the functions, such as "predict" and "score"."""
        return sorted(self.signature["functions"])

    @property
    def params(self) -> dict[str, jax.Array]:
        """'/'-joined name -> parameter; empty if they are inside the functions."""
        if self._params is None:
            name = self.signature["params_file"]
            self._params = {} if name is None else _read_safetensors(_inside(self.folder, name))
        return self._params

    def _function(self, name: str) -> Any:
        if name not in self.signature["functions"]:
            raise ValueError(f"{self.folder}: no function {name!r}, only {self.functions}.")
        if name not in self._functions:
            file = _inside(self.folder, self.signature["functions"][name]["file"])
            exported = jax.export.deserialize(bytearray(file.read_bytes()))
            platform = jax.default_backend()
            known = {"gpu": ("cuda", "rocm")}.get(platform, (platform,))
            if not set(known) & set(exported.platforms):
                raise ValueError(
                    f"{file}: exported for {list(exported.platforms)}, but this machine computes "
                    f"on {platform}; export with native_lowering_platforms=['{known[0]}']."
                )
            self._functions[name] = jax.jit(exported.call)
        return self._functions[name]

    def __call__(self, name: str, inputs: Mapping[str, Any], seed: int = 0) -> Arrays:
        """Run function `name` on any number of rows.

        Args:
          name: one of `functions`.
          inputs: model features [rows, ...] as in the signature; those marked optional may be
            left out. With a fixed batch size, rows are cut into batches, the last filled up.
          seed: of sampling.

        Returns:
          name -> array [rows, ...].

        Raises:
          ValueError: an unknown name, or an array that is missing or of another shape.
        """
        function = self._function(name)
        arrays = self._checked(name, inputs)
        size = self.signature["batch_size"]
        rows = len(next(iter(arrays.values())))
        outputs = []
        for start in range(0, rows, size or rows):
            part = {key: x[start : start + (size or rows)] for key, x in arrays.items()}
            count = len(next(iter(part.values())))
            part = {key: _filled(x, size or rows) for key, x in part.items()}
            output = jax.device_get(function(self.params, part, np.uint32(seed)))
            outputs.append({key: np.asarray(x)[:count] for key, x in output.items()})
        return {key: np.concatenate([x[key] for x in outputs]) for key in outputs[0]}

    def _checked(self, name: str, inputs: Mapping[str, Any]) -> Arrays:
        specs = self.signature["functions"][name]["inputs"]
        unknown = sorted(set(inputs) - set(specs))
        if unknown:
            raise ValueError(f"{name}: no inputs {unknown}; there are {sorted(specs)}.")
        missing = [n for n, spec in specs.items() if n not in inputs and not spec["optional"]]
        if missing or not inputs:
            raise ValueError(f"{name}: missing inputs {missing}; given are {sorted(inputs)}.")
        rows = len(next(iter(inputs.values())))
        if not rows:
            raise ValueError(f"{name}: no rows.")
        arrays = {}
        for key, spec in specs.items():
            shape = (rows, *spec["shape"][1:])
            array = np.asarray(inputs[key]) if key in inputs else np.zeros(shape, spec["dtype"])
            if array.shape != shape:
                raise ValueError(f"{name}: {key} has shape {array.shape}, expected {shape}.")
            arrays[key] = array.astype(spec["dtype"])
        return arrays

    def model_features(self, examples: Sequence[Mapping[str, Any]]) -> Arrays:
        """Examples with `inputs` and perhaps `targets` (text or ids) as model features.

        Raises:
          ValueError: the model has no such features, or a text needs another program to encode.
        """
        tasks = self.signature["task_features"]
        if not tasks or "inputs" not in tasks:
            raise ValueError("this model takes model features only: see signature.json, `inputs`.")
        batch = {"encoder_input_tokens": self._rows(tasks["inputs"], examples, "inputs")}
        if all("targets" in example for example in examples):
            targets = self._rows(tasks["targets"], examples, "targets")
            batch["decoder_target_tokens"] = targets
            batch["decoder_input_tokens"] = np.pad(targets, ((0, 0), (1, 0)))[:, :-1]
            batch["decoder_loss_weights"] = (targets != 0).astype(np.int32)
        return batch

    def _rows(self, feature: Mapping[str, Any], examples: Sequence[Any], name: str) -> np.ndarray:
        length, vocabulary = feature["length"], feature["vocabulary"]
        rows = np.zeros((len(examples), length), np.int32)
        for row, example in zip(rows, examples):
            value = example[name]
            if isinstance(value, str):
                ids = list(_encode(value, vocabulary, self.folder))
                if feature["add_eos"]:
                    ids = [*ids[: length - 1], vocabulary["eos_id"]]
            else:
                ids = list(value)
            if len(ids) > length:
                raise ValueError(f"{name} has {len(ids)} ids, but the model takes {length}.")
            row[: len(ids)] = ids
        return rows

    def text(self, prediction: np.ndarray) -> Any:
        """Predicted ids as text, where the vocabulary is known here; otherwise as a list."""
        feature = (self.signature["task_features"] or {}).get("targets")
        if prediction.dtype.kind not in "iu" or feature is None:
            return prediction.tolist()
        if prediction.ndim > 1:
            return [self.text(one) for one in prediction]
        return _decode(prediction.tolist(), feature["vocabulary"], self.folder)


def _check_signature(signature: Mapping[str, Any], file: Path) -> None:
    """Raise ValueError for a signature that lacks a field, or has one of another kind."""
    kinds = {"functions": dict, "params_file": str | None, "batch_size": int | None}
    for name, kind in {**kinds, "task_features": dict | None}.items():
        if name not in signature or not isinstance(signature[name], kind):
            raise ValueError(f"{file}: {name} is missing or of another kind; export again.")
    for name, function in signature["functions"].items():
        fields = function if isinstance(function, dict) else {}
        if not isinstance(fields.get("inputs"), dict) or "file" not in fields:
            raise ValueError(f"{file}: functions.{name} lacks its file or inputs; export again.")


def _inside(folder: Path, name: Any) -> Path:
    """Return the file of a name in `folder`; ValueError for a path that leads elsewhere."""
    if not isinstance(name, str) or not name or Path(name).name != name or name == "..":
        raise ValueError(f"{folder}/signature.json: {name!r} is no name of a file in the folder.")
    return folder / name


def _filled(x: np.ndarray, rows: int) -> np.ndarray:
    return np.concatenate([x, np.zeros((rows - len(x), *x.shape[1:]), x.dtype)])


def _read_safetensors(path: Path) -> dict[str, jax.Array]:
    import safetensors  # its front ends for arrays lack bfloat16, or import flax

    names = {"F32": np.float32, "BF16": jnp.bfloat16, "F16": np.float16, "I32": np.int32}
    try:
        return {
            name: jnp.asarray(np.frombuffer(x["data"], names[x["dtype"]]).reshape(x["shape"]))
            for name, x in safetensors.deserialize(path.read_bytes())
        }
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise ValueError(f"{path}: not a whole .safetensors file ({error}).") from error


# ---------------------------------------------------------------------- vocabularies

_FIRST_BYTE = 3


def _encode(text: str, vocabulary: Mapping[str, Any], folder: Path) -> list[int]:
    if vocabulary["kind"] == "byte":
        return [byte + _FIRST_BYTE for byte in text.encode("utf-8")]
    if vocabulary["kind"] == "sentencepiece":
        return _sentencepiece(vocabulary, folder).EncodeAsIds(text)
    raise ValueError(f"the vocabulary ({vocabulary['kind']}) cannot encode text here; give ids.")


def _decode(ids: Sequence[int], vocabulary: Mapping[str, Any], folder: Path) -> Any:
    eos = vocabulary["eos_id"]
    if eos in ids:
        ids = ids[: ids.index(eos)]
    if vocabulary["kind"] == "byte":
        values = [i - _FIRST_BYTE for i in ids]
        return bytes(i for i in values if 0 <= i < 256).decode("utf-8", errors="ignore")
    if vocabulary["kind"] == "sentencepiece":
        pieces = _sentencepiece(vocabulary, folder)
        size = pieces.GetPieceSize()
        return pieces.DecodeIds([i if i < size else pieces.unk_id() for i in ids])
    return list(ids)


def _sentencepiece(vocabulary: Mapping[str, Any], folder: Path) -> Any:
    try:
        from sentencepiece import SentencePieceProcessor
    except ImportError as error:
        raise ValueError(
            f"text needs sentencepiece ({error}): pip install sentencepiece, or give ids."
        ) from error
    return SentencePieceProcessor(model_file=str(_inside(folder, vocabulary["file"])))


# ---------------------------------------------------------------------- command line


def read_inputs(path: str | Path, model: ExportedModel) -> Arrays:
    """Model features from a `.npz` or `.jsonl` file.

    Raises:
      ValueError: naming the file, and the line that does not fit.
    """
    path = Path(path)
    if path.suffix == ".npz":
        with np.load(path) as file:
            return {name: file[name] for name in file.files}
    if path.suffix != ".jsonl":
        raise ValueError(f"{path}: expected a .npz or .jsonl file.")
    examples = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if line.strip():
            try:
                examples.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise ValueError(f"{path}:{number}: not JSON ({error})") from error
    if not examples:
        raise ValueError(f"{path}: no examples.")
    if "inputs" in examples[0]:
        return model.model_features(examples)
    names = set(examples[0])
    if any(set(example) != names for example in examples):
        raise ValueError(f"{path}: the lines do not all have the features {sorted(names)}.")
    return {name: np.asarray([example[name] for example in examples]) for name in names}


def lines_of(model: ExportedModel, outputs: Arrays) -> Iterator[dict[str, Any]]:
    """One JSON object a row: predictions as text where possible, other outputs as they are."""
    for row in range(len(next(iter(outputs.values())))):
        yield {
            name: model.text(x[row]) if name == "prediction" else x[row].tolist()
            for name, x in outputs.items()
        }


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m t5x.run_exported",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", metavar="FOLDER")
    parser.add_argument(
        "--inputs", metavar="FILE", help=".npz or .jsonl file; without it, print the signature"
    )
    parser.add_argument("--function", default="predict", help="exported function: predict or score")
    parser.add_argument(
        "--output", metavar="FILE", help=".npz or .jsonl file; default: standard output"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of sampling")
    args = parser.parse_args(argv)
    try:
        model = ExportedModel(args.folder)
        if args.inputs is None:
            print(json.dumps(model.signature, indent=2))
            return 0
        outputs = model(args.function, read_inputs(args.inputs, model), args.seed)
        _write(model, outputs, args.output)
    except (ValueError, OSError) as error:
        print(f"t5x.run_exported: {error}", file=sys.stderr)
        return 2
    return 0


def _write(model: ExportedModel, outputs: Arrays, file: str | None) -> None:
    if file is not None and file.endswith(".npz"):
        np.savez(file, **dict[str, Any](outputs))
        return
    text = "".join(json.dumps(x, ensure_ascii=False) + "\n" for x in lines_of(model, outputs))
    if file is None:
        print(text, end="")
    else:
        Path(file).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
