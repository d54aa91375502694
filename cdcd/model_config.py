"""The configuration of a model: the `config.json` of its folder."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

import jax
import jax.numpy as jnp

from cdcd.baselines import AutoregressiveModel, MaskedDiffusionModel
from cdcd.config import DenoiserConfig, NoiseRange
from cdcd.contents import KINDS, Contents, Pieces, Text
from cdcd.models import CDCDModel
from cdcd.network import Denoiser, TokenNetwork
from cdcd.warping import Warping
from musax.model_config import BaseModelConfig, ModelConfigError, Part, check_fields

Model = CDCDModel | MaskedDiffusionModel | AutoregressiveModel
#: Kinds of models: continuous diffusion, masked diffusion, autoregressive.
MODELS: Mapping[str, type] = {
    "cdcd": CDCDModel,
    "mdlm": MaskedDiffusionModel,
    "ar": AutoregressiveModel,
}
#: Fields of continuous diffusion alone.
_DIFFUSION_FIELDS = ("noise", "warping", "self_conditioning")


def kind_of(model: Any) -> str:
    """Return which of `MODELS` a model is, by the name of its class.

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
class ModelConfig(BaseModelConfig):
    """Everything needed to run a model except its parameters.

    Attributes:
      kind: one of `MODELS`.
      length: tokens of a row in training.
      network: sizes.
      contents: what tokens stand for.
      noise, warping: of continuous diffusion.
      self_conditioning: the network was trained to see its estimate of the step before.

    Raises:
      ModelConfigError: an unknown kind, a length that is not positive, or a network whose
        vocabulary is smaller than that of the contents.
    """

    system = "cdcd"

    kind: str
    length: int
    network: Annotated[DenoiserConfig, Part(brief=True)]
    contents: Annotated[Contents, Part(name="tokens", kinds=KINDS)]
    noise: NoiseRange = dataclasses.field(default_factory=NoiseRange)
    warping: Annotated[Warping, Part(brief=True)] = dataclasses.field(default_factory=Warping)
    self_conditioning: bool = True

    def __post_init__(self):
        if self.kind not in MODELS:
            raise ModelConfigError(f"kind={self.kind!r}: expected one of {', '.join(MODELS)}")
        if self.length < 1:
            raise ModelConfigError(f"length={self.length}: expected a positive whole number")
        needed = self.contents.vocabulary.vocab_size
        if self.network.vocab_size < needed:
            raise ModelConfigError(
                f"network.vocab_size={self.network.vocab_size}: expected {needed} or more, the "
                "ids of the tokens"
            )

    @property
    def content(self) -> str:
        """See the base class."""
        return "text" if isinstance(self.contents, Text) else "music"

    def model(self) -> Model:
        """Return the model, without an optimizer."""
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
        """Return the parameters as nested dicts of `jax.ShapeDtypeStruct`."""
        names = ("decoder_input_tokens", "decoder_target_tokens")
        shapes: dict[str, tuple[int, ...]] = dict.fromkeys(names, (1, 2))
        types: dict[str, Any] = dict.fromkeys(names, jnp.int32)
        model = self.model()
        return jax.eval_shape(
            lambda key: model.get_initial_variables(key, shapes, types)["params"],
            jax.random.key(0),
        )

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; those of continuous diffusion only for such a model."""
        found = super().to_json()
        if isinstance(self.contents, Pieces):
            found["tokens"]["model"] = Path(self.contents.model).name
        if self.kind != "cdcd":
            found = {key: value for key, value in found.items() if key not in _DIFFUSION_FIELDS}
        return found

    @classmethod
    def from_json(cls, values: Mapping[str, Any], source: Any = "config") -> Self:
        """Return the configuration in JSON values, the inverse of `to_json`.

        Args:
          values: see `to_json`.
          source: the file, beside which that of a SentencePiece model is.

        Raises:
          ModelConfigError: naming `source` and the field that is missing, unknown or wrong.
        """
        cls.check_system(values, source)
        if values.get("kind") in ("mdlm", "ar"):
            names = {field.name for field in dataclasses.fields(cls)} - {"contents"}
            check_fields(values, {"system", "tokens", *names} - {*_DIFFUSION_FIELDS}, source)
        return super().from_json(_with_model_path(values, source), source)


def _with_model_path(values: Mapping[str, Any], source: Any) -> Mapping[str, Any]:
    """Return values in which a SentencePiece model has its path in place of its name."""
    tokens = values.get("tokens")
    if not isinstance(tokens, Mapping) or tokens.get("kind") != "pieces":
        return values
    name = tokens.get("model")
    if not isinstance(name, str) or Path(name).name != name:
        raise ModelConfigError(
            f"{source}: tokens.model={name!r}: expected the name of a file in the same folder"
        )
    return {**values, "tokens": {**tokens, "model": str(Path(source).parent / name)}}


read_model_config = ModelConfig.read
