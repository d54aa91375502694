"""The configuration of a model of music: the `config.json` of its folder."""

import dataclasses
from typing import Annotated, Any

import jax
import numpy as np

from musax.events.pieces import MultitrackEncoding, PerformanceEncoding, PieceEncoding
from musax.model_config import BaseModelConfig, ModelConfigError, Part
from perceiver_ar.config import PerceiverARConfig
from perceiver_ar.music import music_vocabulary
from perceiver_ar.network import PerceiverAR

_ENCODINGS = {"performance": PerformanceEncoding, "multitrack": MultitrackEncoding}


@dataclasses.dataclass(frozen=True)
class ModelConfig(BaseModelConfig):
    """Everything needed to run a model except its parameters.

    Attributes:
      network: sizes.
      encoding: of notes as tokens.

    Raises:
      ModelConfigError: the network's vocabulary is smaller than the encoding's.
    """

    system = "perceiver_ar"

    network: Annotated[PerceiverARConfig, Part(brief=True)]
    encoding: Annotated[PieceEncoding, Part(kinds=_ENCODINGS)]

    def __post_init__(self):
        needed = music_vocabulary(self.encoding).vocab_size
        if self.network.num_classes < needed:
            raise ModelConfigError(
                f"network.num_classes={self.network.num_classes}: expected {needed} or more, the "
                "ids of the encoding"
            )

    def param_shapes(self) -> Any:
        """Return the parameters as nested dicts of `jax.ShapeDtypeStruct`."""
        tokens = np.ones((1, self.network.z_index_dim), np.int32)
        return jax.eval_shape(PerceiverAR(self.network).init, jax.random.key(0), tokens)["params"]


read_model_config = ModelConfig.read
