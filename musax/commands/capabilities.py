"""What a model can do, found in its configuration alone: its content and the options it has."""

import argparse
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from musax.commands.files import InputError


@dataclasses.dataclass(frozen=True)
class Capabilities:
    """Content of a model, and the options of one of its methods.

    Attributes:
      content: "music" or "text".
      options: names of the options that the method takes.
    """

    content: str
    options: frozenset[str]

    @property
    def is_text(self) -> bool:
        """Whether the model is of text."""
        return self.content == "text"


def read_capabilities(folder: Path | None, method: str) -> Capabilities:
    """Return the capabilities of the model in a folder, without its parameters.

    Args:
      folder: of the model.
      method: of the model's class that is to be called.

    Raises:
      ModelConfigError: the configuration is wrong; names the field.
    """
    from musax import pretrained

    assert folder is not None
    model_class = pretrained.SYSTEMS[pretrained.system_of(folder)].model_class()
    has_config = pretrained.config_path(folder) is not None  # released checkpoints have none
    config = model_class.config_class.read(folder) if has_config else None
    content = config.content if config is not None else "music"
    return Capabilities(content, frozenset(model_class.options(method, config)))


def given_options(args: argparse.Namespace, names: Mapping[str, str]) -> dict[str, Any]:
    """Return the options of the model that the user gave.

    Args:
      args: parsed options, None where not given.
      names: the model's name of each option of the command line, such as {"length": "seconds"}.
    """
    given = {name: getattr(args, option) for option, name in names.items()}
    return {name: value for name, value in given.items() if value is not None}


def check_options(
    args: argparse.Namespace, names: Mapping[str, str], found: Capabilities, model: str
) -> None:
    """Raise InputError for an option that the user gave and the model does not have.

    Args:
      args, names: see `given_options`.
      found: of the model.
      model: its name, for the message.
    """
    for option, name in names.items():
        if getattr(args, option) is not None and name not in found.options:
            known = [_flag(other) for other in names if names[other] in found.options]
            raise InputError(
                f"{model}: this model of {found.content} has no option {_flag(option)}; it has "
                f"{', '.join(known) or 'none of these options'}"
            )


def _flag(option: str) -> str:
    return f"--{option.replace('_', '-')}"
