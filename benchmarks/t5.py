"""T5: training steps, and greedy, sampled and beam decoding, as shares of the processor's peak.

A training step counts useful operations, by the formula of `t5x.training.flops`. Decoding runs to
the full length: no token ends a row.

Upstream's figures are constants: t5x cc342d4 with jax 0.12.0 on one thread of a CPU, measured once
as shares of that processor's peak.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.harness import (
    SHARE_OF_PEAK,
    TOKENS_PER_GFLOP,
    Row,
    Work,
    jitted,
    run_programs,
    training,
)
from benchmarks.random_model import random_trainer

NETWORK = {
    "vocab_size": 1024,
    "emb_dim": 128,
    "num_heads": 4,
    "head_dim": 32,
    "mlp_dim": 256,
    "num_encoder_layers": 2,
    "num_decoder_layers": 2,
    "mlp_activations": ("gelu", "linear"),
    "dropout_rate": 0.1,
}
#: Of the size of T5-small.
SMALL = {
    **NETWORK,
    "vocab_size": 32_128,
    "emb_dim": 512,
    "num_heads": 8,
    "head_dim": 64,
    "mlp_dim": 1024,
    "num_encoder_layers": 6,
    "num_decoder_layers": 6,
}
TINY = {**NETWORK, "emb_dim": 16, "mlp_dim": 32, "head_dim": 4}
BATCH, LENGTH, TINY_LENGTH = 8, 128, 8

#: By program: what it is, what its figure is, upstream's, and what is asked of ours.
CASES = {
    "train": ("train step, 1.05 M parameters", SHARE_OF_PEAK, 0.28, 0.45),
    "train-small": ("train step, T5-small", SHARE_OF_PEAK, 0.52, 0.80),
    "greedy": ("greedy, 1.05 M", TOKENS_PER_GFLOP, 160.0, 480.0),
    "top-k": ("top-k 40, 1.05 M", TOKENS_PER_GFLOP, 107.0, 320.0),
    "beam": ("4 beams, 1.05 M", TOKENS_PER_GFLOP, 20.0, 100.0),
}
PROGRAMS = tuple(CASES)


def measure(tiny: bool = False) -> list[Row]:
    """Return a row for each of `CASES`."""
    found = run_programs(module=__name__, names=PROGRAMS, tiny=tiny)
    return [
        Row(f"{case}, batch {BATCH}, {LENGTH} + {LENGTH}", what, found[name], upstream, goal)
        for name, (case, what, upstream, goal) in CASES.items()
    ]


def work(name: str, tiny: bool) -> Work:
    """Return one of `PROGRAMS`; amounts are GFLOP of a step, or tokens."""
    from t5x.decoding import beam_search, temperature_sample

    network = TINY if tiny else SMALL if name == "train-small" else NETWORK
    length = TINY_LENGTH if tiny else LENGTH
    batch = random_batch(length)
    if name.startswith("train"):
        return training(make_trainer(network, length), batch)
    decode, beams = {
        "greedy": (functools.partial(temperature_sample, temperature=0.0), 1),
        "top-k": (functools.partial(temperature_sample, topk=40), 1),
        "beam": (beam_search, 4),
    }[name]
    predict = functools.partial(_predict, make_model(network, decode), beams)
    params = make_trainer(network, length).train_state.params
    return Work(jitted(predict, params, batch), BATCH * length)


def _predict(model: Any, beams: int, params: Any, batch: Any) -> Any:
    """Decode to the full length: no token ends a row."""
    import jax

    return model.predict_batch_with_aux(
        params,
        batch,
        rng=jax.random.key(0),
        decoder_params={"eos_id": -1},
        num_decodes=beams,
    )[0]


def make_model(network: dict[str, Any], decode_fn: Callable) -> Any:
    """Return the encoder-decoder model, with Adafactor."""
    from t5x.adafactor import Adafactor, standard_logical_factor_rules
    from t5x.data.vocabularies import PassThroughVocabulary
    from t5x.examples.t5.network import T5Config, Transformer
    from t5x.models import EncoderDecoderModel

    vocabulary = PassThroughVocabulary(network["vocab_size"], eos_id=1)
    return EncoderDecoderModel(
        module=Transformer(T5Config(**network)),
        input_vocabulary=vocabulary,
        output_vocabulary=vocabulary,
        optimizer_def=Adafactor(logical_factor_rules=standard_logical_factor_rules()),
        decode_fn=decode_fn,
        z_loss=1e-4,
    )


def make_trainer(network: dict[str, Any], length: int = LENGTH) -> Any:
    """Return a trainer at step 0, of random parameters."""
    from t5x.decoding import temperature_sample

    return random_trainer(make_model(network, temperature_sample), random_batch(length))


def random_batch(length: int = LENGTH) -> dict[str, np.ndarray]:
    """Return features of a batch without padding."""
    rng = np.random.default_rng(0)
    size = (BATCH, length)
    inputs, targets = (rng.integers(3, 1024, size).astype(np.int32) for _ in range(2))
    return {
        "encoder_input_tokens": inputs,
        "decoder_input_tokens": np.pad(targets, ((0, 0), (1, 0)))[:, :-1],
        "decoder_target_tokens": targets,
        "decoder_loss_weights": np.ones_like(targets),
    }
