"""What every train state offers."""

import jax.numpy as jnp
import pytest

from t5x import optimizers
from t5x.adafactor import Adafactor, standard_factor_rules, standard_logical_factor_rules
from t5x.train_state import FlaxOptimTrainState, InferenceState, TrainState


def test_both_states_are_train_states():
    variables = {"params": {"w": jnp.ones(3)}}
    rule: optimizers.OptimizerDefType = Adafactor()
    training = FlaxOptimTrainState.create(rule, variables)
    inference = InferenceState.create(variables)
    assert isinstance(training, TrainState)
    assert isinstance(inference, TrainState)
    assert not isinstance(variables, TrainState)
    for state in (training, inference):
        moved = state.replace_step(5).replace_params({"w": jnp.zeros(3)})
        assert int(moved.step) == 5
        assert moved.eval_params["w"].tolist() == [0, 0, 0]
    assert training.param_states["w"].v.shape == (3,)
    assert inference.param_states == {}
    with pytest.raises(TypeError, match="no optimizer"):
        inference.apply_gradient(variables["params"], 0.1)


def test_only_rules_by_axes_need_axes():
    variables = {"params": {"logits_dense": {"kernel": jnp.ones((4, 6))}}}
    by_name = Adafactor(factor_map=standard_factor_rules())
    state = FlaxOptimTrainState.create(by_name, variables)
    assert state.param_states["logits_dense"]["kernel"].v_row.shape == (4,)
    by_axes = Adafactor(logical_factor_rules=standard_logical_factor_rules())
    with pytest.raises(ValueError, match="Adafactor reads the parameters' logical axes"):
        FlaxOptimTrainState.create(by_axes, variables)
