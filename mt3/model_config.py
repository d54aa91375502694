"""`config.json` of an MT3 model folder, and the configurations of the released checkpoints."""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import jax
import jax.numpy as jnp

from mt3.network import T5Config, Transformer
from mt3.segments import SegmentConfig
from mt3.vocabularies import VocabularyConfig, build_codec
from musax.events.spec import EncodingSpec
from musax.model_config import BaseModelConfig, ModelConfigError, Part, build_part
from musax.spectrograms import SpectrogramConfig
from t5x.checkpoints import CheckpointError

FORMAT = 1
_MOST_INPUTS = 2**28
HEAD_DIM = 64  # of every released checkpoint; shapes alone do not tell it from the number of heads


@dataclasses.dataclass(frozen=True)
class ModelConfig(BaseModelConfig):
    """Everything needed to run a transcriber except its parameters.

    Attributes:
      network: sizes of the network.
      vocabulary: resolution of time and velocity in the tokens.
      spectrogram, segment: the network's input.
      targets_length: L, the most tokens that are decoded for a segment.
      spec: which events stand for notes.
    """

    system = "mt3"

    network: T5Config
    vocabulary: VocabularyConfig = dataclasses.field(default_factory=VocabularyConfig)
    spectrogram: SpectrogramConfig = dataclasses.field(default_factory=SpectrogramConfig)
    segment: SegmentConfig = dataclasses.field(default_factory=SegmentConfig)
    targets_length: int = 1024
    spec: EncodingSpec = dataclasses.field(default_factory=EncodingSpec)

    def __post_init__(self):
        build_codec(self.vocabulary)  # refuses what makes no codec
        frames, width = self.segment.input_frames, self.network.emb_dim
        if frames * max(width, self.spectrogram.num_mel_bins) > _MOST_INPUTS:
            raise ValueError(
                f"{frames} frames of a segment in a network of width {width} are more than any "
                "machine can hold"
            )

    def param_shapes(self) -> Any:
        """Return the parameters as nested dicts of `jax.ShapeDtypeStruct`."""
        bands = self.spectrogram.num_mel_bins
        frames = jax.ShapeDtypeStruct((1, self.segment.input_frames, bands), jnp.float32)
        tokens = jax.ShapeDtypeStruct((1, 1), jnp.int32)
        init = Transformer(self.network).init
        return jax.eval_shape(init, jax.random.key(0), frames, tokens, tokens)["params"]

    def to_json(self) -> dict[str, Any]:
        """Return the contents of `config.json`."""
        return {"format": FORMAT, **_File.of(self).to_json()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any], source: Any = "config") -> Self:
        """Return the configuration in JSON values, the inverse of `to_json`.

        Raises:
          ModelConfigError: naming `source` and the field that is missing, unknown or wrong.
        """
        cls.check_system({"system": cls.system, **values}, source)
        if values.get("format", FORMAT) != FORMAT:
            raise ModelConfigError(
                f"{source}: format={values['format']!r}: expected {FORMAT}, the one that this "
                "version of musax reads"
            )
        rest = {key: value for key, value in values.items() if key not in ("format", "system")}
        file = _File.from_json({"system": cls.system, **rest}, source)
        return cls.build(file.fields(source), source)


@dataclasses.dataclass(frozen=True)
class _Spec:
    """`EncodingSpec` under the names of the file."""

    onsets_only: bool = False
    use_ties: bool = False
    onsets_before_offsets: bool = False
    program_granularity: str = "full"
    canonical: bool = False


@dataclasses.dataclass(frozen=True)
class _InputNorm:
    """Normalisation of log-mel values, see `SegmentConfig`."""

    offset: float = 0.0
    scale: float = 1.0


@dataclasses.dataclass(frozen=True)
class _File(BaseModelConfig):
    """The fields of `config.json`, where segments and events have another form than here."""

    system = "mt3"

    network: Annotated[T5Config, Part(brief=True)]
    vocabulary: VocabularyConfig = dataclasses.field(default_factory=VocabularyConfig)
    spectrogram: SpectrogramConfig = dataclasses.field(default_factory=SpectrogramConfig)
    segment_frames: int = SegmentConfig.frames
    context_frames: int = 0
    segment_audio: Literal["own", "context"] = "own"
    input_norm: _InputNorm = dataclasses.field(default_factory=_InputNorm)
    targets_length: int = ModelConfig.targets_length
    spec: Annotated[_Spec, Part(brief=True)] = dataclasses.field(default_factory=_Spec)

    @classmethod
    def of(cls, config: ModelConfig) -> Self:
        """Return the file's form of a configuration."""
        segment, spec = config.segment, config.spec
        return cls(
            network=config.network,
            vocabulary=config.vocabulary,
            spectrogram=config.spectrogram,
            segment_frames=segment.frames,
            context_frames=segment.context_frames,
            segment_audio="context" if segment.centred else "own",
            input_norm=_InputNorm(segment.offset, segment.scale),
            targets_length=config.targets_length,
            spec=_Spec(
                onsets_only=not spec.offsets,
                use_ties=spec.ties,
                onsets_before_offsets=spec.onsets_before_offsets,
                program_granularity=spec.granularity,
                canonical=spec.canonical,
            ),
        )

    def fields(self, source: Any) -> dict[str, Any]:
        """Return the fields of `ModelConfig`; raises ModelConfigError where they do not fit."""
        segment = {
            "frames": self.segment_frames,
            "context_frames": self.context_frames,
            "centred": self.segment_audio == "context",
            **dataclasses.asdict(self.input_norm),
        }
        spec = {
            "offsets": not self.spec.onsets_only,
            "ties": self.spec.use_ties,
            "granularity": self.spec.program_granularity,
            "canonical": self.spec.canonical,
            "onsets_before_offsets": self.spec.onsets_before_offsets,
        }
        return {
            "network": self.network,
            "vocabulary": self.vocabulary,
            "spectrogram": self.spectrogram,
            "segment": build_part(SegmentConfig, segment, "segment", source),
            "targets_length": self.targets_length,
            "spec": build_part(EncodingSpec, spec, "spec", source),
        }


def read_model_config(source: Mapping[str, Any] | str | os.PathLike) -> ModelConfig:
    """Return the configuration of a model folder or `.json` file, or of the values of one.

    Raises:
      ModelConfigError: it is absent, not JSON or wrong; names the file and the field.
    """
    if isinstance(source, Mapping):
        return ModelConfig.from_json(source)
    return ModelConfig.read(source)


# --------------------------------------------------------------------------- released checkpoints


def recognise_layout(params: Mapping[str, Any], source: str | Path) -> ModelConfig:
    """Return the configuration of a released checkpoint, recognised by its shapes.

    1664 rows of vocabulary are `ismir2021`: piano, 127 velocities, segments of 512 frames, no ties,
    no programs. 1536 rows are `mt3` (and ismir2022): one velocity, 256 frames, ties, programs.
    Sizes of the network are read off the arrays, with heads of 64.

    Raises:
      CheckpointError: the parameters are of another network; the message names the remedy.
    """
    remedy = f"give the model's configuration: put a config.json beside {source}, or pass config="
    try:
        encoder, decoder = params["encoder"], params["decoder"]
        rows, emb_dim = decoder["token_embedder"]["embedding"].shape
        num_mel_bins = encoder["continuous_inputs_projection"]["kernel"].shape[0]
        layer = encoder["layers_0"]
        joined = layer["attention"]["query"]["kernel"].shape[1]
        gated = "wi_0" in layer["mlp"]
        mlp_dim = layer["mlp"]["wi_0" if gated else "wi"]["kernel"].shape[1]
    except (KeyError, ValueError, TypeError) as error:
        raise CheckpointError(
            f"{source}: array {error} of a released MT3 checkpoint is missing; {remedy}"
        ) from error
    if rows not in (1536, 1664) or joined % HEAD_DIM:
        raise CheckpointError(
            f"{source}: {rows} rows of vocabulary and {joined} attention columns; releases have "
            f"1664 (ismir2021) or 1536 (mt3) and a multiple of {HEAD_DIM}; {remedy}"
        )
    piano = rows == 1664
    sizes: dict[str, Any] = {
        "vocab_size": rows,
        "emb_dim": emb_dim,
        "num_heads": joined // HEAD_DIM,
        "head_dim": HEAD_DIM,
        "num_encoder_layers": sum(name.startswith("layers_") for name in encoder),
        "num_decoder_layers": sum(name.startswith("layers_") for name in decoder),
        "mlp_dim": mlp_dim,
        "mlp_activations": ("gelu", "linear") if gated else ("relu",),
    }
    return ModelConfig(
        network=T5Config(**sizes),
        vocabulary=VocabularyConfig(num_velocity_bins=127 if piano else 1),
        spectrogram=SpectrogramConfig(num_mel_bins=num_mel_bins),
        segment=SegmentConfig(frames=512 if piano else 256),
        targets_length=1024,
        spec=EncodingSpec(ties=not piano, granularity="flat" if piano else "full"),
    )
