"""Optax transformations as update rules."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

from t5x import optimizers

PARAMS = {"w": jnp.arange(6.0).reshape(2, 3), "b": {"x": jnp.ones((3,))}}
GRADS = jax.tree.map(lambda p: jnp.sin(p + 1), PARAMS)


def optax_steps(transformation, rates):
    params, state = PARAMS, transformation.init(PARAMS)
    for rate in rates:
        updates, state = transformation.update(GRADS, state, params)
        params = optax.apply_updates(params, jax.tree.map(lambda u, r=rate: u * r, updates))
    return params


def assert_trees_close(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), a, b)


@pytest.mark.parametrize("name", ["adam", "adamw", "lion", "sgd", "rmsprop", "radam", "lamb"])
def test_without_a_learning_rate_the_trainers_is_used(name):
    optimizer = getattr(optimizers, name)().create(PARAMS)
    for rate in (0.1, 0.02):
        optimizer = optimizer.apply_gradient(GRADS, learning_rate=rate)
    expected = optax_steps(getattr(optax, name)(1.0), [0.1, 0.02])
    assert_trees_close(optimizer.target, expected)
    assert optimizer.state.step == 2


def test_a_learning_rate_of_its_own_wins():
    optimizer = optimizers.adamw(0.01, weight_decay=0.1).create(PARAMS)
    for _ in range(2):
        optimizer = optimizer.apply_gradient(GRADS, learning_rate=123.0)
    assert_trees_close(optimizer.target, optax_steps(optax.adamw(0.01, weight_decay=0.1), [1, 1]))


def test_chain_composes():
    rule = optimizers.chain(optax.clip_by_global_norm(0.1), optax.sgd(1.0))
    new = rule.create(PARAMS).apply_gradient(GRADS)
    moved = jax.tree.map(lambda a, b: a - b, PARAMS, new.target)
    assert float(optax.tree.norm(moved)) == pytest.approx(0.1, rel=1e-5)


def test_missing_learning_rate_is_named():
    with pytest.raises(ValueError, match="learning_rate="):
        optimizers.adamw().create(PARAMS).apply_gradient(GRADS)


def test_state_dict_round_trip():
    rule = optimizers.adamw()
    trained = rule.create(PARAMS).apply_gradient(GRADS, learning_rate=0.1)
    state = jax.tree.map(np.asarray, trained.state_dict())
    assert set(state) == {"target", "state"}
    restored = rule.create(jax.tree.map(jnp.zeros_like, PARAMS)).restore_state(state)
    assert jax.tree.structure(restored) == jax.tree.structure(trained)
    assert_trees_close(restored, trained)


def test_moments_follow_their_parameters_axes():
    rule = optimizers.chain(optax.clip_by_global_norm(1.0), optax.adamw(0.1))
    axes = {"w": PartitionSpec("embed", "mlp"), "b": {"x": PartitionSpec("embed")}}
    optimizer = rule.create(PARAMS)
    derived = rule.derive_logical_axes(optimizer, axes)
    assert derived.target == axes
    moments = derived.state.param_states[1][0]
    assert moments.mu == axes
    assert moments.nu == axes
    assert moments.count is None


def test_factored_slots_are_replicated():
    rule = optimizers.adafactor(min_dim_size_to_factor=2)
    axes = {"w": PartitionSpec("embed", "mlp"), "b": {"x": PartitionSpec("embed")}}
    derived = rule.derive_logical_axes(rule.create(PARAMS), axes)
    factored = derived.state.param_states[0]
    assert factored.v_row["w"] is None
    assert factored.v["b"]["x"] == PartitionSpec("embed")
