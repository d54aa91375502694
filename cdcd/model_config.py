"""What a model is: the `config.json` of its folder."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from cdcd.baselines import AutoregressiveModel, MaskedDiffusionModel
from cdcd.config import NetworkConfig, NoiseRange
from cdcd.contents import KINDS, Contents, Pieces
from cdcd.models import CDCDModel
from cdcd.network import Denoiser, TokenNetwork
from cdcd.warping import Warping
from musax.model_fields import (
    ModelConfigError,
    build_part,
    changed_fields,
    check_fields,
    read_part,
)
from musax.pretrained import read_config

SYSTEM = "cdcd"
Model = CDCDModel | MaskedDiffusionModel | AutoregressiveModel
#: Kinds of models: continuous diffusion, masked diffusion, autoregressive.
MODELS: Mapping[str, type] = {
    "cdcd": CDCDModel,
    "mdlm": MaskedDiffusionModel,
    "ar": AutoregressiveModel,
}
_FIELDS = ("system", "kind", "length", "network", "tokens")
_DIFFUSION_FIELDS = ("noise", "warping", "self_conditioning")


def kind_of(model: Any) -> str:
    """Which of `MODELS` a model is, by the name of its class.

    Raises:
      ValueError: none.
    """
    name = type(model).__name__
    kind = next((kind for kind, cls in MODELS.items() if cls.__name__ == name), None)
    if kind is None:
        expected = ", ".join(cls.__name__ for cls in MODELS.values())
        raise ValueError(f"the model is a {name}: expected one of {expected}")
    return kind


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """All that is needed to run a model, but its parameters.

    Attributes:
      kind: one of `MODELS`.
      length: tokens of a row in training.
      network: sizes.
      contents: what tokens stand for.
      noise, warping: of continuous diffusion.
      self_conditioning: it was trained to see an estimate from before.

    Raises:
      ModelConfigError: an unknown kind, a length that is not positive, or a network with fewer
        tokens than there are.
    """

    kind: str
    length: int
    network: NetworkConfig
    contents: Contents
    noise: NoiseRange = dataclasses.field(default_factory=NoiseRange)
    warping: Warping = dataclasses.field(default_factory=Warping)
    self_conditioning: bool = True

    def __post_init__(self):
        if self.kind not in MODELS:
            raise ModelConfigError(f"kind={self.kind!r} is not one of {', '.join(MODELS)}")
        if not isinstance(self.length, int) or self.length < 1:
            raise ModelConfigError(f"length={self.length!r}: expected a positive whole number")
        if not isinstance(self.self_conditioning, bool):
            raise ModelConfigError(
                f"self_conditioning={self.self_conditioning!r}: expected true or false"
            )
        needed = self.contents.vocabulary.vocab_size
        if self.network.vocab_size < needed:
            raise ModelConfigError(
                f"network.vocab_size={self.network.vocab_size}, but the tokens have {needed} ids"
            )

    def model(self) -> Model:
        """The model, without an optimizer."""
        if self.kind == "cdcd":
            return CDCDModel(
                Denoiser(self.network),
                None,
                None,
                self.noise,
                self.warping,
                self_conditioning=self.self_conditioning,
            )
        if self.kind == "mdlm":
            return MaskedDiffusionModel(
                TokenNetwork(self.network, causal=False, extra_inputs=1), None, None
            )
        return AutoregressiveModel(TokenNetwork(self.network), None, None)

    def param_shapes(self) -> Any:
        """The parameters as `jax.ShapeDtypeStruct`s."""
        names = ("decoder_input_tokens", "decoder_target_tokens")
        shapes: dict[str, tuple[int, ...]] = dict.fromkeys(names, (1, 2))
        types: dict[str, Any] = dict.fromkeys(names, jnp.int32)
        model = self.model()
        return jax.eval_shape(
            lambda key: model.get_initial_variables(key, shapes, types)["params"],
            jax.random.key(0),
        )

    def to_json(self) -> dict[str, Any]:
        """JSON values, `"system"` included; fields of parts that are not the default's."""
        kind = next(k for k, cls in KINDS.items() if isinstance(self.contents, cls))
        tokens = dataclasses.asdict(self.contents)
        if isinstance(self.contents, Pieces):
            tokens["model"] = Path(self.contents.model).name
        found = {
            "system": SYSTEM,
            "kind": self.kind,
            "length": self.length,
            "network": changed_fields(self.network),
            "tokens": {"kind": kind, **tokens},
        }
        if self.kind == "cdcd":
            found["noise"] = dataclasses.asdict(self.noise)
            found["warping"] = changed_fields(self.warping)
            found["self_conditioning"] = self.self_conditioning
        return found

    @classmethod
    def from_json(cls, values: Mapping[str, Any], source: Any = "config") -> "ModelConfig":
        """The inverse of `to_json`.

        Args:
          values: JSON values.
          source: the file, beside which that of a SentencePiece model is.

        Raises:
          ModelConfigError: naming `source` and the field that is missing, unknown or wrong.
        """
        if values.get("system") != SYSTEM:
            raise ModelConfigError(f"{source}: system {values.get('system')!r}, not {SYSTEM!r}")
        kind = values.get("kind")
        check_fields(
            values, _FIELDS if kind in ("mdlm", "ar") else _FIELDS + _DIFFUSION_FIELDS, source
        )
        network = read_part(values, "network", source)
        try:
            return cls(
                kind,  # type: ignore[arg-type]
                values.get("length"),  # type: ignore[arg-type]
                build_part(NetworkConfig, network, "network", source),
                _read_contents(values, source),
                build_part(NoiseRange, values.get("noise", {}), "noise", source),
                build_part(Warping, values.get("warping", {}), "warping", source),
                values.get("self_conditioning", True),
            )
        except ValueError as error:
            text = str(error)
            raise ModelConfigError(text if str(source) in text else f"{source}: {text}") from error


def _read_contents(values: Mapping[str, Any], source: Any) -> Contents:
    fields = dict(read_part(values, "tokens", source))
    kind = fields.pop("kind", None)
    if kind not in KINDS:
        raise ModelConfigError(f"{source}: tokens.kind={kind!r} is not one of {', '.join(KINDS)}")
    if kind == "pieces":
        name = fields.get("model")
        if not isinstance(name, str) or Path(name).name != name:
            raise ModelConfigError(
                f"{source}: tokens.model={name!r}: expected the name of a file in the same folder"
            )
        fields["model"] = str(Path(source).parent / name)
    return build_part(KINDS[kind], fields, "tokens", source)


def read_model_config(folder: str | Path) -> ModelConfig:
    """The configuration in a model folder.

    Raises:
      PretrainedError: there is none, or it is not JSON.
      ModelConfigError: it is wrong.
      ImportError: it is of pieces, and sentencepiece is not installed.
    """
    return ModelConfig.from_json(read_config(folder), Path(folder) / "config.json")
