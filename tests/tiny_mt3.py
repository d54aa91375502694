"""Tiny MT3 models for tests: configurations, parameters, and predictors without a network."""

import jax
import jax.numpy as jnp
import numpy as np

from mt3.inference import Transcriber
from mt3.model_config import ModelConfig
from mt3.network import T5Config, Transformer
from mt3.segments import SegmentConfig
from mt3.vocabularies import VocabularyConfig, build_codec, num_embeddings, vocabulary_from_codec
from musax import pretrained
from musax.events.spec import EncodingSpec
from musax.spectrograms import SpectrogramConfig

PIANO = EncodingSpec(granularity="flat", onsets_before_offsets=True)
EOS = 1


def tiny_config(
    spec=PIANO, segment=None, *, velocity_bins=1, steps_per_second=50, seconds=1, targets_length=48
):
    """A model of a few thousand parameters, and spectrograms that cost nothing."""
    vocabulary = VocabularyConfig(steps_per_second, seconds, velocity_bins)
    rows = num_embeddings(vocabulary_from_codec(build_codec(vocabulary)))
    network = {
        "vocab_size": rows,
        "emb_dim": 16,
        "num_heads": 2,
        "head_dim": 4,
        "mlp_dim": 16,
        "num_encoder_layers": 1,
        "num_decoder_layers": 1,
    }
    return ModelConfig(
        network=T5Config(**network),
        vocabulary=vocabulary,
        spectrogram=SpectrogramConfig(num_mel_bins=8, fft_size=256),
        segment=segment or SegmentConfig(frames=16, context_frames=2, centred=True),
        targets_length=targets_length,
        spec=spec,
    )


def tiny_params(config, seed=0):
    """Random parameters of `config`'s network, NumPy arrays, without compiling its initialisers."""
    tokens = jnp.ones((1, 1), jnp.int32)
    frames = jnp.ones((1, config.segment.input_frames, config.spectrogram.num_mel_bins))
    module = Transformer(config.network)
    shapes = jax.eval_shape(module.init, jax.random.key(0), frames, tokens, tokens)["params"]
    rng = np.random.default_rng(seed)

    def draw(shape):
        scale = 1.0 if len(shape.shape) == 1 else shape.shape[0] ** -0.5
        return rng.normal(0.0, scale, shape.shape).astype(np.float32)

    return jax.tree.map(draw, shapes)


def write_model(folder, config=None, params=None, readme="# Tiny\n\nRandom parameters.\n"):
    """A model folder on disk."""
    config = config or tiny_config()
    params = tiny_params(config) if params is None else params
    return pretrained.save_model_folder(folder, params, config.to_json(), readme)


#: A transcriber of (configuration, predictor), without a network.
scripted = Transcriber.with_predictor


class Script:
    """A predictor that says given rows of vocabulary ids, one a segment, in order."""

    def __init__(self, rows, length):
        self._rows = [np.pad(row, (0, length - len(row))) for row in rows]
        self.length = length
        self.batches = []

    def __call__(self, features, decode, batch_size):
        assert 1 <= len(features) <= batch_size
        start = sum(self.batches)
        self.batches.append(len(features))
        rows = self._rows[start : start + len(features)]
        # Rows beyond those asked for must not be read.
        return np.stack([*rows, np.full(self.length, 2)])


class Mute:
    """A predictor that never hears a note."""

    def __init__(self, length=4):
        self.length = length

    def __call__(self, features, decode, batch_size):
        tokens = np.zeros((len(features), self.length), np.int32)
        tokens[:, 0] = EOS
        return tokens
