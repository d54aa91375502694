"""T5 1.1 whose layers are scanned over: compilation takes as long for 24 layers as for one.

Unlike T5 proper, every layer has its own table of relative positions, as in upstream's
`scalable_t5`: it is another function, not only another layout. `t5x.checkpoints.scanning` converts
parameters.
"""

from typing import ClassVar

from flax import struct

from t5x.examples.t5 import network


@struct.dataclass
class T5Config(network.T5Config):
    """Sizes and options of the network; those of T5, and:

    Attributes:
      remat_policy: what the backward pass recomputes: "none"; "minimal", all but the products
        with parameters; "full", all but the inputs of the layers.
      scan_layers: scan over the layers; otherwise one is called after the other, and parameters
        are named `layers_0`, `layers_1`, ...
      param_scan_axis: which axis of the parameters the layers are.
    """

    remat_policy: str = "none"
    scan_layers: bool = True
    param_scan_axis: int = 1


class Transformer(network.Transformer):
    """An encoder-decoder over token ids, with one embedding for both; 0 is padding."""

    config: T5Config
    positions_in_layers: ClassVar[bool] = True
