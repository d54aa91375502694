"""Train states of scanned layers from and to separate ones: training goes on as if never moved."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from t5x import adafactor, checkpoints, models, optimizers
from t5x.checkpoints import CheckpointError, scan_params, unscan_params
from t5x.checkpoints.scanned_states import convert_layers
from t5x.examples.scalable_t5 import network
from t5x.examples.t5 import network as plain_network
from t5x.partitioning import PjitPartitioner
from t5x.restoring import TrainStateInitializer
from t5x.train_state import FlaxOptimTrainState, InferenceState
from tests.cases import slow_but
from tests.t5x import networks

SCANNED = network.T5Config(
    vocab_size=32,
    emb_dim=16,
    num_heads=2,
    num_encoder_layers=1,
    num_decoder_layers=2,
    head_dim=8,
    mlp_dim=24,
    mlp_activations=("gelu", "linear"),
)
SINGLE = SCANNED.replace(scan_layers=False)
SHAPES = dict.fromkeys(
    ("encoder_input_tokens", "decoder_input_tokens", "decoder_target_tokens"), (2, 4)
)


def make_adafactor(**options):
    rules = adafactor.standard_logical_factor_rules()
    return adafactor.Adafactor(logical_factor_rules=rules, **options)


#: Rules whose state has an exact counterpart both ways for networks as small as these.
RULES = {
    "adafactor": lambda: make_adafactor(min_dim_size_to_factor=16, beta1=0.9),
    "adafactor unfactored": lambda: make_adafactor(factored=False),
    "ema of adamw": lambda: optimizers.ExponentialMovingAverage(optimizers.adamw(0.01), 0.9),
    "ema of adafactor": lambda: optimizers.ExponentialMovingAverage(
        make_adafactor(min_dim_size_to_factor=16)
    ),
    "chain": lambda: optimizers.chain([optax.clip_by_global_norm(1.0), optax.lion(0.01)]),
    "accumulated": lambda: optimizers.OptaxWrapper(
        optax.MultiSteps(optax.adam(0.01), 2).gradient_transformation()
    ),
    "two rules": lambda: optimizers.MultiOptimizer(
        [
            ("decoder/.*", make_adafactor(min_dim_size_to_factor=16)),
            ("encoder/.*", optimizers.sgd(0.1, momentum=0.9)),
        ]
    ),
}


def make_state(config, rule, params=None, transformer=network.Transformer):
    """The state of step 0, with these parameters; without them, of shapes only."""
    model = models.EncoderDecoderModel(transformer(config), None, None, rule)
    types = dict.fromkeys(SHAPES, jnp.int32)
    variables = jax.eval_shape(
        lambda: model.get_initial_variables(jax.random.key(0), SHAPES, types)
    )

    def create(params):
        return FlaxOptimTrainState.create(rule, {**variables, "params": params})

    if params is None:
        return jax.eval_shape(create, variables["params"])
    return create(jax.tree.map(jnp.asarray, params))


@functools.cache
def single_params(transformer=network.Transformer, config=SINGLE):
    return networks.random_params(
        make_state(config, optimizers.sgd(1.0), transformer=transformer).params
    )


STEP = jax.jit(lambda state, grads: state.apply_gradient(grads, learning_rate=0.01))


def update(state, seed, convert):
    """One update by gradients drawn for separate layers."""
    rng = np.random.default_rng(seed)
    grads = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), single_params())
    return STEP(state, convert(grads))


def unscanned(params):
    return unscan_params(params, shared_positions=False)


@pytest.mark.parametrize(
    "make_rule", slow_but(["adafactor", "ema of adafactor", "two rules"], RULES)
)
@pytest.mark.parametrize(
    "scanning", slow_but(["to scanned"], {"to scanned": True, "to single": False})
)
def test_training_goes_on_in_the_other_layout(make_rule, scanning):
    rule = make_rule()
    layouts = [(SINGLE, lambda x: x), (SCANNED, scan_params)]
    (config, own), (other_config, other) = layouts if scanning else layouts[::-1]
    state = make_state(config, rule, own(single_params()))
    for seed in range(2):
        state = update(state, seed, own)
    there = make_state(other_config, rule, other(single_params()))
    for seed in range(2):
        there = update(there, seed, other)
    shapes = make_state(other_config, rule)
    moved = convert_layers(jax.device_get(state.state_dict()), train_state=shapes)
    # The state is what it would be, had training been in that layout from the start.
    for name, value in networks.flat(jax.device_get(there.state_dict())).items():
        np.testing.assert_allclose(
            networks.flat(moved)[name], value, rtol=2e-5, atol=1e-7, err_msg=name
        )
    moved = shapes.restore_state(jax.tree.map(jnp.asarray, moved))
    state, moved = update(state, 2, own), update(moved, 2, other)
    back = unscanned if scanning else scan_params
    for name, value in networks.flat(jax.device_get(back(moved.params))).items():
        ours = networks.flat(state.params)[name]
        np.testing.assert_allclose(value, ours, rtol=2e-5, atol=1e-6, err_msg=name)


def test_there_and_back_is_the_same_to_the_bit():
    rule = RULES["ema of adafactor"]()
    state = update(make_state(SINGLE, rule, single_params()), 0, lambda x: x)
    state = jax.device_get(state.state_dict())
    scanned = convert_layers(state, train_state=make_state(SCANNED, rule))
    back = convert_layers(scanned, train_state=make_state(SINGLE, rule))
    jax.tree.map(np.testing.assert_array_equal, back, state)
    assert convert_layers(state, train_state=make_state(SINGLE, rule)) == state


def test_layers_on_the_first_axis():
    config, rule = SCANNED.replace(param_scan_axis=0), RULES["adafactor"]()
    state = update(make_state(SINGLE, rule, single_params()), 0, lambda x: x).state_dict()
    shapes = make_state(config, rule)
    moved = convert_layers(jax.device_get(state), train_state=shapes, axis=0)
    checkpoints.check_params(moved["target"], shapes.params)
    checkpoints.check_params(moved["state"], shapes.state_dict()["state"])
    back = convert_layers(moved, train_state=make_state(SINGLE, rule), axis=0)
    jax.tree.map(np.testing.assert_array_equal, back, state)


def test_averages_of_unfactored_moments_are_exact_and_not_the_other_way():
    """By its axes a scanned kernel is always factored, a small separate one never."""
    rule = make_adafactor()
    state = update(make_state(SINGLE, rule, single_params()), 0, lambda x: x)
    scanned = make_state(SCANNED, rule)
    moved = convert_layers(jax.device_get(state.state_dict()), train_state=scanned)
    slots = moved["state"]["param_states"]["decoder"]["decoder"]["mlp"]["wo"]["kernel"]
    v = state.param_states["decoder"]["layers_1"]["mlp"]["wo"]["kernel"].v
    assert slots["v"].shape == (1,)
    # (mlp, layers, embed): embed is the row.
    np.testing.assert_allclose(slots["v_row"][1], np.mean(v, axis=0), rtol=1e-6)
    np.testing.assert_allclose(slots["v_col"][:, 1], np.mean(v, axis=1), rtol=1e-6)
    with pytest.raises(CheckpointError, match=r"param_states/.*/kernel has no exact counterpart"):
        convert_layers(moved, train_state=make_state(SINGLE, rule))


def test_what_has_no_counterpart_is_named():
    # optax's Adafactor factors the two largest axes, whatever they are.
    rule = optimizers.adafactor(min_dim_size_to_factor=2)
    state = make_state(SINGLE, rule, single_params())
    with pytest.raises(CheckpointError, match=r"state/param_states/0/v/.*no exact counterpart"):
        convert_layers(jax.device_get(state.state_dict()), train_state=make_state(SCANNED, rule))
    # T5 proper has one table of positions for all layers.
    config = plain_network.T5Config(
        **{f: getattr(SINGLE, f) for f in plain_network.T5Config.__dataclass_fields__}
    )
    rule, transformer = make_adafactor(), plain_network.Transformer
    params = single_params(transformer, config)
    state = jax.device_get(make_state(config, rule, params, transformer).state_dict())
    with pytest.raises(CheckpointError, match=r"decoder/relpos_bias/rel_embedding.*for all layers"):
        convert_layers(state, train_state=make_state(SCANNED, rule))
    # Its parameters can be converted.
    shapes = jax.eval_shape(
        lambda: InferenceState.create({"params": make_state(SCANNED, rule).params})
    )
    moved = convert_layers({"target": state["target"]}, train_state=shapes)
    checkpoints.check_params(moved["target"], shapes.params)


def test_a_run_starts_from_a_checkpoint_of_the_other_layout(tmp_path):
    rule = RULES["adafactor"]()
    state = make_state(SINGLE, rule, single_params()).replace_step(7)
    manager = checkpoints.CheckpointManager(tmp_path)
    manager.save(7, state.state_dict())
    manager.close()
    model = models.EncoderDecoderModel(network.Transformer(SCANNED), None, None, rule)
    initializer = TrainStateInitializer(
        rule,
        model.get_initial_variables,
        SHAPES,
        PjitPartitioner(1),
        input_types=dict.fromkeys(SHAPES, jnp.int32),
    )
    key = jax.random.PRNGKey(0)
    with pytest.raises(CheckpointError, match="missing: target/decoder/decoder"):
        initializer.from_checkpoint(tmp_path, key)
    restored = initializer.from_checkpoint(tmp_path, key, transformations=[convert_layers])
    assert int(restored.step) == 7
    jax.tree.map(
        np.testing.assert_array_equal, unscanned(jax.device_get(restored.params)), state.params
    )
