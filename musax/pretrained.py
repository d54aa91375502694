"""Model folders: finding models by name and by task, loading them, and writing them.

A model folder holds `model.safetensors` (parameters), `config.json` (`"system"` names the package
that runs it) and `README.md` (the model card). A model is asked for by name, folder or task:

    load("mt3-piano-tiny").transcribe(audio, sample_rate)
    load(task="drums").transcribe_file("loop.wav")

Shipped models lie in `pretrained/` of a checkout or in `musax/_pretrained` of an installed wheel;
`$MUSAX_PRETRAINED` may name more folders of models (separated as in PATH), which come first.
"""

import dataclasses
import difflib
import importlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

CONFIG_NAME = "config.json"
PARAMS_NAME = "model.safetensors"
README_NAME = "README.md"
MODEL_FILES = (PARAMS_NAME, README_NAME, CONFIG_NAME)

#: The tasks of models, with a description of each.
TASKS: Mapping[str, str] = {
    "transcribe": "recording to notes",
    "drums": "drum recording to hits with velocities",
    "compose": "music or text from nothing, or after a prompt",
    "infill": "missing parts of a piece or text",
    "score": "likelihood of a piece or text",
}


@dataclasses.dataclass(frozen=True)
class System:
    """A package that runs models.

    Attributes:
      runs: its model class as "module:attribute"; `from_pretrained(folder)` returns a model. The
        package is imported only when one of its models is loaded.
      tasks: those of `TASKS` that its models do.
    """

    runs: str
    tasks: tuple[str, ...]

    def model_class(self) -> Any:
        """Import the package and return its model class."""
        module, attribute = self.runs.split(":")
        return getattr(importlib.import_module(module), attribute)


#: Systems by the name that `config.json` gives.
SYSTEMS: dict[str, System] = {
    "mt3": System("mt3.inference:Transcriber", ("transcribe",)),
    "drums": System("drums.inference:Transcriber", ("drums",)),
    "perceiver_ar": System("perceiver_ar.inference:Composer", ("compose", "score")),
    "cdcd": System("cdcd.inference:Writer", ("compose", "infill", "score")),
}

#: The models of each task that are used by default: the first for music, the second for text.
DEFAULT_MODELS: Mapping[str, tuple[str, ...]] = {
    "transcribe": ("mt3-piano-tiny",),
    "drums": ("drums-small",),
    "compose": ("perceiver_ar-pop909", "cdcd-text"),
    "infill": ("cdcd-melody", "cdcd-text"),
    "score": ("cdcd-melody", "cdcd-text"),
}

#: The system of checkpoints without a `config.json`: MT3's are recognised by their shapes.
_RELEASED_SYSTEM = "mt3"


class PretrainedError(ValueError):
    """A model or task is unknown, they do not fit, or a model folder is incomplete or damaged."""


@dataclasses.dataclass(frozen=True)
class ModelInfo:
    """A model folder.

    Attributes:
      name, path: of the folder.
      system: key of `SYSTEMS`, or "?" if the configuration is damaged or names another.
      tasks: those of `TASKS` that the model does.
      summary: the first sentence of the model card.
      size: bytes of the stored parameters.
      licence: licences of the training data, from the card; "" if not stated.
    """

    name: str
    path: Path
    system: str
    tasks: tuple[str, ...]
    summary: str
    size: int
    licence: str


# ---------------------------------------------------------------------------------------- finding


def model_folders() -> list[Path]:
    """Return the folders that are searched for models, existing or not."""
    from t5x.user_paths import user_path

    extra = [name for name in os.environ.get("MUSAX_PRETRAINED", "").split(os.pathsep) if name]
    package = Path(__file__).resolve().parent
    shipped = [package.parent / "pretrained", package / "_pretrained"]
    return [user_path(name) for name in extra] + shipped


def list_models(task: str | None = None) -> list[ModelInfo]:
    """Return the models that can be asked for by name, in alphabetical order.

    Args:
      task: only those that do this task; None for all.

    Raises:
      PretrainedError: an unknown task.
    """
    if task is not None:
        _check_known_task(task)
    found: dict[str, ModelInfo] = {}
    for folder in model_folders():
        for config in sorted(folder.glob(f"*/{CONFIG_NAME}")):
            found.setdefault(config.parent.name, _describe(config.parent))
    models = (found[name] for name in sorted(found))
    return [model for model in models if task is None or task in model.tasks]


def _describe(folder: Path) -> ModelInfo:
    try:
        system = system_of(folder)
        tasks = SYSTEMS[system].tasks
    except PretrainedError:
        system, tasks = "?", ()
    fields, summary = _read_card(folder / README_NAME)
    weights = folder / PARAMS_NAME
    size = weights.stat().st_size if weights.is_file() else 0
    licence = fields.get("data_licence", "")
    return ModelInfo(folder.name, folder, system, tasks, summary, size, licence)


def _read_card(path: Path) -> tuple[dict[str, str], str]:
    """Return the fields of a card's front matter, and its first sentence as plain text.

    The front matter is YAML of lines `key: value` alone, between lines `---`.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return {}, ""
    fields: dict[str, str] = {}
    if front := re.match(r"---\n(.*?)^---\s*$", text, re.DOTALL | re.MULTILINE):
        text = text[front.end() :]
        rows = (line.partition(":") for line in front[1].splitlines())
        fields = {key.strip(): value.strip().strip("\"'") for key, _, value in rows}
    paragraphs = (" ".join(part.split()) for part in re.split(r"\n\s*\n", text))
    prose = next((p for p in paragraphs if p and not p.startswith(("#", "---", "<", "|", "!"))), "")
    prose = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", prose).replace("**", "").replace("`", "")
    return fields, re.split(r"(?<=[.!?])\s+(?=[A-Z])", prose, maxsplit=1)[0]


def resolve(name_or_dir: str | os.PathLike) -> Path:
    """Return the folder or file of a model.

    Args:
      name_or_dir: the name of a listed model, or any path that exists.

    Raises:
      PretrainedError: no such model; the message lists the known ones.
    """
    from t5x.user_paths import user_path

    text = os.fspath(name_or_dir)
    for folder in model_folders():
        if text and Path(text).name == text and (folder / text / CONFIG_NAME).is_file():
            return folder / text
    path = user_path(text)
    if text and path.exists():
        return path
    known = [model.name for model in list_models()]
    raise PretrainedError(
        f"{text!r}: no such model or folder{did_you_mean(text, known)} Known models: "
        f"{', '.join(known) or 'none'}. Give one of these names, or the path of a folder with a "
        "model or a checkpoint."
    )


def weights_path(name_or_dir: str) -> str:
    """Return the path of a model's parameters, for training that begins with them.

    Raises:
      PretrainedError: no such model; see `resolve`.
    """
    return str(resolve(name_or_dir) / PARAMS_NAME)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" for the known name that is closest, or "." if none is close."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else "."


def read_config(folder: str | os.PathLike) -> dict[str, Any]:
    """Read the `config.json` of a model folder.

    Raises:
      PretrainedError: it is absent or not a JSON object.
    """
    path = Path(folder) / CONFIG_NAME
    if not path.is_file():
        raise PretrainedError(f"{path}: missing; a model folder holds {', '.join(MODEL_FILES)}")
    return read_json_object(path)


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a JSON file whose top level is an object.

    Raises:
      PretrainedError: the file is unreadable, not JSON, or something else; names it.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise PretrainedError(f"{path}: not readable JSON ({error})") from error
    if not isinstance(content, dict):
        raise PretrainedError(f"{path}: expected a JSON object, got {type(content).__name__}")
    return content


def config_path(path: Path) -> Path | None:
    """Return the `config.json` in a model folder, or beside a checkpoint; None without one."""
    beside = (folder / CONFIG_NAME for folder in (path, path.parent))
    return next((file for file in beside if file.is_file()), None)


# ------------------------------------------------------------------------------------------ tasks


def system_of(path: Path) -> str:
    """Return the system that runs the model in a folder, a key of `SYSTEMS`.

    Reads the configuration alone. A checkpoint without one is taken for a released one of MT3.

    Raises:
      PretrainedError: the configuration is damaged, or its system unknown; names the file.
    """
    config = config_path(path)
    if config is None:
        return _RELEASED_SYSTEM
    values = read_json_object(config)
    check_system(values.get("system"), config)
    return values["system"]


def check_system(system: Any, source: Any) -> None:
    """Raise PretrainedError unless `system`, as `source` gives it, is a key of `SYSTEMS`."""
    if not isinstance(system, str):
        hint = "."
    elif system in SYSTEMS:
        return
    else:
        hint = did_you_mean(system, SYSTEMS)
    raise PretrainedError(
        f'{source}: "system" is {system!r}: expected a system that this version of musax knows'
        f"{hint} Known: {', '.join(sorted(SYSTEMS))}"
    )


def check_task(name_or_dir: str | os.PathLike, task: str) -> Path:
    """Return the folder of a model that does a task, having read its configuration alone.

    Args:
      name_or_dir: see `resolve`.
      task: key of `TASKS`.

    Raises:
      PretrainedError: an unknown task or model, or the model does other tasks; the message names
        those, and the models that do it.
    """
    _check_known_task(task)
    path = resolve(name_or_dir)
    system = system_of(path)
    tasks = SYSTEMS[system].tasks
    if task not in tasks:
        names = ", ".join(model.name for model in list_models(task)) or "none is installed"
        raise PretrainedError(
            f"{os.fspath(name_or_dir)}: a model of {system} ({', '.join(tasks)}); {task} needs one "
            f"of: {names}"
        )
    return path


def _check_known_task(task: str) -> None:
    if task not in TASKS:
        raise PretrainedError(
            f"{task!r}: no such task{did_you_mean(str(task), TASKS)} Known tasks: "
            f"{', '.join(TASKS)}"
        )


# ---------------------------------------------------------------------------------------- loading


def load(name_or_dir: str | os.PathLike | None = None, *, task: str | None = None) -> Any:
    """Load a model with the class of its system, such as `mt3.inference.Transcriber`.

    Args:
      name_or_dir: the name of a model, or a folder; None for the default of `task`.
      task: key of `TASKS` that the model must do; None accepts any model.

    Raises:
      PretrainedError: the model, its system or the task is unknown, the model does other tasks, or
        its folder is incomplete.
      ModelConfigError, CheckpointError: its configuration or parameters are wrong.
    """
    if task is not None:
        _check_known_task(task)
        path = check_task(DEFAULT_MODELS[task][0] if name_or_dir is None else name_or_dir, task)
    elif name_or_dir is None:
        raise PretrainedError(
            "load: expected the name of a model, or a task, such as load(task='transcribe')"
        )
    else:
        path = resolve(name_or_dir)
    return SYSTEMS[system_of(path)].model_class().from_pretrained(path)


# ---------------------------------------------------------------------------------------- writing


def save_model_folder(
    folder: str | os.PathLike,
    params: Mapping[str, Any],
    config: Mapping[str, Any],
    readme: str,
    metadata: Mapping[str, str] | None = None,
    files: Mapping[str, bytes] | None = None,
) -> Path:
    """Write a model folder; every file appears complete or not at all.

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
      CheckpointError: a parameter is not finite, such as in half precision one above 65504.
    """
    from t5x.checkpoints import check_finite, save_safetensors
    from t5x.files import atomic_path, write_bytes, write_text

    folder = Path(folder)
    check_system(config.get("system"), f"{folder}: config")
    if folder.exists() and not folder.is_dir():
        raise PretrainedError(f"{folder}: is a file; choose the path of a folder")
    check_finite(params, f"{folder}: params")
    text = json.dumps(dict(config), indent=2) + "\n"

    def write_files(target: Path) -> None:
        save_safetensors(target / PARAMS_NAME, params, metadata)
        for name, data in (files or {}).items():
            write_bytes(target / name, data)
        write_text(target / README_NAME, readme)
        write_text(target / CONFIG_NAME, text)

    if folder.is_dir():
        write_files(folder)
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(folder, folder=True) as temporary:
        write_files(temporary)
    return folder
