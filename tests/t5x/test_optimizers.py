"""Optax transformations as update rules."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import traverse_util
from jax.sharding import PartitionSpec

from t5x import adafactor, optimizers

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


@pytest.mark.parametrize(
    "name", ["adam", "adamw", "lion", "sgd", "rmsprop", "radam", "lamb", "yogi"]
)
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
    rule = optimizers.chain([optax.clip_by_global_norm(0.1), optax.sgd(1.0)])
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
    rule = optimizers.chain([optax.clip_by_global_norm(1.0), optax.adamw(0.1)])
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


def test_each_rule_of_a_multi_optimizer_moves_its_own_and_nothing_else():
    rule = optimizers.MultiOptimizer(
        [("w", optimizers.sgd()), (lambda path, value: path == "/b/x", optimizers.adam(0.5))]
    )
    alone = {
        "w": optimizers.sgd().create({"w": PARAMS["w"]}),
        "b": optimizers.adam(0.5).create({"x": PARAMS["b"]["x"]}),
    }
    params = {**PARAMS, "frozen": jnp.ones(2)}
    grads = {**GRADS, "frozen": jnp.ones(2)}
    together = rule.create(params)
    for rate in (0.1, 0.3):
        together = together.apply_gradient(grads, learning_rate=rate)
        alone["w"] = alone["w"].apply_gradient({"w": GRADS["w"]}, learning_rate=rate)
        alone["b"] = alone["b"].apply_gradient(GRADS["b"])
    expected = {**alone["w"].target, "b": alone["b"].target, "frozen": params["frozen"]}
    assert_trees_close(together.target, expected)
    assert together.state.step == 2
    state = jax.tree.map(np.asarray, together.state_dict())
    restored = rule.create(jax.tree.map(jnp.zeros_like, params)).restore_state(state)
    assert_trees_close(restored, together)


def test_a_multi_optimizer_takes_flax_traversals():
    traversal = traverse_util.ModelParamTraversal(lambda path, _: path.startswith("/b"))
    rule = optimizers.MultiOptimizer([(traversal, optimizers.sgd(1.0))])
    new = rule.create(PARAMS).apply_gradient(GRADS)
    np.testing.assert_array_equal(new.target["w"], PARAMS["w"])
    np.testing.assert_allclose(new.target["b"]["x"], PARAMS["b"]["x"] - GRADS["b"]["x"])


def test_slots_of_a_multi_optimizer_follow_their_parameters():
    rule = optimizers.MultiOptimizer(
        [("w", adafactor.Adafactor(factored=False)), ("b/.*", optimizers.adam())]
    )
    axes = {"w": PartitionSpec("embed", "mlp"), "b": {"x": PartitionSpec("embed")}}
    rule.set_param_axes(axes)
    slots = rule.derive_logical_axes(rule.create(PARAMS), axes).state.param_states
    assert slots["0"]["w"].v == axes["w"]
    assert slots["1"][0].mu == {"b": axes["b"]}


def test_a_filter_without_parameters_is_named():
    with pytest.raises(ValueError, match=r"no parameter is left for \['nothing'\]"):
        optimizers.MultiOptimizer([("nothing", optimizers.sgd())]).create(PARAMS)
    with pytest.raises(TypeError, match="is no filter"):
        optimizers.MultiOptimizer([(3, optimizers.sgd())])


def test_the_moving_average_follows_its_formula():
    rule = optimizers.ExponentialMovingAverage(optimizers.sgd(0.1), decay=0.3)
    optimizer, average = rule.create(PARAMS), PARAMS
    for t in range(1, 6):
        optimizer = optimizer.apply_gradient(GRADS)
        keep = min(0.3, (1 + t) / (10 + t))
        average = jax.tree.map(lambda e, p, k=keep: k * e + (1 - k) * p, average, optimizer.target)
    assert_trees_close(rule.averaged_params(optimizer.state), average)
    plain = optimizers.sgd(0.1).create(PARAMS)
    for _ in range(5):
        plain = plain.apply_gradient(GRADS)
    assert_trees_close(optimizer.target, plain.target)
    axes = {"w": PartitionSpec("embed", "mlp"), "b": {"x": PartitionSpec("embed")}}
    derived = rule.derive_logical_axes(optimizer, axes)
    assert derived.state.param_states["ema"] == axes


def test_the_moving_average_needs_a_decay_below_one():
    with pytest.raises(ValueError, match=r"decay is 1\.0"):
        optimizers.ExponentialMovingAverage(optimizers.sgd(0.1), decay=1.0)


def test_amos_says_what_to_use():
    with pytest.raises(NotImplementedError, match=r"use optimizers\.adamw"):
        optimizers.amos()
