"""Configuration of a drum model: the `config.json` of its folder."""

import dataclasses
from typing import Annotated, Any

import jax
import numpy as np

from drums.features import DrumFeatures
from drums.network import DrumNetwork, DrumNetworkConfig, OafDrums, OafDrumsConfig
from drums.picking import PickingConfig
from drums.vocabularies import FULL, LEVELS
from musax.model_config import BaseModelConfig, ModelConfigError, Part

Network = DrumNetworkConfig | OafDrumsConfig
_KINDS = {"conv": DrumNetworkConfig, "oaf": OafDrumsConfig}


@dataclasses.dataclass(frozen=True)
class ModelConfig(BaseModelConfig):
    """Everything needed to run a model except its parameters.

    Attributes:
      network: sizes; their type selects the network.
      features: its input.
      level: the classes that it distinguishes ("18" for OaF Drums, whose pitches are finer).
      picking: how hits are found in its outputs.

    Raises:
      ModelConfigError: an unknown level.
    """

    system = "drums"

    network: Annotated[Network, Part(kinds=_KINDS)]
    features: DrumFeatures
    level: str = FULL
    picking: PickingConfig = dataclasses.field(default_factory=PickingConfig)

    def __post_init__(self):
        if self.level not in LEVELS:
            raise ModelConfigError(f"level={self.level!r}: expected one of {', '.join(LEVELS)}")

    @property
    def is_oaf(self) -> bool:
        """Whether the network is OaF Drums."""
        return isinstance(self.network, OafDrumsConfig)

    def module(self) -> DrumNetwork | OafDrums:
        """Return the network."""
        if isinstance(self.network, OafDrumsConfig):
            return OafDrums(self.network)
        return DrumNetwork(self.network)

    def param_shapes(self) -> Any:
        """Return `params` and `batch_stats` as nested dicts of `jax.ShapeDtypeStruct`."""
        spectrogram = np.zeros((1, 2, self.features.num_mel_bins), np.float32)
        found = jax.eval_shape(self.module().init, jax.random.key(0), spectrogram)
        return {name: found[name] for name in ("params", "batch_stats")}


read_model_config = ModelConfig.read
