"""A training step of the tiny piano model, as a share of the processor's peak.

Its floating-point operations are those that XLA counts.
"""

from typing import Any

import numpy as np

from benchmarks import harness
from benchmarks.harness import SHARE_OF_PEAK, Row, Work, run_programs
from benchmarks.random_model import random_trainer

#: Sizes of configs/mt3/tiny_piano.gin.
NETWORK = {
    "vocab_size": 640,
    "emb_dim": 128,
    "num_heads": 4,
    "head_dim": 32,
    "mlp_dim": 256,
    "num_encoder_layers": 3,
    "num_decoder_layers": 2,
    "mlp_activations": ("gelu", "linear"),
    "dropout_rate": 0.1,
    "frame_stack": 5,
    "frame_stride": 2,
    "encoder_output_positions": True,
}
TINY = {**NETWORK, "num_encoder_layers": 1, "num_decoder_layers": 1, "dropout_rate": 0.0}
FEATURES, FRAMES, TOKENS, BATCH = 256, 72, 80, 8


PROGRAMS = ("train",)


def measure(tiny: bool = False) -> list[Row]:
    """Return the share of peak."""
    found = run_programs(module=__name__, names=PROGRAMS, tiny=tiny)
    return [Row(f"train step, tiny_piano, batch {BATCH}", SHARE_OF_PEAK, found["train"])]


def work(name: str, tiny: bool) -> Work:
    """Return the step, the only one of `PROGRAMS`; its amount is GFLOP."""
    del name
    network, batch_size = (TINY, 2) if tiny else (NETWORK, BATCH)
    return harness.training(make_trainer(network, batch_size), random_batch(batch_size), "flops")


def make_trainer(network: dict[str, Any], batch_size: int) -> Any:
    """Return a trainer of the tiny model with AdamW, at step 0."""
    from mt3.models import ContinuousInputsEncoderDecoderModel
    from mt3.network import T5Config, Transformer
    from t5x.data.vocabularies import PassThroughVocabulary
    from t5x.optimizers import adamw

    model = ContinuousInputsEncoderDecoderModel(
        module=Transformer(T5Config(**network)),
        input_vocabulary=None,
        output_vocabulary=PassThroughVocabulary(network["vocab_size"]),
        optimizer_def=adamw(learning_rate=1e-3, b2=0.99, weight_decay=1e-4),
        input_depth=FEATURES,
    )
    return random_trainer(model, random_batch(batch_size))


def random_batch(batch_size: int) -> dict[str, np.ndarray]:
    """Return features of a batch without padding."""
    rng = np.random.default_rng(0)
    targets = rng.integers(3, NETWORK["vocab_size"], (batch_size, TOKENS)).astype(np.int32)
    return {
        "encoder_input_tokens": rng.normal(0, 1, (batch_size, FRAMES, FEATURES)).astype(np.float32),
        "decoder_input_tokens": np.pad(targets, ((0, 0), (1, 0)))[:, :-1],
        "decoder_target_tokens": targets,
        "decoder_loss_weights": np.ones_like(targets),
    }
