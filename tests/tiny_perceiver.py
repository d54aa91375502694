"""A Perceiver AR of random parameters that composes, small enough for tests."""

from musax.events.pieces import PERFORMANCE, PieceEncoding
from musax.pretrained import save_model_folder
from perceiver_ar.config import PerceiverARConfig
from perceiver_ar.model_config import ModelConfig
from perceiver_ar.music import music_vocabulary
from tests.t5x.networks import random_params


def tiny_config(encoding: PieceEncoding = PERFORMANCE, **options) -> ModelConfig:
    sizes = {
        "max_context_length": 64,
        "z_index_dim": 16,
        "input_embed_dim": 16,
        "num_z_channels": 16,
        "num_transformers_per_block": 1,
        "num_cross_attend_heads": 2,
        "num_transformer_heads": 2,
        "dropout_prob": 0.0,
        "max_wavelength": 4096,
        "final_layer_init_zeros": False,
    }
    size = music_vocabulary(encoding).vocab_size
    return ModelConfig(PerceiverARConfig(num_classes=size, **(sizes | options)), encoding)


def tiny_params(config: ModelConfig, seed: int = 0) -> dict:
    return random_params(config.param_shapes(), seed)


def save_tiny_model(folder, config: ModelConfig | None = None):
    config = config or tiny_config()
    return save_model_folder(folder, tiny_params(config), config.to_json(), "# tiny\n\nRandom.\n")
