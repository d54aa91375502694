"""Continuous diffusion beside the autoregressive model of the same trunk, on one thread of a CPU.

Training is compared with the autoregressive model's at equal floating-point operations (by the
formula of `cdcd.flops`): continuous diffusion does more for each token, the estimate from before
and the scales and shifts by time, and is to cost no more than that. Samplers are compared with as
many forward passes of the autoregressive network.
"""

from typing import Any

import numpy as np

from benchmarks import harness
from benchmarks.harness import SHARE_OF_PEAK, Row, Work, effort, jitted, run_pinned, time_ratio
from benchmarks.random_model import random_params, random_trainer

SIZES: dict[str, Any] = {
    "vocab_size": 93,
    "embed_dim": 64,
    "width": 256,
    "num_layers": 4,
    "num_heads": 4,
    "mlp_dim": 1024,
}
TINY: dict[str, Any] = {**SIZES, "embed_dim": 8, "width": 16, "num_layers": 1, "mlp_dim": 32}
SHAPE, TINY_SHAPE = (8, 256), (2, 16)
STEPS, TINY_STEPS = (16, 64), (2,)
GOAL = 1 / 1.15


TRAINED = {"train": "cdcd", "train-masked": "mdlm", "train-autoregressive": "ar"}
PROGRAMS = (*TRAINED, "sample")


def measure(tiny: bool = False) -> list[Row]:
    """Return shares of peak, and speeds beside the autoregressive model's."""
    found = run_pinned(f"{__name__}:figures", tiny=tiny)
    equal = "times as fast as the autoregressive model at equal FLOPs"
    passes = "of the speed of as many forward passes of the autoregressive model"
    labels = {"train": "continuous diffusion", "train-masked": "masked diffusion"}
    rows = [
        Row(f"train step, {label}", equal, found[name], goal=GOAL) for name, label in labels.items()
    ]
    rows.append(Row("train step, continuous diffusion", SHARE_OF_PEAK, found["share"]))
    for steps, figure in found["sampling"].items():
        case = f"sampling, {steps} steps and the last prediction"
        rows.append(Row(case, passes, figure, goal=GOAL))
    return rows


def figures(tiny: bool) -> dict[str, Any]:
    """Return all figures, measured in this process."""
    steps = {name: work(name, tiny) for name in TRAINED}
    ar = steps["train-autoregressive"]
    found: dict[str, Any] = {
        name: time_ratio(ar.run, step.run, **effort(tiny)) * step.amount / ar.amount
        for name, step in steps.items()
    }
    found["share"] = harness.per_peak(steps["train"], tiny)
    forward = forward_pass(tiny)
    found["sampling"] = {
        count: (count + 1) * time_ratio(forward, sampling(count, tiny).run, **effort(tiny))
        for count in (TINY_STEPS if tiny else STEPS)
    }
    return found


def work(name: str, tiny: bool) -> Work:
    """Return one of `PROGRAMS`; amounts are GFLOP of a step, or tokens."""
    sizes, shape = _sizes(tiny)
    if name == "sample":
        return sampling((TINY_STEPS if tiny else STEPS)[0], tiny)
    model = make_models(sizes)[TRAINED[name]]
    batch = random_batch(model, shape)
    return harness.training(random_trainer(model, batch), batch)


def _sizes(tiny: bool) -> tuple[dict[str, Any], tuple[int, int]]:
    return (TINY, TINY_SHAPE) if tiny else (SIZES, SHAPE)


def make_models(sizes: dict[str, Any]) -> dict[str, Any]:
    """Return the three models, by the names of their gin files."""
    from cdcd.baselines import AutoregressiveModel, MaskedDiffusionModel
    from cdcd.config import DenoiserConfig, NoiseRange
    from cdcd.models import CDCDModel
    from cdcd.network import Denoiser, TokenNetwork
    from cdcd.optimizers import grouped_adam

    config = DenoiserConfig(**sizes, output_prior=True)
    return {
        "ar": AutoregressiveModel(TokenNetwork(config), None, grouped_adam(None)),
        "mdlm": MaskedDiffusionModel(
            TokenNetwork(config, causal=False, extra_inputs=1), None, grouped_adam(None)
        ),
        "cdcd": CDCDModel(Denoiser(config), None, grouped_adam(), noise=NoiseRange(0.5, 150.0)),
    }


def random_batch(model: Any, shape: tuple[int, int]) -> dict[str, np.ndarray]:
    """Return tokens without padding."""
    tokens = np.random.default_rng(0).integers(3, model.module.config.vocab_size, shape, np.int32)
    return {
        "decoder_input_tokens": np.pad(tokens[:, :-1], ((0, 0), (1, 0))),
        "decoder_target_tokens": tokens,
        "decoder_loss_weights": np.ones(shape, np.int32),
    }


def make_params(model: Any, shape: tuple[int, int]) -> Any:
    """Return random parameters; the curves of the time warp stay as they begin."""
    import jax

    from cdcd import warping

    batch = random_batch(model, shape)
    shapes, types = (
        {name: getattr(x, what) for name, x in batch.items()} for what in ("shape", "dtype")
    )
    params = jax.eval_shape(
        lambda rng: model.get_initial_variables(rng, shapes, types)["params"],
        jax.random.PRNGKey(0),
    )
    found = random_params(params)
    if warping.PARAMS in found:
        found[warping.PARAMS] = warping.initial_params(model.warping.num_bins)
    return found


def forward_pass(tiny: bool) -> Any:
    """Return a forward pass of the autoregressive model, predictions included."""
    import jax.numpy as jnp

    sizes, shape = _sizes(tiny)
    model = make_models(sizes)["ar"]

    def forward(params: Any, batch: Any) -> Any:
        return jnp.argmax(model._compute_logits(params, batch), axis=-1)

    return jitted(forward, make_params(model, shape), random_batch(model, shape))


def sampling(steps: int, tiny: bool) -> Work:
    """Return work that samples rows from nothing; the amount is tokens."""
    import jax

    from cdcd.sampler import rows_from_nothing

    sizes, shape = _sizes(tiny)
    model = make_models(sizes)["cdcd"]
    params, rows = make_params(model, shape), rows_from_nothing(*shape)

    def make() -> None:
        model.make(params, rows, jax.random.key(0), steps=steps).block_until_ready()

    return Work(make, shape[0] * shape[1])
