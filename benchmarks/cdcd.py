"""Continuous diffusion beside the autoregressive model of the same trunk, on one thread of a CPU.

Training is compared with the autoregressive model's at equal floating-point operations (by the
formula of `cdcd.flops`): continuous diffusion does more for each token, the estimate from before
and the scales and shifts by time, and is to cost no more than that. Samplers are compared with as
many forward passes of the autoregressive network.
"""

from typing import Any

import numpy as np

from benchmarks.harness import Row, cpu_seconds, effort, run_pinned
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


def measure(tiny: bool = False) -> list[Row]:
    """Return tokens of both sides."""
    found = run_pinned("benchmarks.cdcd:figures", tiny=tiny)
    unit, autoregressive = "tokens / CPU s", found["training"]["ar"]
    rows = []
    for name, label in (("cdcd", "continuous diffusion"), ("mdlm", "masked diffusion")):
        rate, cost = found["training"][name]
        expected = autoregressive[0] * autoregressive[1] / cost
        case = f"train step, {label}, {cost / autoregressive[1]:.3f} times the FLOPs"
        rows.append(Row(case, unit, rate, expected, "autoregressive at equal FLOPs", goal=GOAL))
    for steps, rate in found["sampling"].items():
        case = f"sampling, {steps} steps and the last prediction"
        expected = found["forward"] / (int(steps) + 1)
        rows.append(Row(case, unit, rate, expected, "forward passes, autoregressive", goal=GOAL))
    return rows


def figures(tiny: bool) -> dict[str, Any]:
    """Return all figures, measured in this process."""
    sizes, shape = (TINY, TINY_SHAPE) if tiny else (SIZES, SHAPE)
    models = make_models(sizes)
    return {
        "training": {name: train_rate(model, shape, tiny) for name, model in models.items()},
        "forward": forward_rate(models["ar"], shape, tiny),
        "sampling": {
            steps: sampling_rate(models["cdcd"], shape, steps, tiny)
            for steps in (TINY_STEPS if tiny else STEPS)
        },
    }


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


def train_rate(model: Any, shape: tuple[int, int], tiny: bool) -> tuple[float, float]:
    """Return (tokens per CPU second, FLOPs of a step)."""
    import jax

    trainer = random_trainer(model, random_batch(model, shape))
    batch = trainer.to_device(random_batch(model, shape))

    def step() -> None:
        trainer.step(batch)
        jax.block_until_ready(trainer.train_state)

    step()
    cost = trainer.model_flops
    seconds = cpu_seconds(step, **(effort(tiny) or {"repeats": 3}))
    return shape[0] * shape[1] / seconds, cost


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


def forward_rate(model: Any, shape: tuple[int, int], tiny: bool) -> float:
    """Return tokens per CPU second of a forward pass, predictions included."""
    import jax
    import jax.numpy as jnp

    params, batch = make_params(model, shape), random_batch(model, shape)

    @jax.jit
    def forward(params: Any, batch: Any) -> Any:
        return jnp.argmax(model._compute_logits(params, batch), axis=-1)

    seconds = cpu_seconds(lambda: forward(params, batch).block_until_ready(), **effort(tiny))
    return shape[0] * shape[1] / seconds


def sampling_rate(model: Any, shape: tuple[int, int], steps: int, tiny: bool) -> float:
    """Return tokens per CPU second from nothing."""
    import jax

    from cdcd.sampler import rows_from_nothing

    params, rows = make_params(model, shape), rows_from_nothing(*shape)

    def make() -> None:
        model.make(params, rows, jax.random.key(0), steps=steps).block_until_ready()

    seconds = cpu_seconds(make, **(effort(tiny) or {"repeats": 3}))
    return shape[0] * shape[1] / seconds
