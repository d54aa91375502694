"""Model folders: the models that ship with musax, and those made by training.

A model folder holds `model.safetensors` (parameters), `config.json` (`"system"` names the package
that runs it) and `README.md` (the model card). A model is asked for by name or by folder:

    load("mt3-piano-tiny").transcribe(audio, sample_rate)

Shipped models lie in `pretrained/` of a checkout or in `musax/_pretrained` of an installed wheel;
`$MUSAX_PRETRAINED` may name more folders of models (separated as in PATH), which come first.
"""

import contextlib
import dataclasses
import difflib
import importlib
import json
import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CONFIG_NAME = "config.json"
PARAMS_NAME = "model.safetensors"
README_NAME = "README.md"
MODEL_FILES = (PARAMS_NAME, README_NAME, CONFIG_NAME)

#: The class that runs the models of a system, as "module:attribute"; its `from_pretrained(folder)`
#: returns the model. Packages are imported only when one of their models is loaded.
SYSTEMS = {
    "mt3": "mt3.inference:Transcriber",
    "drums": "drums.inference:Transcriber",
    "perceiver_ar": "perceiver_ar.inference:Composer",
    "cdcd": "cdcd.inference:Writer",
}


class PretrainedError(ValueError):
    """A model is unknown, or its folder is incomplete or damaged."""


@dataclasses.dataclass(frozen=True)
class ModelInfo:
    """A model folder: its name, path, the system that runs it, and its card's first sentence."""

    name: str
    path: Path
    system: str
    summary: str


# ---------------------------------------------------------------------------------------- finding


def model_folders() -> list[Path]:
    """Folders that are searched for models, existing or not."""
    extra = [name for name in os.environ.get("MUSAX_PRETRAINED", "").split(os.pathsep) if name]
    package = Path(__file__).resolve().parent
    shipped = [package.parent / "pretrained", package / "_pretrained"]
    return [Path(name).expanduser() for name in extra] + shipped


def list_models() -> list[ModelInfo]:
    """The models that can be asked for by name, in alphabetical order."""
    found: dict[str, ModelInfo] = {}
    for folder in model_folders():
        for config in sorted(folder.glob(f"*/{CONFIG_NAME}")):
            found.setdefault(config.parent.name, _describe(config.parent))
    return [found[name] for name in sorted(found)]


def _describe(folder: Path) -> ModelInfo:
    try:
        system = str(read_config(folder).get("system", "?"))
    except PretrainedError:
        system = "?"
    return ModelInfo(folder.name, folder, system, _summary(folder / README_NAME))


def _summary(readme: Path) -> str:
    """First line of text below the title."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        for line in readme.read_text(encoding="utf-8").splitlines():
            if line.strip() and not line.startswith(("#", "---", "<", "|", "!")):
                return line.strip()
    return ""


def resolve(name_or_dir: str | os.PathLike) -> Path:
    """The folder or file of a model.

    Args:
      name_or_dir: the name of a listed model, or any path that exists.

    Raises:
      PretrainedError: there is no such model; the message lists the known ones.
    """
    text = os.fspath(name_or_dir)
    for folder in model_folders():
        if text and Path(text).name == text and (folder / text / CONFIG_NAME).is_file():
            return folder / text
    path = Path(text).expanduser()
    if text and path.exists():
        return path
    known = [model.name for model in list_models()]
    close = difflib.get_close_matches(text, known, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else "."
    raise PretrainedError(
        f"{text!r}: no such model or folder{hint} Known models: {', '.join(known) or 'none'}. "
        "Give one of these names, or the path of a folder with a model or a checkpoint."
    )


def read_config(folder: str | os.PathLike) -> dict[str, Any]:
    """The `config.json` of a model folder.

    Raises:
      PretrainedError: it is absent or not a JSON object.
    """
    path = Path(folder) / CONFIG_NAME
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise PretrainedError(
            f"{path}: missing; a model folder holds {', '.join(MODEL_FILES)}"
        ) from error
    except (OSError, ValueError) as error:
        raise PretrainedError(f"{path}: not readable JSON ({error})") from error
    if not isinstance(config, dict):
        raise PretrainedError(f"{path}: expected a JSON object, got {type(config).__name__}")
    return config


# ---------------------------------------------------------------------------------------- loading


def load(name_or_dir: str | os.PathLike) -> Any:
    """Loads a model with the class of its system, such as `mt3.inference.Transcriber`.

    Raises:
      PretrainedError: the model or its system is unknown, or its folder is incomplete.
    """
    path = resolve(name_or_dir)
    system = "mt3"  # released checkpoints without a config are MT3's
    if path.is_dir() and (path / CONFIG_NAME).is_file():
        system = read_config(path).get("system")
    return system_class(system, path).from_pretrained(path)


def system_class(system: Any, source: str | os.PathLike) -> Any:
    """The class in `SYSTEMS` that runs models of `system`; imports its package.

    Raises:
      PretrainedError: naming `source` (whose config it was) and the known systems.
    """
    if system not in SYSTEMS:
        raise PretrainedError(
            f"{source}: {CONFIG_NAME} says system {system!r}; this version of musax knows "
            f"{', '.join(sorted(SYSTEMS))}"
        )
    module, attribute = SYSTEMS[system].split(":")
    return getattr(importlib.import_module(module), attribute)


# ---------------------------------------------------------------------------------------- writing


def save_model_folder(
    folder: str | os.PathLike,
    params: Mapping[str, Any],
    config: Mapping[str, Any],
    readme: str,
    metadata: Mapping[str, str] | None = None,
    files: Mapping[str, bytes] | None = None,
) -> Path:
    """Writes a model folder; every file appears complete or not at all.

    A new folder is written beside its place and renamed. In an existing one the files are
    replaced one by one, the configuration last.

    Args:
      folder: where.
      params: nested dicts of arrays.
      config: JSON values; `"system"` must be one of `SYSTEMS`.
      readme: the model card, Markdown.
      metadata: strings kept in the safetensors file.
      files: further ones that the configuration names, by their names.

    Returns:
      The folder.

    Raises:
      PretrainedError: `config` names no known system, or `folder` is a file.
    """
    from t5x.checkpoints import save_safetensors

    folder = Path(folder)
    if config.get("system") not in SYSTEMS:
        raise PretrainedError(
            f'{folder}: config needs "system", one of {", ".join(sorted(SYSTEMS))}'
        )
    if folder.exists() and not folder.is_dir():
        raise PretrainedError(f"{folder}: is a file; choose the path of a folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.tmp")
    temporary.mkdir()
    try:
        save_safetensors(temporary / PARAMS_NAME, params, metadata)
        for name, data in (files or {}).items():
            (temporary / name).write_bytes(data)
        (temporary / README_NAME).write_text(readme, encoding="utf-8")
        text = json.dumps(dict(config), indent=2) + "\n"
        (temporary / CONFIG_NAME).write_text(text, encoding="utf-8")
        if not folder.exists():
            temporary.replace(folder)
            return folder
        for name in (*(files or {}), *MODEL_FILES):
            (temporary / name).replace(folder / name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder
