"""A drum model of a few thousand parameters, with random ones, for tests."""

import jax
import jax.numpy as jnp
import numpy as np

from drums.features import DrumFeatures
from drums.inference import Transcriber
from drums.model_config import ModelConfig
from drums.network import DrumNetworkConfig, OafDrumsConfig
from drums.picking import PickingConfig
from musax.pretrained import save_model_folder

RATE = 11025
FEATURES = DrumFeatures(
    sample_rate=RATE, hop_width=110, num_mel_bins=16, fft_size=256, top_db=None, floor_db=-50.0,
    padding="none", offset_db=50.0, scale_db=25.0,
)  # fmt: skip
NETWORK = DrumNetworkConfig(
    num_classes=18, channels=(4, 4), width=8, dilations=(1, 2), history=(2, 5)
)
OAF = OafDrumsConfig(channels=(2, 2, 2), fc_units=4, lstm_units=2)
OAF_FEATURES = DrumFeatures(sample_rate=RATE, hop_width=128, num_mel_bins=16, fft_size=256)


def tiny_config(**picking):
    return ModelConfig(NETWORK, FEATURES, "18", PickingConfig(**picking))


def random_variables(module, bands=16, seed=0):
    """Random parameters and the initial statistics of a network, without compiling anything."""
    frames = jax.ShapeDtypeStruct((1, 4, bands), jnp.float32)
    shapes = jax.eval_shape(module.init, jax.random.key(seed), frames)
    rng = np.random.default_rng(seed)

    def draw(path, x):
        name = path[-1].key
        if name == "moving_variance":
            return np.ones(x.shape, np.float32)
        if x.ndim < 2:
            return np.full(x.shape, name == "gamma", np.float32)
        scale = np.sqrt(2 / np.prod(x.shape[:-1]))
        return rng.normal(0, scale, x.shape).astype(np.float32)

    kept = {name: shapes[name] for name in ("params", "batch_stats")}
    return jax.tree_util.tree_map_with_path(draw, kept)


def tiny_variables(config, seed=0):
    """Random parameters that make outputs vary."""
    variables = random_variables(config.module(), config.features.num_mel_bins, seed)
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda x: np.asarray(x + 0.5 * rng.normal(size=x.shape) * (x.ndim > 1), np.float32),
        variables,
    )


def tiny_transcriber(config=None):
    config = config or tiny_config()
    return Transcriber(config, tiny_variables(config))


def save_tiny_model(folder, config=None):
    config = config or tiny_config()
    return save_model_folder(folder, tiny_variables(config), config.to_json(), "# Tiny\n\nDrums.\n")


def clicks(seconds=2.0, every=0.25, rate=RATE, level=0.5):
    """Bursts of noise, louder and softer in turn."""
    rng = np.random.default_rng(0)
    audio = np.zeros(round(seconds * rate), np.float32)
    for i, start in enumerate(np.arange(0.1, seconds - 0.1, every)):
        burst = rng.normal(0, 1, round(0.05 * rate)) * np.exp(-np.arange(round(0.05 * rate)) / 60)
        first = round(start * rate)
        audio[first : first + len(burst)] += (level * (1 - 0.3 * (i % 2)) * burst).astype("f4")
    return audio / np.abs(audio).max() * np.float32(level)
