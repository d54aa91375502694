"""A training step of the tiny piano model, on one thread.

The comparison is with the time which the step's floating-point operations (as XLA counts them)
would take at the rate of a large product of matrices, measured in the same process: the ratio is
how much of the processor the step uses.
"""

from typing import Any

import numpy as np

from benchmarks.harness import Row, cpu_seconds, effort, matmul_gflops, run_pinned
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


def measure(tiny: bool = False) -> list[Row]:
    """Return steps per CPU second beside what the products alone would allow."""
    found = run_pinned("benchmarks.training:rates", tiny=tiny)
    case = f"step, batch {found['batch']}, {found['gflops']:.3g} GFLOP"
    return [Row(case, "steps / CPU s", found["steps"], found["bound"], "its FLOPs as one matmul")]


def rates(tiny: bool) -> dict[str, float]:
    """Return steps per CPU second of this process, and the bound from a matrix product."""
    import jax

    network, batch_size = (TINY, 2) if tiny else (NETWORK, BATCH)
    trainer = make_trainer(network, batch_size)
    batch = trainer.to_device(random_batch(batch_size))

    def step() -> None:
        trainer.step(batch)
        jax.block_until_ready(trainer.train_state)

    step()
    gflops = trainer.flops / 1e9
    steps = 1.0 / cpu_seconds(step, **effort(tiny))
    bound = matmul_gflops(tiny) / gflops
    return {"batch": batch_size, "gflops": gflops, "steps": steps, "bound": bound}


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
