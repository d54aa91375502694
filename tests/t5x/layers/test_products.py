"""`project` is a product of matrices, whose gradient of the kernel needs no transposition."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from t5x.layers.products import project

rng = np.random.default_rng(0)
X = rng.normal(size=(2, 3, 4, 5)).astype(np.float32)
KERNEL = rng.normal(size=(4, 5, 6, 2)).astype(np.float32)
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def ours(x, kernel):
    return jnp.sum(jnp.sin(project(x, kernel, 2)))


def plain(x, kernel):
    return jnp.sum(jnp.sin(lax.dot_general(x, kernel, (((2, 3), (0, 1)), ((), ())))))


def in_steps(of, x, kernel):
    """Products in a `lax.scan` whose bodies are computed again in the backward pass."""
    body = jax.checkpoint(lambda total, row: (total + of(row, kernel), None))
    return lax.scan(body, jnp.float32(0.0), x[:, None])[0]


TRANSFORMATIONS = {
    "value": lambda of: of,
    "gradients": lambda of: jax.grad(of, (0, 1)),
    "gradient of the kernel alone": lambda of: jax.grad(of, 1),
    "forward mode": lambda of: lambda x, k: jax.jvp(of, (x, k), (0.5 * x, jnp.cos(k))),
    "forward over reverse": lambda of: (
        lambda x, k: jax.jvp(jax.grad(of, (0, 1)), (x, k), (0.5 * x, jnp.cos(k)))
    ),
    "gradients of each row": lambda of: (
        lambda x, k: jax.vmap(jax.grad(of, (0, 1)), (0, None))(x[:, None], k)
    ),
    "scan and recomputation": lambda of: jax.grad(functools.partial(in_steps, of), (0, 1)),
}


@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_transformations_are_those_of_the_plain_product(name):
    found, expected = (jax.jit(TRANSFORMATIONS[name](of))(X, KERNEL) for of in (ours, plain))
    jax.tree.map(functools.partial(np.testing.assert_allclose, **CLOSE), found, expected)


def test_gradients_keep_the_type():
    x, kernel = jnp.asarray(X, jnp.bfloat16), jnp.asarray(KERNEL, jnp.bfloat16)
    found, expected = (jax.grad(of, (0, 1))(x, kernel) for of in (ours, plain))
    for a, b in zip(found, expected):
        assert a.dtype == jnp.bfloat16
        np.testing.assert_allclose(a.astype(np.float32), b.astype(np.float32), rtol=0.1, atol=0.1)


def test_the_gradient_of_a_kernel_is_no_transpose():
    program = str(jax.make_jaxpr(jax.grad(ours, 1))(X, KERNEL))
    assert "transpose[" in str(jax.make_jaxpr(jax.grad(plain, 1))(X, KERNEL))
    assert "transpose[" not in program


def test_recomputation_may_keep_products():
    keep = jax.checkpoint_policies.checkpoint_dots_with_no_batch_dims
    grad = jax.grad(jax.checkpoint(lambda k: ours(X, k), policy=keep))
    # One in the forward pass, and that of the gradient: none is computed again.
    assert str(jax.make_jaxpr(grad)(KERNEL)).count("dot_general[") == 2
    np.testing.assert_allclose(grad(KERNEL), jax.grad(plain, 1)(X, KERNEL), **CLOSE)
