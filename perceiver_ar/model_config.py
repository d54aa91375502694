"""What a model of music is: the `config.json` of its folder."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from musax.events.pieces import MultitrackEncoding, PerformanceEncoding, PieceEncoding
from musax.model_fields import ModelConfigError, build_part, changed_fields, check_fields, read_part
from musax.pretrained import read_config
from perceiver_ar.config import PerceiverARConfig
from perceiver_ar.music import music_vocabulary

SYSTEM = "perceiver_ar"
_ENCODINGS: Mapping[str, type] = {
    "performance": PerformanceEncoding,
    "multitrack": MultitrackEncoding,
}


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """All that is needed to run a model, but its parameters.

    Attributes:
      network: sizes.
      encoding: of notes as tokens.

    Raises:
      ModelConfigError: the network's vocabulary is smaller than the encoding's.
    """

    network: PerceiverARConfig
    encoding: PieceEncoding

    def __post_init__(self):
        needed = music_vocabulary(self.encoding).vocab_size
        if self.network.num_classes < needed:
            raise ModelConfigError(
                f"network.num_classes={self.network.num_classes}, but the encoding has {needed} ids"
            )

    def to_json(self) -> dict[str, Any]:
        """JSON values, `"system"` included; fields of the network that are not the default's."""
        kind = next(k for k, cls in _ENCODINGS.items() if isinstance(self.encoding, cls))
        encoding = {"kind": kind, **dataclasses.asdict(self.encoding)}
        return {"system": SYSTEM, "network": changed_fields(self.network), "encoding": encoding}

    @classmethod
    def from_json(cls, values: Mapping[str, Any], source: Any = "config") -> "ModelConfig":
        """The inverse of `to_json`.

        Raises:
          ModelConfigError: naming `source` and the field that is missing, unknown or wrong.
        """
        check_fields(values, {"system", "network", "encoding"}, source)
        if values.get("system") != SYSTEM:
            raise ModelConfigError(f"{source}: system {values.get('system')!r}, not {SYSTEM!r}")
        encoding = dict(read_part(values, "encoding", source))
        kind = encoding.pop("kind", None)
        if kind not in _ENCODINGS:
            raise ModelConfigError(
                f"{source}: encoding.kind={kind!r} is not one of {', '.join(_ENCODINGS)}"
            )
        network = read_part(values, "network", source)
        try:
            return cls(
                build_part(PerceiverARConfig, network, "network", source),
                build_part(_ENCODINGS[kind], encoding, "encoding", source),
            )
        except ModelConfigError as error:
            text = str(error)
            raise ModelConfigError(text if str(source) in text else f"{source}: {text}") from error


def read_model_config(folder: str | Path) -> ModelConfig:
    """The configuration in a model folder.

    Raises:
      PretrainedError: there is none, or it is not JSON.
      ModelConfigError: it is wrong.
    """
    return ModelConfig.from_json(read_config(folder), Path(folder) / "config.json")
