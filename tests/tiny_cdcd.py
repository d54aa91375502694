"""Models of cdcd with random parameters, small enough for tests."""

from cdcd import warping
from cdcd.config import DenoiserConfig, NoiseRange
from cdcd.contents import Contents, Letters
from cdcd.model_config import ModelConfig
from musax.pretrained import save_model_folder
from tests.t5x.networks import random_params

LENGTH = 16


def tiny_config(
    contents: Contents | None = None, kind: str = "cdcd", length: int = LENGTH, **network
) -> ModelConfig:
    contents = contents or Letters()
    sizes = {
        "vocab_size": contents.vocabulary.vocab_size,
        "embed_dim": 8,
        "width": 16,
        "num_layers": 1,
        "num_heads": 2,
        "mlp_dim": 24,
        "num_fourier": 4,
        "time_width": 8,
        "output_prior": kind == "cdcd",  # without, they make the same whatever the noise
    }
    return ModelConfig(
        kind, length, DenoiserConfig(**(sizes | network)), contents, NoiseRange(0.18, 53.0)
    )


def tiny_params(config: ModelConfig, seed: int = 0) -> dict:
    params = random_params(config.param_shapes(), seed)
    if warping.PARAMS in params:
        params[warping.PARAMS] = warping.initial_params(config.warping.num_bins)
    return params


def save_tiny_model(folder, config: ModelConfig | None = None):
    config = config or tiny_config()
    return save_model_folder(folder, tiny_params(config), config.to_json(), "# tiny\n\nRandom.\n")
