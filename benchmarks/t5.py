"""T5 of 1,050,368 parameters: training steps, and greedy, sampled and beam decoding.

The comparison is with upstream t5x on the same configuration. Its figures were measured once, on an
idle 2-core machine; so these are measured in wall seconds on (at most) two cores, and mean
something only when nothing else runs.
"""

import functools
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.harness import Row, run_in_process
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
PARAMETERS = 1_050_368
BATCH, LENGTH = 8, 128
TINY = {**NETWORK, "emb_dim": 16, "mlp_dim": 32, "head_dim": 4}
CORES = 2

#: Upstream on an idle 2-core machine: steps or decoded tokens a second; and what is asked of ours.
UPSTREAM = {
    "train step": ("steps / s", 7.0, 1.5),
    "greedy": ("tokens / s", 12_600.0, 3.0),
    "top-k 40": ("tokens / s", 8_800.0, None),
    "beam-4": ("tokens / s", 1_790.0, 5.0),
}


def measure(tiny: bool = False) -> list[Row]:
    """Return steps and tokens a second beside upstream's."""
    found = run_in_process("benchmarks.t5:rates", tiny=tiny)
    rows = []
    for case, (unit, theirs, goal) in UPSTREAM.items():
        name = f"{case}, batch {BATCH}, {LENGTH}+{LENGTH} tokens"
        rows.append(Row(name, unit, found[case], theirs, "t5x, idle 2 cores, then", goal=goal))
    return rows


def rates(tiny: bool) -> dict[str, float]:
    """Return steps and tokens a second of this process, on two cores."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    import jax

    from t5x.decoding import beam_search, temperature_sample

    network, length = (TINY, 8) if tiny else (NETWORK, LENGTH)
    repeats = 1 if tiny else 7
    trainer = make_trainer(network, length)
    batch = random_batch(length)
    on_device = trainer.to_device(batch)

    def step() -> None:
        trainer.step(on_device)
        jax.block_until_ready(trainer.train_state)

    found = {"train step": 1 / wall_seconds(step, repeats, calls=10)}
    params = trainer.train_state.params
    decoders: dict[str, tuple[Callable, int]] = {
        "greedy": (functools.partial(temperature_sample, temperature=0.0), 1),
        "top-k 40": (functools.partial(temperature_sample, topk=40), 1),
        "beam-4": (beam_search, 4),
    }
    for case, (decode, beams) in decoders.items():
        predict = jax.jit(functools.partial(_predict, make_model(network, decode), beams))
        seconds = wall_seconds(
            lambda predict=predict: jax.block_until_ready(predict(params, batch)), repeats
        )
        found[case] = BATCH * length / seconds
    return found


def wall_seconds(work: Callable[[], Any], repeats: int, calls: int = 1) -> float:
    """Return median wall seconds of one call, after two that are not counted."""
    work()
    work()
    taken = []
    for _ in range(repeats):
        begin = time.perf_counter()
        for _ in range(calls):
            work()
        taken.append((time.perf_counter() - begin) / calls)
    return statistics.median(taken)


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


def make_trainer(network: dict[str, Any], length: int) -> Any:
    """Return a trainer at step 0, of random parameters."""
    import jax

    from t5x.decoding import temperature_sample

    trainer = random_trainer(make_model(network, temperature_sample), random_batch(length))
    size = sum(x.size for x in jax.tree.leaves(trainer.train_state.params))
    if network is NETWORK and size != PARAMETERS:
        raise AssertionError(f"the network has {size} parameters, expected {PARAMETERS}")
    return trainer


def random_batch(length: int) -> dict[str, np.ndarray]:
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
