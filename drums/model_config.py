"""What a drum model is: the `config.json` of its folder."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from drums.features import DrumFeatures
from drums.network import DrumNetwork, DrumNetworkConfig, OafDrums, OafDrumsConfig
from drums.picking import PickingConfig
from drums.vocabularies import FULL, LEVELS
from musax.model_fields import ModelConfigError, build_part, read_part
from musax.pretrained import read_config

SYSTEM = "drums"
Network = DrumNetworkConfig | OafDrumsConfig
_KINDS: Mapping[str, type] = {"conv": DrumNetworkConfig, "oaf": OafDrumsConfig}


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """All that is needed to run a model, but its parameters.

    Attributes:
      network: sizes; their type says which network.
      features: what it sees.
      level: which classes it tells apart ("18" for OaF Drums, whose pitches are finer).
      picking: how hits are found in its outputs.
    """

    network: Network
    features: DrumFeatures
    level: str = FULL
    picking: PickingConfig = dataclasses.field(default_factory=PickingConfig)

    @property
    def is_oaf(self) -> bool:
        """Whether the network is OaF Drums."""
        return isinstance(self.network, OafDrumsConfig)

    def module(self) -> DrumNetwork | OafDrums:
        """The network."""
        if isinstance(self.network, OafDrumsConfig):
            return OafDrums(self.network)
        return DrumNetwork(self.network)

    def to_json(self) -> dict[str, Any]:
        """JSON values, `"system"` included."""
        kind = "oaf" if self.is_oaf else "conv"
        network = {**dataclasses.asdict(self.network), "kind": kind}
        return {
            "system": SYSTEM,
            "level": self.level,
            "network": network,
            "features": dataclasses.asdict(self.features),
            "picking": dataclasses.asdict(self.picking),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any], source: Any = "config") -> "ModelConfig":
        """The inverse of `to_json`.

        Raises:
          ModelConfigError: naming `source` and the field that is missing, unknown or wrong.
        """
        if values.get("system") != SYSTEM:
            raise ModelConfigError(f"{source}: system {values.get('system')!r}, not {SYSTEM!r}")
        network = dict(read_part(values, "network", source))
        kind = network.pop("kind", None)
        if kind not in _KINDS:
            raise ModelConfigError(
                f"{source}: network.kind={kind!r} is not one of {', '.join(_KINDS)}"
            )
        level = values.get("level", FULL)
        if level not in LEVELS:
            raise ModelConfigError(f"{source}: level={level!r} is not one of {', '.join(LEVELS)}")
        features = read_part(values, "features", source)
        return cls(
            network=build_part(_KINDS[kind], network, "network", source),
            features=build_part(DrumFeatures, features, "features", source),
            level=level,
            picking=build_part(PickingConfig, values.get("picking", {}), "picking", source),
        )


def read_model_config(folder: str | Path) -> ModelConfig:
    """The configuration in a model folder.

    Raises:
      PretrainedError: there is none, or it is not JSON.
      ModelConfigError: it is wrong.
    """
    return ModelConfig.from_json(read_config(folder), Path(folder) / "config.json")
