"""A training step of a small transformer in jax.numpy alone, to compare times of compiling with.

It uses none of this repository's layers, so that it stays the same when they change.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

LAYERS, WIDTH, HEADS, VOCABULARY = 4, 64, 4, 256
ROWS, LENGTH = 2, 32
RATE = 1e-3


def shapes() -> tuple[Any, Any]:
    """Return the shapes of (parameters, tokens [B, L])."""

    def array(*shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, jnp.float32)

    layer = {name: array(WIDTH, WIDTH) for name in ("query", "key", "value", "out")}
    layer |= {"wi": array(WIDTH, 4 * WIDTH), "wo": array(4 * WIDTH, WIDTH)}
    layer |= {"scale": array(2, WIDTH)}
    params = {"table": array(VOCABULARY, WIDTH), "layers": [layer] * LAYERS}
    return params, jax.ShapeDtypeStruct((ROWS, LENGTH), jnp.int32)


def new_step() -> Callable[..., Any]:
    """Return a step that JAX has not seen: (parameters, tokens) -> (parameters, loss)."""

    def step(params: Any, tokens: Any) -> Any:
        loss, gradient = jax.value_and_grad(_loss)(params, tokens)
        return jax.tree.map(lambda p, g: p - RATE * g, params, gradient), loss

    return step


def compile_anew() -> Any:
    """Trace, lower and compile the step; nothing is kept from the last time."""
    jax.clear_caches()
    return jax.jit(new_step()).lower(*shapes()).compile()


def _loss(params: Any, tokens: Any) -> Any:
    x = params["table"][tokens[:, :-1]]
    for layer in params["layers"]:
        x = x + _attend(layer, _normalise(x, layer["scale"][0]))
        x = x + jax.nn.gelu(_normalise(x, layer["scale"][1]) @ layer["wi"]) @ layer["wo"]
    scores = jax.nn.log_softmax(x @ params["table"].T)
    return -jnp.take_along_axis(scores, tokens[:, 1:, None], axis=-1).mean()


def _normalise(x: Any, scale: Any) -> Any:
    return x * scale * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + 1e-6)


def _attend(layer: Any, x: Any) -> Any:
    def heads(name: str) -> Any:
        return (x @ layer[name]).reshape(*x.shape[:2], HEADS, -1)

    logits = jnp.einsum("bqhd,bkhd->bhqk", heads("query"), heads("key"))
    visible = jnp.tril(jnp.ones(logits.shape[-2:], bool))
    weights = jax.nn.softmax(jnp.where(visible, logits, -1e9))
    return jnp.einsum("bhqk,bkhd->bqhd", weights, heads("value")).reshape(x.shape) @ layer["out"]
