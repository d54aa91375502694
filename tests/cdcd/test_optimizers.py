"""The groups of the optimizer: who learns how fast, what is clipped, what decays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdcd import optimizers

PARAMS = {
    "token_embed": {"embedding": jnp.ones((3, 2))},
    "encoder": {"token_embed": {"embedding": jnp.ones(2)}},
    "trunk": {"kernel": jnp.ones((2, 2))},
    "time_mlp": {"fourier": jnp.ones(4)},
    "warp": {"lt": jnp.ones(5), "lu": jnp.ones(5)},
}
FREQUENCIES = {"time_mlp": {"fourier": jnp.zeros(4)}}
SMALL = jax.tree.map(lambda x: 1e-3 * x, PARAMS) | FREQUENCIES
RATE = 0.1


def moved(grads_of_steps, **options):
    """By how much each parameter has moved after steps with these gradients."""
    state = optimizers.grouped_adam(**options).create(PARAMS)
    for grads in grads_of_steps:
        state = state.apply_gradient(grads, learning_rate=RATE)
    return jax.tree.map(lambda a, b: float(jnp.max(b - a)), state.target, PARAMS)


def test_learning_rates_of_the_groups():
    """The first step of Adam is as long as the learning rate."""
    found = moved([SMALL], warp_learning_rate=0.02, embedding_factor=3.0)
    assert found["token_embed"]["embedding"] == pytest.approx(3 * RATE, rel=1e-3)
    assert found["encoder"]["token_embed"]["embedding"] == pytest.approx(3 * RATE, rel=1e-3)
    assert found["trunk"]["kernel"] == pytest.approx(RATE, rel=1e-3)
    assert found["warp"] == pytest.approx({"lt": 0.02, "lu": 0.02}, rel=1e-3)


def test_frequencies_of_times_stay_and_curves_and_embeddings_do_not_decay():
    still = jax.tree.map(jnp.zeros_like, PARAMS)
    found = moved([still, still], weight_decay=0.5)
    assert found["trunk"]["kernel"] == pytest.approx(1 - (1 - RATE * 0.5) ** 2, rel=1e-5)
    found.pop("trunk")
    assert not any(jax.tree.leaves(found))


def test_clipping_is_of_all_but_embeddings_and_curves_which_do_not_count():
    """By the second step, as the first of Adam is of one length."""
    large = {**SMALL, "trunk": {"kernel": jnp.full((2, 2), 50.0)}}
    clipped = {**SMALL, "trunk": {"kernel": jnp.full((2, 2), 0.5)}}  # of norm 1
    small = {**SMALL, "trunk": {"kernel": jnp.full((2, 2), 1e-2)}}
    expected = moved([clipped, small])
    assert moved([large, small]) == expected
    assert moved([large, small], max_norm=None)["trunk"] != expected["trunk"]
    others = {"token_embed": {"embedding": jnp.full((3, 2), 1e3)}, "warp": PARAMS["warp"]}
    found = moved([{**clipped, **others}, small])
    assert found["trunk"] == expected["trunk"]
    assert found["token_embed"] != expected["token_embed"]
    unclipped = moved([{**clipped, **others}, small], max_norm=None)
    assert found["token_embed"] == unclipped["token_embed"]


def test_an_average_may_be_kept():
    rule = optimizers.grouped_adam(average_decay=0.5)
    state = rule.create(PARAMS).apply_gradient(SMALL, learning_rate=RATE)
    averaged = rule.averaged_params(state.state)["trunk"]["kernel"]
    now = state.target["trunk"]["kernel"]
    assert (now < averaged).all()
    assert (averaged < 1).all()


def test_models_without_curves():
    params = {name: x for name, x in PARAMS.items() if name != "warp"}
    rule = optimizers.grouped_adam(warp_learning_rate=None)
    grads = {name: SMALL[name] for name in params}
    state = rule.create(params).apply_gradient(grads, learning_rate=RATE)
    np.testing.assert_allclose(state.target["trunk"]["kernel"], 1 - RATE, rtol=1e-3)
    with pytest.raises(ValueError, match="warp"):
        optimizers.grouped_adam().create(params)
