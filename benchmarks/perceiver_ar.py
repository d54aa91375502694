"""Perceiver AR: training steps, memory and generation, on one thread of a CPU.

Training steps are shares of the processor's peak; they count useful floating-point operations (by
formula, `perceiver_ar.flops`). Generation is compared with a
loop that recomputes everything for every token, and with the reference's way of caching, written
down in `benchmarks.baselines.rolled_cache`. Tokens are the most likely ones; with caches their
number is such that the latents are recomputed exactly once.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import harness
from benchmarks.harness import SHARE_OF_PEAK, Row, Work, effort, run_pinned, time_ratio
from benchmarks.random_model import random_params, random_trainer

#: The network of the reference's published timing.
NETWORK = {
    "num_classes": 391,
    "z_index_dim": 256,
    "input_embed_dim": 256,
    "num_z_channels": 256,
    "num_transformers_per_block": 6,
    "num_cross_attend_heads": 4,
    "num_transformer_heads": 4,
    "dropout_prob": 0.0,
}
TINY = {
    **NETWORK,
    "z_index_dim": 8,
    "input_embed_dim": 16,
    "num_z_channels": 16,
    "num_transformers_per_block": 1,
}
#: T and N of training steps, by program.
TRAINED = {
    "train": (512, 256),
    "train-2k": (2048, 256),
    "train-8k": (8192, 256),
    "train-8k-1k": (8192, 1024),
}
TINY_TRAINED = {"train": (16, 8)}
SAMPLED, TINY_SAMPLED = (4096, 512), (24, 8)
BLOCK = 512  # keys attended to at a time
GOAL = 3.0
PROGRAMS = (*TRAINED, "sample")


def measure(tiny: bool = False) -> list[Row]:
    """Return shares of peak, memory, and speeds of sampling."""
    trained = TINY_TRAINED if tiny else TRAINED
    shares = harness.run_programs(module=__name__, names=list(trained), tiny=tiny)
    rows = [
        Row(f"train step, {_sizes(*sizes)}", SHARE_OF_PEAK, shares[name])
        for name, sizes in trained.items()
    ]
    sizes = list(trained.values())[-1]
    found = run_pinned(f"{__name__}:memory", length=sizes[0], num_latents=sizes[1], tiny=tiny)
    case = f"temporary memory of a train step, {_sizes(*sizes)}"
    rows.append(Row(case, "of that of attention to all inputs at once", found, at_most=True))
    case = f"sampling, {_sizes(*(TINY_SAMPLED if tiny else SAMPLED))}"
    speeds = run_pinned(f"{__name__}:sampling_speeds", tiny=tiny)
    return rows + [Row(case, f"times as fast as {x}", y, goal=GOAL) for x, y in speeds.items()]


def _sizes(length: int, num_latents: int) -> str:
    return f"T {length:,}, N {num_latents:,}"


def work(name: str, tiny: bool) -> Work:
    """Return one of `PROGRAMS`; amounts are GFLOP of a step, or tokens."""
    network = TINY if tiny else NETWORK
    if name == "sample":
        return _sampling(our_loop, make_config(network, *(TINY_SAMPLED if tiny else SAMPLED)))
    sizes = (TINY_TRAINED if tiny else TRAINED)[name]
    config = make_config(network, *sizes, attention_block=BLOCK)
    batch = random_batch(config)
    return harness.training(random_trainer(make_model(config), batch), batch)


def make_config(network: dict[str, Any], length: int, num_latents: int, **changes: Any) -> Any:
    """Return a `PerceiverARConfig` of a context and a number of latents."""
    from perceiver_ar.config import PerceiverARConfig

    sizes = {"max_context_length": length, "z_index_dim": num_latents}
    return PerceiverARConfig(**{**network, **sizes, **changes})


def make_model(config: Any) -> Any:
    """Return the model with Adam."""
    from perceiver_ar.models import PerceiverARModel
    from perceiver_ar.network import PerceiverAR
    from perceiver_ar.optimizers import optimizer

    return PerceiverARModel(PerceiverAR(config), None, optimizer())


def random_batch(config: Any) -> dict[str, np.ndarray]:
    """Return one row of inputs and targets without padding, as long as the context."""
    rng = np.random.default_rng(0)
    shape = (1, config.max_context_length)
    inputs, targets = (rng.integers(3, config.num_classes, shape, np.int32) for _ in range(2))
    return {
        "decoder_input_tokens": inputs,
        "decoder_target_tokens": targets,
        "decoder_loss_weights": np.ones(shape, np.int32),
    }


# ----------------------------------------------------------------------------------- training


def compiled_gradient(config: Any) -> tuple[Any, tuple[Any, Any]]:
    """Return (compiled gradient of the loss, its arguments)."""
    import jax

    model, batch = make_model(config), random_batch(config)
    shapes = {name: x.shape for name, x in batch.items()}
    init = functools.partial(model.get_initial_variables, input_shapes=shapes)
    params = random_params(jax.eval_shape(init, jax.random.PRNGKey(0))["params"])

    def gradient(params: Any, batch: Any) -> Any:
        return jax.grad(lambda p: model.loss_fn(p, batch, None)[0])(params)

    return jax.jit(gradient).lower(params, batch).compile(), (params, batch)


def temporary_bytes(compiled: Any) -> int:
    """Return bytes that a compiled program allocates besides its arguments and results."""
    return compiled.memory_analysis().temp_size_in_bytes


def memory(length: int, num_latents: int, tiny: bool) -> float:
    """Return temporary bytes with blocks, divided by those without."""
    network, block = (TINY, 4) if tiny else (NETWORK, BLOCK)
    blocks, at_once = (
        temporary_bytes(compiled_gradient(config)[0])
        for config in (
            make_config(network, length, num_latents, attention_block=size)
            for size in (block, None)
        )
    )
    return blocks / at_once


# ----------------------------------------------------------------------------------- sampling


def sampling_speeds(tiny: bool) -> dict[str, float]:
    """Return times of the other ways divided by ours, for as many tokens."""
    config = make_config(TINY if tiny else NETWORK, *(TINY_SAMPLED if tiny else SAMPLED))
    ours = _sampling(our_loop, config)
    others = {
        "everything recomputed": _sampling(recompute_loop, config, 2),
        "the reference's caches": _sampling(rolled_loop, config),
    }
    return {
        name: time_ratio(other.run, ours.run, **effort(tiny)) * ours.amount / other.amount
        for name, other in others.items()
    }


def _sampling(loop: Callable[..., Any], config: Any, count: int | None = None) -> Work:
    """Return work that samples at the end of the context.

    Args:
      loop: such as `our_loop`.
      config: of the network.
      count: tokens; None for those after which a block of latents is full again.
    """
    import jax

    tokens, params = random_batch(config)["decoder_input_tokens"], random_network_params(config)
    drawn: int = count or config.z_index_dim - config.z_index_dim // 2
    start, run = loop(config, drawn)
    state = jax.block_until_ready(start(params, tokens))
    return Work(lambda: jax.block_until_ready(run(params, state, tokens)), drawn)


def random_network_params(config: Any) -> Any:
    """Return random parameters of a network."""
    import jax
    import jax.numpy as jnp

    from perceiver_ar.network import PerceiverAR

    tokens = jnp.ones((1, config.z_index_dim), jnp.int32)
    shapes = jax.eval_shape(PerceiverAR(config).init, jax.random.PRNGKey(0), tokens)["params"]
    return random_params(shapes)


def _loop(step: Callable[..., Any], count: int) -> Callable[..., Any]:
    """Return a function of params, state and tokens [1, T], which samples `count` tokens greedily.

    `step` takes (params, state, tokens, where the newest token is) and returns the logits [1, V] of
    the next one and the new state.
    """
    import jax
    import jax.numpy as jnp

    @jax.jit
    def run(params: Any, state: Any, tokens: Any) -> Any:
        def body(i: Any, carry: Any) -> Any:
            tokens, state = carry
            at = tokens.shape[1] - count - 1 + i
            logits, state = step(params, state, tokens, at)
            new = jnp.maximum(jnp.argmax(logits, axis=-1), 3).astype(tokens.dtype)
            return tokens.at[:, at + 1].set(new), state

        return jax.lax.fori_loop(0, count, body, (tokens, state))[0][:, -count:]

    return run


def our_loop(config: Any, count: int) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return caches of all but the last `count` tokens, and the loop."""
    import jax
    import jax.numpy as jnp

    from perceiver_ar.sampler import Sampler

    sampler = Sampler(config, config.max_context_length)

    def step(params: Any, cache: Any, tokens: Any, at: Any) -> Any:
        token = jax.lax.dynamic_index_in_dim(tokens, at, axis=1, keepdims=False)
        return sampler.step(params, cache, tokens, jnp.full(len(tokens), at), token)

    start = jax.jit(lambda params, tokens: sampler.prefill(params, tokens[:, :-count]))
    return start, _loop(step, count)


def rolled_loop(config: Any, count: int) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return the same with the reference's caches."""
    import jax

    from benchmarks.baselines.rolled_cache import RolledCacheSampler

    sampler = RolledCacheSampler(config)

    def start(params: Any, tokens: Any) -> Any:
        newest = tokens.shape[1] - count - 2
        return sampler.begin(params, tokens, newest, config.z_index_dim - 1)[1]

    def step(params: Any, cache: Any, tokens: Any, at: Any) -> Any:
        return sampler.step(params, cache, tokens, at)

    return jax.jit(start), _loop(step, count)


def recompute_loop(config: Any, count: int) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return the same without caches: all latents of all tokens so far, for each."""
    import jax.numpy as jnp

    from perceiver_ar.network import PerceiverAR

    network = PerceiverAR(config)

    def step(params: Any, state: Any, tokens: Any, at: Any) -> Any:
        seen = jnp.where(jnp.arange(tokens.shape[1]) <= at, tokens, 0)
        logits: Any = network.apply({"params": params}, seen)
        return logits[:, -1], state

    return lambda params, tokens: (), _loop(step, count)
