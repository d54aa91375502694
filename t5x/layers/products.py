"""Products with kernels whose gradients come out in the layout of the kernel.

Of a kernel [I, O], autodiff derives the gradient as the transpose of a product [O, I], which XLA's
CPU backend computes two to three times more slowly than the product [I, O] itself. `project`
differentiates to the latter; otherwise it is `lax.dot_general`, in forward mode too. Inside a
`jax.shard_map` its gradients need `check_vma=False`.

Letters in shapes: I input features, O output features, each of one axis or more.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.custom_derivatives import SymbolicZero
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def project(x: Array, kernel: Array, contracted: int = 1) -> Array:
    """Contract the last axes of `x` with the first of `kernel`.

    Args:
      x: [..., I].
      kernel: [I, O], of the same type.
      contracted: number of axes of I.

    Returns:
      [..., O].
    """
    return _product(x, kernel, contracted=contracted)


def _project_jvp(contracted: int, primals: Any, tangents: Any) -> tuple[Array, Array]:
    (x, kernel), (dx, dkernel) = primals, tangents
    # Plain products, which policies of recomputation know.
    y = _product(x, kernel, contracted=contracted)
    terms = []
    if not isinstance(dx, SymbolicZero):
        terms.append(_product(dx, kernel, contracted=contracted))
    if not isinstance(dkernel, SymbolicZero):
        terms.append(_of_tangent.bind(x, dkernel, contracted=contracted))
    return y, sum(terms[1:], terms[0]) if terms else jnp.zeros_like(y)


project.defjvp(_project_jvp, symbolic_zeros=True)


#: The product of `x` and the tangent of a kernel. Only primitives may say how they are transposed.
_of_tangent = Primitive("product_of_kernel_tangent")


def _product(x: Array, kernel: Array, *, contracted: int) -> Array:
    last = tuple(range(x.ndim - contracted, x.ndim))
    return lax.dot_general(x, kernel, ((last, tuple(range(contracted))), ((), ())))


def _abstract_product(x: Any, kernel: Any, *, contracted: int) -> Any:
    product = jax.make_jaxpr(functools.partial(_product, contracted=contracted))
    return product(x, kernel).out_avals[0]


def _transpose_to_x(grad: Array, _: Any, kernel: Array, *, contracted: int) -> Array:
    outputs = kernel.ndim - contracted
    last = tuple(range(grad.ndim - outputs, grad.ndim))
    return lax.dot_general(grad, kernel, ((last, tuple(range(contracted, kernel.ndim))), ((), ())))


def _transpose_to_kernel(grad: Array, x: Array, _: Any, *, contracted: int) -> Array:
    leading = tuple(range(x.ndim - contracted))
    if jax.default_backend() == "cpu":
        # Else XLA computes what made `x` again, element by element in the order of the transpose.
        x = lax.optimization_barrier(x)
    return lax.dot_general(x, grad, ((leading, leading), ((), ())))


def _batched_product(args: Any, axes: Any, *, contracted: int) -> tuple[Array, int]:
    product = functools.partial(_product, contracted=contracted)
    return jax.vmap(product, in_axes=axes)(*args), 0


_of_tangent.def_impl(jax.jit(_product, static_argnames="contracted"))
_of_tangent.def_abstract_eval(_abstract_product)
ad.defbilinear(_of_tangent, _transpose_to_x, _transpose_to_kernel)
batching.primitive_batchers[_of_tangent] = _batched_product
mlir.register_lowering(_of_tangent, mlir.lower_fun(_product, multiple_results=False))
