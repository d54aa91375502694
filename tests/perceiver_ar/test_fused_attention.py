"""The kernels, interpreted on a CPU and lowered for a GPU; and run where there is one."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractDevice, AbstractMesh

from perceiver_ar import fused_attention
from perceiver_ar.attention import AttentionOptions, attend
from perceiver_ar.masks import NEVER
from tests.cases import slow_but
from tests.perceiver_ar.test_attention import by_hand, example

FUSED = AttentionOptions(kernel="fused")


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def interpreted(q, k, v, query_steps, key_steps, own_key):
    return _interpreted_forward(q, k, v, query_steps, key_steps, own_key)[0]


def _interpreted_forward(*given_and_own_key):
    *given, own_key = given_and_own_key
    out, log_total = fused_attention.forward(*given, own_key=own_key, interpret=True)
    return out, (*given, out, log_total)


def _interpreted_backward(own_key, residuals, grad):
    run = functools.partial(fused_attention.backward, own_key=own_key, interpret=True)
    return *run(*residuals, grad), None, None


interpreted.defvjp(_interpreted_forward, _interpreted_backward)


def out_and_grads(run, q, k, v):
    weights = np.random.default_rng(1).normal(size=q.shape).astype(np.float32)

    def total(q, k, v):
        out = run(q, k, v)
        return jnp.sum(weights * out), out

    grads, out = jax.jit(jax.grad(total, (0, 1, 2), has_aux=True))(q, k, v)
    return out, *grads


def check(q, k, v, query_steps, key_steps, own_key):
    def kernels(q, k, v):
        q = q / math.sqrt(q.shape[-1])
        return interpreted(q, k, v, query_steps, key_steps, own_key)

    def plain(q, k, v):
        return attend(q, k, v, query_steps, key_steps, own_key=own_key)

    found, expected = (out_and_grads(run, q, k, v) for run in (kernels, plain))
    np.testing.assert_allclose(found[0], expected[0], atol=1e-5, rtol=1e-5)
    for a, b in zip(found[1:], expected[1:]):
        np.testing.assert_allclose(a, b, atol=1e-4)


LENGTHS = [(5, 5), (3, 150), (64, 64), (70, 193), (130, 64)]


@pytest.mark.parametrize(
    "lengths", slow_but(["(3, 150)", "(64, 64)"], {str(lengths): lengths for lengths in LENGTHS})
)
def test_cross_attention_of_lengths_that_do_and_do_not_divide(lengths):
    queries, keys = lengths
    # Rows of which the first sees two thirds of the keys, the second all but one.
    check(*example(queries, keys), own_key=False)


@pytest.mark.parametrize(
    ("latents", "missing"),
    [
        (70, 5),
        *(pytest.param(*x, marks=pytest.mark.slow) for x in ((9, 0), (130, 128), (130, 130))),
    ],
)
def test_self_attention_with_latents_that_have_no_position(latents, missing):
    q, k, v, steps, _ = example(latents, latents)
    steps = np.where(np.arange(latents) < missing, -1, steps)
    check(q, k, v, steps, np.where(steps < 0, NEVER, steps), own_key=True)


def test_keys_in_any_order_and_holes_as_large_as_blocks():
    q, k, v, query_steps, _ = example(80, 300)
    rng = np.random.default_rng(2)
    shuffled = np.stack([rng.permutation(300), np.arange(300)])
    shuffled[1, 60:200] = NEVER
    check(q, k, v, query_steps, shuffled.astype(np.int32), own_key=False)


def test_widths_that_are_no_powers_of_two_and_half_precision():
    q, k, v, query_steps, key_steps = example(10, 70, width=24)
    check(q, k, v, query_steps, key_steps, own_key=False)
    q = q / 4
    half = [x.astype(jnp.bfloat16) for x in (q / math.sqrt(24), k, v)]
    forward = jax.jit(functools.partial(fused_attention.forward, interpret=True))
    out, _ = forward(*half, query_steps, key_steps)
    assert out.dtype == jnp.bfloat16
    expected = by_hand(q, k, v, query_steps, key_steps)
    np.testing.assert_allclose(np.asarray(out, np.float32), expected, atol=0.1)


def test_a_query_that_sees_nothing_gets_zeros_and_no_gradient():
    q, k, v, query_steps, key_steps = example(66, 9)
    nothing = np.full_like(key_steps, NEVER)
    run = functools.partial(interpreted, query_steps=query_steps, key_steps=nothing, own_key=False)
    assert not any(np.any(x) for x in out_and_grads(run, q, k, v))


def test_blocks_that_nothing_is_seen_of_are_left_out():
    """Rows of 300 keys, with all and with 100 of them; 128 queries at the end of the first."""
    query_steps = np.tile(np.arange(192, 320), (2, 1))
    key_steps = np.stack([np.arange(320), np.where(np.arange(320) < 100, np.arange(320), NEVER)])
    seen_blocks = jax.jit(fused_attention._seen_blocks, static_argnums=(2, 3))
    ends, starts = seen_blocks(query_steps, key_steps, False, 64)
    assert ends.tolist() == [[4, 5], [2, 2]]
    assert starts.tolist() == [[0, 0, 0, 0, 1], [0, 0, 2, 2, 2]]


def shapes(dtype, width=64, queries=100, keys=1000):
    def heads(length):
        return jax.ShapeDtypeStruct((1, 2, length, width), dtype)

    steps = [jax.ShapeDtypeStruct((1, length), jnp.int32) for length in (queries, keys)]
    return heads(queries), heads(keys), heads(keys), *steps


def h100():
    device = AbstractDevice(device_kind="NVIDIA H100 80GB HBM3", num_cores=None, platform="gpu")
    return jax.sharding.use_abstract_mesh(AbstractMesh((), (), abstract_device=device))


def total(q, k, v, query_steps, key_steps, options=FUSED):
    out = attend(q, k, v, query_steps, key_steps, options=options)
    return out.astype(jnp.float32).sum()


@pytest.mark.filterwarnings("ignore:The Pallas Triton backend is deprecated")
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_programs_for_a_gpu_have_the_kernels_and_others_have_blocks(dtype):
    run = jax.jit(jax.value_and_grad(total, (0, 1, 2)))
    with h100():
        on_gpu = run.trace(*shapes(dtype)).lower(lowering_platforms=("cuda",)).as_text()
    for name in ("_forward_kernel", "_grad_query_kernel", "_grad_key_kernel"):
        assert name in on_gpu
    assert "triton" not in run.lower(*shapes(dtype)).as_text()


def attended(q, k, v, query_steps, key_steps, options, own_key=False):
    def run(q, k, v):
        return attend(q, k, v, query_steps, key_steps, own_key=own_key, options=options)

    return out_and_grads(run, q, k, v)


@pytest.mark.parametrize("block", [None, 9])
def test_elsewhere_it_is_blocks(block):
    given = example(7, 40)
    found = attended(*given, AttentionOptions(block, kernel="fused"))
    for a, b in zip(found, attended(*given, AttentionOptions())):
        np.testing.assert_allclose(a, b, atol=2e-5)


def test_heads_that_are_too_wide_are_named():
    wide = shapes(jnp.float32, width=320)
    with pytest.raises(ValueError, match=r"attention_kernel='fused'.*320: use 'blocks'"):
        jax.eval_shape(total, *wide)
    jax.eval_shape(functools.partial(total, options=AttentionOptions()), *wide)


@pytest.mark.skipif(jax.default_backend() != "gpu", reason="needs a CUDA GPU")
@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.bfloat16, 0.05), (jnp.float32, 1e-4)])
@pytest.mark.parametrize(("queries", "keys", "own_key"), [(70, 70, True), (1024, 8100, False)])
def test_a_gpu_agrees(dtype, tolerance, queries, keys, own_key):
    q, k, v, query_steps, key_steps = example(queries, keys, width=64)
    given = (*(x.astype(dtype) for x in (q / 9, k, v)), query_steps, key_steps)
    with jax.default_matmul_precision("highest"):
        found, expected = (attended(*given, o, own_key) for o in (FUSED, AttentionOptions()))
    for a, b in zip(found, expected):
        scale = np.abs(np.asarray(b, np.float32)).max()
        a, b = (np.asarray(x, np.float32) / scale for x in (a, b))
        np.testing.assert_allclose(a, b, atol=tolerance)
