"""Greedy decoding with MT3's network (small, random parameters), the encoder included.

Tokens are compared with the processor's peak, and with the matrix products of the decoder's steps
and nothing else: every parameter of the decoder has to be read once a step, which bounds what any
implementation can reach.

Upstream's figures are constants: t5x cc342d4 with jax 0.12.0 on one thread of a CPU, measured once
as shares of that processor's peak.
"""

import functools
from typing import Any

from benchmarks.harness import (
    TOKENS_PER_GFLOP,
    Row,
    Work,
    effort,
    jitted,
    per_peak,
    run_pinned,
    time_ratio,
)
from benchmarks.random_model import random_transformer

STEPS, TINY_STEPS = 128, 4
LENGTH = 1024  # of the caches, as the released models have
SMALL = {
    "vocab_size": 1536,
    "emb_dim": 512,
    "num_heads": 6,
    "head_dim": 64,
    "mlp_dim": 1024,
    "num_encoder_layers": 8,
    "num_decoder_layers": 8,
    "mlp_activations": ("gelu", "linear"),
}
TINY = {**SMALL, "emb_dim": 16, "mlp_dim": 32, "num_encoder_layers": 1, "num_decoder_layers": 1}

#: By program: rows, upstream's tokens per GFLOP of peak, what is asked of ours, and of the share of
#: its products.
CASES = {"batch8": (8, 1.4, 3.7, 0.80), "batch1": (1, 1.0, None, 0.85)}
PROGRAMS = tuple(CASES)


def measure(tiny: bool = False) -> list[Row]:
    """Return two rows for each batch."""
    rows = []
    for name, (batch, upstream, goal, products_goal) in CASES.items():
        found = run_pinned(f"{__name__}:figures", name=name, tiny=tiny)
        case = f"greedy, MT3-small, batch {batch}, {STEPS} steps"
        share = "share of its matrix products alone"
        rows += [
            Row(case, TOKENS_PER_GFLOP, found["peak"], upstream, goal),
            Row(case, share, found["products"], goal=products_goal),
        ]
    return rows


def figures(name: str, tiny: bool) -> dict[str, float]:
    """Return tokens per GFLOP of peak, and the speed of the products divided by ours."""
    whole = work(name, tiny)
    return {
        "peak": per_peak(whole, tiny),
        "products": time_ratio(products(name, tiny), whole.run, **effort(tiny)),
    }


def work(name: str, tiny: bool) -> Work:
    """Return one of `PROGRAMS`; the amount is tokens."""
    predict, arguments = program(name, tiny)
    return Work(jitted(predict, *arguments), CASES[name][0] * (TINY_STEPS if tiny else STEPS))


def program(name: str, tiny: bool) -> tuple[Any, tuple[Any, ...]]:
    """Return one of `PROGRAMS` as a function to compile, and its arguments."""
    model, params = make_model(TINY if tiny else SMALL)
    steps, length = (TINY_STEPS, 8) if tiny else (STEPS, LENGTH)
    predict = functools.partial(_predict, model, length=length, steps=steps)
    return predict, (params, random_frames(CASES[name][0], tiny))


def products(name: str, tiny: bool) -> Any:
    """Return work that does the matrix products of the decoder's steps and nothing else."""
    _, params = make_model(TINY if tiny else SMALL)
    multiply = functools.partial(_products, steps=TINY_STEPS if tiny else STEPS)
    frames = random_frames(CASES[name][0], tiny)
    return jitted(multiply, _matrices(params["decoder"]), frames[:, 0])


def random_frames(batch: int, tiny: bool) -> Any:
    """Return features, float32 [batch, frames, 512]."""
    import jax

    return jax.random.normal(jax.random.key(1), (batch, 16 if tiny else 256, 512))


def make_model(network: dict[str, Any]) -> tuple[Any, Any]:
    """Return (model, random parameters) of an MT3 network of 512 input features."""
    from mt3.models import ContinuousInputsEncoderDecoderModel
    from t5x.data.vocabularies import PassThroughVocabulary
    from t5x.decoding import temperature_sample

    module, params = random_transformer(network, 512)
    model = ContinuousInputsEncoderDecoderModel(
        module=module,
        input_vocabulary=None,
        output_vocabulary=PassThroughVocabulary(network["vocab_size"]),
        optimizer_def=None,
        input_depth=512,
        decode_fn=temperature_sample,
    )
    return model, params


def _predict(model: Any, params: Any, frames: Any, length: int, steps: int) -> Any:
    """Decode exactly `steps` tokens a row; no token ends a row."""
    import jax.numpy as jnp

    batch = {
        "encoder_input_tokens": frames,
        "decoder_input_tokens": jnp.zeros((len(frames), length), jnp.int32),
    }
    options = {"eos_id": -1, "max_decode_steps": steps, "temperature": 0.0}
    return model.predict_batch_with_aux(params, batch, decoder_params=options)[0]


def _matrices(decoder: Any) -> list[Any]:
    """Return the matrices that multiply something at every step, in order."""
    import jax

    found = []
    for path, x in jax.tree_util.tree_leaves_with_path(decoder):
        names = [entry.key for entry in path]
        once = "encoder_decoder_attention" in names and names[-2] in ("key", "value")
        if names[-1] == "kernel" and not once:
            found.append(x)
    return found


def _products(kernels: list[Any], x: Any, steps: int) -> Any:
    """Multiply [B, E] with every matrix in turn, `steps` times."""
    import jax
    import jax.numpy as jnp

    width = kernels[0].shape[0]

    def step(_: int, x: Any) -> Any:
        y = x
        for kernel in kernels:
            missing = max(0, kernel.shape[0] - y.shape[1])
            y = jnp.pad(y, ((0, 0), (0, missing)))[:, : kernel.shape[0]] @ kernel
        return x * 0.5 + jnp.pad(y, ((0, 0), (0, max(0, width - y.shape[1]))))[:, :width] * 1e-3

    return jax.lax.fori_loop(0, steps, step, x[:, :width])
