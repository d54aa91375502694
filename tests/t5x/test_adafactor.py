"""Adafactor against the reference's trajectories, and its properties."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from jax.sharding import PartitionSpec

from t5x import adafactor
from tests.vectors import golden_dir


def unflat(tree):
    return traverse_util.unflatten_dict(tree, sep="/")


def flat(tree):
    return traverse_util.flatten_dict(tree, sep="/")


@pytest.fixture(scope="module")
def z():
    with np.load(golden_dir("t5x") / "adafactor.npz") as data:
        return {k: data[k] for k in data.files}


def config():
    with np.load(golden_dir("t5x") / "adafactor.npz") as data:
        return json.loads(str(data["config_json"]))


def make_rule(options, logical_axes, scale_map):
    options = dict(options)
    rules = options.pop("logical_factor_rules", "standard")
    if rules is not None:
        options["logical_factor_rules"] = adafactor.standard_logical_factor_rules()
    if not isinstance(options.get("multiply_by_parameter_scale", True), bool):
        options["multiply_by_parameter_scale"] = adafactor.HParamMap(scale_map)
    rule = adafactor.Adafactor(decay_rate=0.8, step_offset=0, **options)
    rule.set_param_axes(unflat({k: PartitionSpec(*v) for k, v in logical_axes.items()}))
    return rule


@pytest.mark.parametrize("name", sorted(config()["configs"]))
def test_thirty_steps_are_the_references(z, name):
    cfg = config()
    params = {k[5:]: v.astype(np.float32) for k, v in z.items() if k.startswith("init/")}
    rule = make_rule(cfg["configs"][name], cfg["logical_axes"], cfg["scale_map_rules"])
    optimizer = rule.create(unflat(params))
    bases = [{k: z[f"grad_base{i}/{k}"].astype(np.float32) for k in params} for i in range(2)]
    update = jax.jit(lambda o, g, lr: o.apply_gradient(g, learning_rate=lr))
    tolerance = {"rtol": 5e-6, "atol": 1e-6}
    for t, (a, b) in enumerate(z["grad_coef"]):
        grads = unflat({k: a * bases[0][k] + b * bases[1][k] for k in params})
        optimizer = update(optimizer, grads, z["learning_rate"][t])
        for k, param in flat(optimizer.target).items():
            trajectory = z.get(f"{name}/trajectory/{k}")
            if trajectory is not None:
                sampled = np.asarray(param).ravel()[z[f"sample_index/{k}"]]
                np.testing.assert_allclose(sampled, trajectory[t], err_msg=f"{k}@{t}", **tolerance)
            rms = np.sqrt(np.mean(np.square(np.asarray(param, np.float64))))
            np.testing.assert_allclose(rms, z[f"{name}/rms/{k}"][t], **tolerance)
    assert optimizer.state.step == len(z["grad_coef"])
    for k, param in flat(optimizer.target).items():
        np.testing.assert_allclose(param, z[f"{name}/final/{k}"], **tolerance)
    for k, slots in flat(optimizer.state.param_states).items():
        shapes = z.get(f"{name}/final_state_shape/{k}")
        if shapes is None:
            continue
        for slot, shape in json.loads(str(shapes)).items():
            assert list(getattr(slots, slot).shape) == shape, (k, slot)
        for slot in ("v_row", "v_col"):
            expected = z[f"{name}/final_state/{k}/{slot}"]
            np.testing.assert_allclose(getattr(slots, slot), expected, rtol=1e-5)


def run(rule, axes, params, grads, steps=3):
    rule.set_param_axes(axes)
    optimizer = rule.create(params)
    for i in range(steps):
        scaled = jax.tree.map(lambda g, i=i: g * (i + 1), grads)
        optimizer = optimizer.apply_gradient(scaled, learning_rate=0.1)
    return optimizer.target


def rule_with_rules(**options):
    return adafactor.Adafactor(
        logical_factor_rules=adafactor.standard_logical_factor_rules(), **options
    )


def test_stacked_layers_are_updated_as_separate_layers():
    rng = np.random.default_rng(0)
    kernels, grads = rng.normal(size=(2, 3, 130, 140)).astype(np.float32)
    kernels *= np.array([0.1, 1, 10], np.float32)[:, None, None]
    stacked = run(
        rule_with_rules(),
        {"w": PartitionSpec("embed", "layers", "mlp")},
        {"w": jnp.asarray(kernels).transpose(1, 0, 2)},
        {"w": jnp.asarray(grads).transpose(1, 0, 2)},
    )["w"]
    for i in range(3):
        alone = run(
            rule_with_rules(),
            {"w": PartitionSpec("embed", "mlp")},
            {"w": kernels[i]},
            {"w": grads[i]},
        )["w"]
        np.testing.assert_allclose(stacked[:, i], alone, rtol=1e-5, atol=5e-6)


def test_updates_do_not_depend_on_the_scale_of_gradients():
    rng = np.random.default_rng(1)
    params, grads = ({"w": rng.normal(size=(4, 5)).astype(np.float32)} for _ in range(2))
    a = run(adafactor.Adafactor(), None, params, grads)
    b = run(adafactor.Adafactor(), None, params, jax.tree.map(lambda g: 1000 * g, grads))
    np.testing.assert_allclose(a["w"], b["w"], rtol=1e-5)


def test_nan_gradients_can_be_skipped():
    params = {"a": jnp.ones((3,)), "b": jnp.ones((2,))}
    grads = {"a": jnp.array([1.0, jnp.nan, 1.0]), "b": jnp.ones((2,))}
    rule = adafactor.Adafactor(skip_nan_updates=True, clipping_threshold=None)
    new = rule.create(params).apply_gradient(grads, learning_rate=0.1)
    np.testing.assert_allclose(new.target["a"], [0.9, 1.0, 0.9], rtol=1e-6)
    assert not np.isnan(new.state.param_states["a"].v).any()


def test_weight_decay_can_follow_the_learning_rate():
    params = {"w": jnp.full((3,), 2.0)}
    rule = adafactor.Adafactor(weight_decay_rate=0.5, weight_decay_rate_lr_exponent=2.0)
    new = rule.create(params).apply_gradient({"w": jnp.zeros((3,))}, learning_rate=0.1)
    np.testing.assert_allclose(new.target["w"], 2.0 * (1 - 0.5 * 0.1**2), rtol=1e-6)


def test_parameter_scale_has_limits():
    def step(**options):
        rule = adafactor.Adafactor(clipping_threshold=None, **options)
        params = {"tiny": jnp.full((3,), 1e-6), "huge": jnp.full((3,), 100.0)}
        grads = jax.tree.map(jnp.ones_like, params)
        new = rule.create(params).apply_gradient(grads, learning_rate=0.1).target
        return jax.tree.map(lambda p, n: float((p - n)[0]), params, new)

    assert step()["tiny"] == pytest.approx(0.1 * 1e-3, rel=1e-3)
    assert step()["huge"] == pytest.approx(10.0, rel=1e-3)
    assert step(max_parameter_scale=1.0)["huge"] == pytest.approx(0.1, rel=1e-3)


def test_hparam_map_takes_the_first_pattern_found():
    by_name = adafactor.HParamMap([("relpos|norm", True), (".*", False)])
    assert by_name["decoder/layers_0/norm/scale"] is True
    assert by_name["decoder/logits/kernel"] is False
    with pytest.raises(KeyError, match="mlp/kernel"):
        adafactor.HParamMap([("norm", 1)])["mlp/kernel"]


def test_factor_map_decides_by_name():
    row, column = adafactor.FactorDim.ROW, adafactor.FactorDim.COLUMN
    factor_map = adafactor.HParamMap([("small", (row, column)), ("big", None), (".*", "heuristic")])
    params = {"small": jnp.ones((2, 3)), "big": jnp.ones((200, 300)), "x": jnp.ones((200, 300))}
    states = adafactor.Adafactor(factor_map=factor_map).init_state(params).param_states
    assert states["small"].v_row.shape == (2,)
    assert states["small"].v_col.shape == (3,)
    assert states["big"].v.shape == (200, 300)
    assert states["x"].v_col.shape == (300,)


def test_slots_in_use_follow_their_parameter():
    rule = rule_with_rules(beta1=0.9)
    params = {"w": jnp.ones((130, 140)), "b": jnp.ones((3,))}
    axes = {"w": PartitionSpec("embed", "mlp"), "b": PartitionSpec("embed")}
    rule.set_param_axes(axes)
    derived = rule.derive_logical_axes(rule.create(params), axes)
    assert derived.target == axes
    assert derived.state.step is None
    w, b = derived.state.param_states["w"], derived.state.param_states["b"]
    assert (w.v_row, w.v_col, w.v, w.m) == (None, None, None, axes["w"])
    assert (b.v, b.m) == (axes["b"], axes["b"])


def test_equal_rules_share_compiled_functions():
    traces = []

    @jax.jit
    def step(optimizer, grads):
        traces.append(1)
        return optimizer.apply_gradient(grads, learning_rate=0.1)

    params = {"w": jnp.ones((2, 3))}
    for _ in range(2):
        step(adafactor.Adafactor().create(params), params)
    assert len(traces) == 1
    step(adafactor.Adafactor(beta1=0.5).create(params), params)
    assert len(traces) == 2


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="not both"):
        adafactor.Adafactor(factor_map=adafactor.HParamMap([]), logical_factor_rules={"a": "b"})
    with pytest.raises(ValueError, match=r"w: .*\['pitch'\]"):
        rule_with_rules().set_param_axes({"w": PartitionSpec("embed", "pitch")})
    params = {"w": jnp.ones((2,))}
    with pytest.raises(ValueError, match="learning_rate="):
        adafactor.Adafactor().create(params).apply_gradient(params)
    with pytest.raises(TypeError, match="momentum"):
        adafactor.Adafactor().create(params).apply_gradient(params, momentum=1)


def test_rules_by_name_factor_t5_as_rules_by_axes_do():
    shapes = {
        "token_embedder/embedding": ((150, 130), ("vocab", "embed")),
        "encoder/layers_0/attention/query/kernel": ((130, 140), ("embed", "joined_kv")),
        "encoder/layers_0/attention/out/kernel": ((140, 130), ("joined_kv", "embed")),
        "decoder/layers_1/encoder_decoder_attention/value/kernel": (
            (130, 140),
            ("embed", "joined_kv"),
        ),
        "decoder/layers_1/mlp/wi_0/kernel": ((130, 160), ("embed", "mlp")),
        "decoder/layers_1/mlp/wo/kernel": ((160, 130), ("mlp", "embed")),
        "decoder/logits_dense/kernel": ((130, 150), ("embed", "vocab")),
        "decoder/relpos_bias/rel_embedding": ((4, 32), ("heads", "relpos_buckets")),
        "decoder/decoder_norm/scale": ((130,), ("embed",)),
        "encoder/layers_0/pre_mlp_layer_norm/scale": ((130,), ("embed",)),
        "decoder/decoder/mlp/wo/kernel": ((160, 130), ("mlp", "embed")),
    }
    params = {name: jnp.zeros(shape) for name, (shape, _) in shapes.items()}
    by_axes = rule_with_rules()
    by_axes.set_param_axes(unflat({n: PartitionSpec(*axes) for n, (_, axes) in shapes.items()}))
    by_name = adafactor.Adafactor(factor_map=adafactor.standard_factor_rules())
    expected, found = (
        jax.tree.map(jnp.shape, jax.eval_shape(rule.init_state, unflat(params)).param_states)
        for rule in (by_axes, by_name)
    )
    assert found == expected
    assert found["token_embedder"]["embedding"].v == (1,)
    small = by_name.init_state(unflat({"decoder/layers_1/mlp/wo/kernel": jnp.zeros((6, 5))}))
    assert small.param_states["decoder"]["layers_1"]["mlp"]["wo"]["kernel"].v_row.size == 5
    assert adafactor.standard_factor_rules()["anything/else"] == adafactor.HEURISTIC_RULE
