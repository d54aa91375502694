"""Perceiver AR: training steps, memory and generation, on one thread of a CPU.

Training steps are compared with the time which their floating-point operations (by formula,
`perceiver_ar.flops`) would take as one large product of matrices. Generation is compared with a
loop that recomputes everything for every token, and with the reference's way of caching, written
down in `benchmarks.baselines.rolled_cache`. Tokens are the most likely ones; with caches their
number is such that the latents are recomputed exactly once.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.harness import Row, cpu_seconds, effort, matmul_gflops, run_pinned
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
TRAINED = ((512, 256), (2048, 256), (8192, 256), (8192, 1024))  # T, N
SAMPLED = (4096, 512)
BLOCK = 512  # keys attended to at a time
GOAL = 3.0


def measure(tiny: bool = False) -> list[Row]:
    """Return steps, bytes and tokens of both sides."""
    found = run_pinned("benchmarks.perceiver_ar:figures", tiny=tiny)
    unit, bound = "steps / CPU s", "its FLOPs as one matmul"
    rows = [
        Row(f"train step, {x['case']}", unit, x["steps"], x["bound"], bound) for x in found["steps"]
    ]
    memory, rates = found["memory"], found["generation"]
    rows.append(
        Row(
            f"temporary memory of a train step, {memory['case']}",
            "MB",
            memory["blocks"],
            memory["at once"],
            "attention to all keys at once",
            higher_is_better=False,
        )
    )
    case = f"generation, {rates['case']}"
    rows += [
        Row(case, "tokens / CPU s", rates["ours"], rates[name], name, goal=GOAL)
        for name in ("everything recomputed", "the reference's cache")
    ]
    return rows


def figures(tiny: bool) -> dict[str, Any]:
    """Return all figures, measured in this process."""
    network, trained, sampled = (TINY, ((16, 8),), (24, 8)) if tiny else (NETWORK, TRAINED, SAMPLED)
    rate = matmul_gflops(tiny)
    return {
        "steps": [
            train_rate(make_config(network, *sizes, attention_block=BLOCK), rate, tiny)
            for sizes in trained
        ],
        "memory": memory(network, *trained[-1], tiny),
        "generation": generation_rates(make_config(network, *sampled), tiny),
    }


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


def train_rate(config: Any, gflops: float, tiny: bool) -> dict[str, Any]:
    """Return steps per CPU second, and their bound at a rate of GFLOP per CPU second."""
    import jax

    trainer = random_trainer(make_model(config), random_batch(config))
    batch = trainer.to_device(random_batch(config))

    def step() -> None:
        trainer.step(batch)
        jax.block_until_ready(trainer.train_state)

    step()
    cost = trainer.model_flops / 1e9
    seconds = cpu_seconds(step, **(effort(tiny) or {"repeats": 3}))
    case = f"T={config.max_context_length:,}, N={config.z_index_dim:,}, {cost:.3g} GFLOP"
    return {"case": case, "steps": 1 / seconds, "bound": gflops / cost}


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


def memory(network: dict[str, Any], length: int, num_latents: int, tiny: bool) -> dict[str, Any]:
    """Return megabytes with blocks and without."""
    found: dict[str, Any] = {"case": f"T={length:,}, N={num_latents:,}"}
    for name, block in {"blocks": 4 if tiny else BLOCK, "at once": None}.items():
        config = make_config(network, length, num_latents, attention_block=block)
        found[name] = temporary_bytes(compiled_gradient(config)[0]) / 1e6
    return found


# --------------------------------------------------------------------------------- generation


def generation_rates(config: Any, tiny: bool) -> dict[str, Any]:
    """Return tokens per CPU second of the three ways, at the end of the context."""
    import jax

    tokens, params = random_batch(config)["decoder_input_tokens"], random_network_params(config)
    length, size = tokens.shape[1], config.z_index_dim
    cycle = size - size // 2  # the tokens after which a block of latents is full again
    ways = {
        "ours": (*our_loop(config, cycle), cycle),
        "the reference's cache": (*rolled_loop(config, cycle), cycle),
        "everything recomputed": (*recompute_loop(config, 2), 2),
    }
    found: dict[str, Any] = {"case": f"T={length:,}, N={size:,}"}
    for name, (start, run, count) in ways.items():
        state = jax.block_until_ready(start(params, tokens))
        work = functools.partial(run, params, state, tokens)
        seconds = cpu_seconds(
            lambda work=work: jax.block_until_ready(work()), **(effort(tiny) or {"repeats": 3})
        )
        found[name] = count / seconds
    return found


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
