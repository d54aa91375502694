"""`config.json` of an MT3 model folder, and the configurations of the released checkpoints."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mt3.network import T5Config
from mt3.segments import SegmentConfig
from mt3.vocabularies import VocabularyConfig
from musax.events.spec import EncodingSpec
from musax.model_fields import ModelConfigError, build_part, changed_fields, check_fields
from musax.spectrograms import SpectrogramConfig
from t5x.checkpoints import CheckpointError

FORMAT = 1
SYSTEM = "mt3"
HEAD_DIM = 64  # of every released checkpoint; shapes alone do not tell it from the number of heads

_KEYS = {
    "format", "system", "network", "vocabulary", "spectrogram", "segment_frames",
    "context_frames", "targets_length", "spec", "segment_audio", "input_norm",
}  # fmt: skip
_SPEC_KEYS = {
    "onsets_only", "use_ties", "onsets_before_offsets", "program_granularity", "canonical",
}  # fmt: skip
_SEGMENT_AUDIO = ("own", "context")


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """All that turns parameters into a transcriber.

    Attributes:
      network: sizes of the network.
      vocabulary: resolution of time and velocity in the tokens.
      spectrogram, segment: what the network sees of a recording.
      targets_length: L, tokens that are decoded for a segment at most.
      spec: which events stand for notes.
    """

    network: T5Config
    vocabulary: VocabularyConfig = dataclasses.field(default_factory=VocabularyConfig)
    spectrogram: SpectrogramConfig = dataclasses.field(default_factory=SpectrogramConfig)
    segment: SegmentConfig = dataclasses.field(default_factory=SegmentConfig)
    targets_length: int = 1024
    spec: EncodingSpec = dataclasses.field(default_factory=EncodingSpec)

    def to_json(self) -> dict[str, Any]:
        """The contents of `config.json`."""
        segment, spec = self.segment, self.spec
        network = changed_fields(self.network)
        if "dtype" in network:
            network["dtype"] = np.dtype(network["dtype"]).name
        return {
            "format": FORMAT,
            "system": SYSTEM,
            "network": network,
            "vocabulary": dataclasses.asdict(self.vocabulary),
            "spectrogram": dataclasses.asdict(self.spectrogram),
            "segment_frames": segment.frames,
            "context_frames": segment.context_frames,
            "segment_audio": "context" if segment.centred else "own",
            "input_norm": {"offset": segment.offset, "scale": segment.scale},
            "targets_length": self.targets_length,
            "spec": {
                "onsets_only": not spec.offsets,
                "use_ties": spec.ties,
                "onsets_before_offsets": spec.onsets_before_offsets,
                "program_granularity": spec.granularity,
                **({"canonical": True} if spec.canonical else {}),
            },
        }


def read_model_config(source: Mapping[str, Any] | str | Path) -> ModelConfig:
    """The configuration in a `config.json`, or in the mapping that such a file holds.

    Raises:
      ModelConfigError: the file is unreadable, or a field is wrong; the message names both.
    """
    if isinstance(source, Mapping):
        return _parse(source, "config")
    path = Path(source)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelConfigError(f"{path}: not a readable JSON file ({error})") from error
    if not isinstance(content, Mapping):
        raise ModelConfigError(f"{path}: expected a JSON object, got {type(content).__name__}")
    return _parse(content, str(path))


def _parse(content: Mapping[str, Any], source: str) -> ModelConfig:
    check_fields(content, _KEYS, source, "")
    if content.get("system", SYSTEM) != SYSTEM or content.get("format", FORMAT) != FORMAT:
        raise ModelConfigError(
            f"{source}: system {content.get('system')!r}, format {content.get('format')!r}; this "
            f"reader knows system {SYSTEM!r}, format {FORMAT}"
        )
    spec = dict(content.get("spec", {}))
    check_fields(spec, _SPEC_KEYS, source, "spec.")
    norm = dict(content.get("input_norm") or {})
    check_fields(norm, {"offset", "scale"}, source, "input_norm.")
    kind = content.get("segment_audio", "own")
    if kind not in _SEGMENT_AUDIO:
        raise ModelConfigError(f"{source}: segment_audio {kind!r} is not one of {_SEGMENT_AUDIO}")
    try:
        return ModelConfig(
            network=_network(content.get("network", {}), source),
            vocabulary=build_part(
                VocabularyConfig, content.get("vocabulary", {}), "vocabulary", source
            ),
            spectrogram=build_part(
                SpectrogramConfig, content.get("spectrogram", {}), "spectrogram", source
            ),
            segment=SegmentConfig(
                frames=int(content.get("segment_frames", SegmentConfig.frames)),
                context_frames=int(content.get("context_frames", 0)),
                centred=kind == "context",
                offset=float(norm.get("offset", 0.0)),
                scale=float(norm.get("scale", 1.0)),
            ),
            targets_length=int(content.get("targets_length", ModelConfig.targets_length)),
            spec=EncodingSpec(
                offsets=not spec.get("onsets_only", False),
                ties=bool(spec.get("use_ties", False)),
                granularity=spec.get("program_granularity", "full"),
                canonical=bool(spec.get("canonical", False)),
                onsets_before_offsets=bool(spec.get("onsets_before_offsets", False)),
            ),
        )
    except ModelConfigError:
        raise
    except (TypeError, ValueError) as error:
        raise ModelConfigError(f"{source}: {error}") from error


def _network(values: Any, source: str) -> T5Config:
    if isinstance(values, Mapping) and isinstance(values.get("dtype"), str):
        values = {**values, "dtype": np.dtype(values["dtype"])}
    return build_part(T5Config, values, "network", source)


# --------------------------------------------------------------------------- released checkpoints


def recognise_layout(params: Mapping[str, Any], source: str | Path) -> ModelConfig:
    """The configuration of a released checkpoint, told by the shapes of its parameters.

    1664 rows of vocabulary are `ismir2021`: piano, 127 velocities, segments of 512 frames, no ties,
    no programs. 1536 rows are `mt3` (and ismir2022): one velocity, 256 frames, ties, programs.
    Sizes of the network are read off the arrays, with heads of 64.

    Raises:
      CheckpointError: the parameters are not of such a network; the message says what to give.
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
