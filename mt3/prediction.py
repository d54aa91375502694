"""From the features of segments to event tokens, in batches."""

from collections.abc import Mapping
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from mt3.model_config import ModelConfig
from mt3.models import ContinuousInputsEncoderDecoderModel
from mt3.network import Transformer
from mt3.streaming import steps_per_segment
from mt3.vocabularies import build_codec, vocabulary_from_codec
from musax.events.grammar import NUM_SPECIAL_IDS, EventGrammar, GrammarState
from musax.spectrograms import input_depth
from t5x import decoding

Decode = Literal["greedy", "constrained", "t5x_beam1"]
DECODES: tuple[str, ...] = get_args(Decode)

#: A short batch is filled up to a power of this times the smallest: few shapes to compile.
_BUCKET_GROWTH = 4
_BEAM_ALPHA = 0.6  # of the released models' inference


def bucket_size(count: int, batch_size: int) -> int:
    """Return the rows that `count` segments are padded to: batch_size, or 1/4, 1/16 … of it."""
    size = batch_size
    while (smaller := -(-size // _BUCKET_GROWTH)) >= count and smaller < size:
        size = smaller
    return size


class SegmentGrammar:
    """The grammar of a single segment, as a `t5x.decoding.Constraint`.

    Segments are decoded side by side, so what sounds when one begins is not known: its tokens may
    end or tie any note, once. Those of notes which turn out not to sound are skipped when the
    segments are read in order; no other event can be invalid.
    """

    def __init__(self, config: ModelConfig):
        codec = build_codec(config.vocabulary)
        steps = steps_per_segment(config.segment, config.spectrogram, codec.steps_per_second)
        self._grammar = EventGrammar(
            codec,
            config.spec,
            codec.num_classes + NUM_SPECIAL_IDS,
            max_step=min(steps - 1, codec.max_shift_steps),
        )
        self.mask = self._grammar.mask
        self.update = self._grammar.update

    def init(self, batch_size: int) -> GrammarState:
        """Return the state before the first tokens."""
        return self._grammar.init(batch_size, active=True)


class Predictor:
    """The network with its parameters, and its compiled decoding programs.

    Args:
      config: the model.
      params: its parameters, float32; see `musax.model_config.place_params`.
    """

    def __init__(self, config: ModelConfig, params: Mapping[str, Any]):
        self.config = config
        self._codec = build_codec(config.vocabulary)
        self._vocabulary = vocabulary_from_codec(self._codec)
        self.params = params
        self._programs: dict[str, Any] = {}

    def _model(self, decode_fn: Any) -> ContinuousInputsEncoderDecoderModel:
        return ContinuousInputsEncoderDecoderModel(
            module=Transformer(self.config.network),
            input_vocabulary=None,
            output_vocabulary=self._vocabulary,
            optimizer_def=None,
            input_depth=input_depth(self.config.spectrogram),
            decode_fn=decode_fn,
        )

    def _compiled(self, decode: str) -> Any:
        """Return the jitted (params, features) -> tokens, which caches a program per batch size."""
        if decode not in self._programs:
            self._programs[decode] = self._compile(decode)
        return self._programs[decode]

    def _compile(self, decode: str) -> Any:
        decode_fn, options = self._decoding(decode)
        model = self._model(decode_fn)

        def predict(params: Any, features: jax.Array) -> jax.Array:
            tokens = jnp.zeros((features.shape[0], self.config.targets_length), jnp.int32)
            batch = {"encoder_input_tokens": features, "decoder_input_tokens": tokens}
            return model.predict_batch_with_aux(params, batch, decoder_params=options)[0]

        return jax.jit(predict)

    def _decoding(self, decode: str) -> tuple[Any, dict[str, Any]]:
        if decode == "t5x_beam1":
            return decoding.beam_search, {"alpha": _BEAM_ALPHA}
        if decode == "constrained":
            constraint = SegmentGrammar(self.config)
            return decoding.temperature_sample, {"temperature": 0.0, "constraint": constraint}
        if decode == "greedy":
            return decoding.temperature_sample, {"temperature": 0.0}
        raise ValueError(f"decode={decode!r} is not one of {', '.join(DECODES)}")

    def __call__(self, features: np.ndarray, decode: str, batch_size: int) -> jax.Array:
        """Start decoding a batch; return before it is done.

        Args:
          features: float32 [N, frames, F], 1 <= N <= batch_size.
          decode: one of `DECODES`.
          batch_size: rows of a full batch. A shorter one is filled with copies of its last row,
            which end when that does, so that few batch sizes are compiled.

        Returns:
          Vocabulary ids, int32 [N or more, L].
        """
        missing = bucket_size(len(features), batch_size) - len(features)
        rows = np.pad(features, ((0, missing), (0, 0), (0, 0)), mode="edge")
        return self._compiled(decode)(self.params, rows)
