"""Greedy decoding with MT3's network (small, random parameters) on one thread of a CPU.

The comparison is with the matrix products of the same steps and nothing else: every parameter of
the decoder has to be read once a step, which bounds what any implementation can reach there.
For scale, measured elsewhere on one thread, tokens per CPU second at batch 8 (1): the reference's
Flax code 35 (30), the best PyTorch port 145 (54).
"""

import functools
from typing import Any

from benchmarks.harness import Row, cpu_seconds, effort, run_pinned
from benchmarks.random_model import random_transformer

BATCHES = (1, 8)
GOALS = {1: 54.0, 8: 300.0}  # tokens / CPU s
STEPS = 160  # tokens of a dense segment of 2 s
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


def measure(tiny: bool = False) -> list[Row]:
    """Return tokens per CPU second, encoding included."""
    rows = []
    for batch in BATCHES:
        found = run_pinned("benchmarks.decoding:rates", batch=batch, tiny=tiny)
        unit, bound = "tokens / CPU s", "the bare matrix products"
        rows += [
            Row(
                f"{case}, batch {batch}",
                unit,
                found[case],
                found["products"],
                bound,
                goal=GOALS[batch] if case == "encoding and decoding" else None,
                goal_is_ratio=False,
            )
            for case in ("encoding and decoding", "decoding")
        ]
    return rows


def rates(batch: int, tiny: bool) -> dict[str, float]:
    """Return tokens per CPU second: whole, without the encoder, and matrix products alone."""
    import jax

    network, steps, length = (TINY, 4, 8) if tiny else (SMALL, STEPS, LENGTH)
    model, params = make_model(network)
    frames = jax.random.normal(jax.random.key(1), (batch, 16 if tiny else 256, 512))
    predict = jax.jit(functools.partial(_predict, model, length=length, steps=steps))
    encode = jax.jit(model._encode)
    products = jax.jit(functools.partial(_products, steps=steps))
    inputs = {"encoder_input_tokens": frames}

    def seconds(function: Any, *arguments: Any) -> float:
        return cpu_seconds(lambda: jax.block_until_ready(function(*arguments)), **effort(tiny))

    whole = seconds(predict, params, frames)
    encoding = seconds(encode, params, inputs)
    kernels = _matrices(params["decoder"])
    floor = seconds(products, kernels, frames[:, 0])
    tokens = batch * steps
    return {
        "encoding and decoding": tokens / whole,
        "decoding": tokens / max(whole - encoding, 1e-9),
        "products": tokens / floor,
    }


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
