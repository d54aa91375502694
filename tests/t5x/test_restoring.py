import ast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from t5x import checkpoints, optimizers, utils
from t5x.checkpoints import CheckpointError
from t5x.partitioning import PjitPartitioner
from t5x.restoring import TrainStateInitializer, assign, checkpoint_paths
from tests.t5x import toy


@pytest.fixture(scope="module")
def initializer():
    model = toy.ToyModel(toy.optimizer())
    shapes = {"decoder_input_tokens": (2, 8)}
    return TrainStateInitializer(
        model.optimizer_def, model.get_initial_variables, shapes, PjitPartitioner(1)
    )


@pytest.fixture(scope="module")
def state(initializer):
    return initializer.from_scratch(jax.random.PRNGKey(0)).replace_step(17)


@pytest.fixture
def saved(tmp_path, state):
    manager = checkpoints.CheckpointManager(tmp_path)
    manager.save(17, state.state_dict())
    manager.wait()
    manager.close()
    return tmp_path


KEY = jax.random.PRNGKey(5)


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a.state_dict(), b.state_dict())


def test_whole_state_from_orbax(initializer, state, saved):
    restored = initializer.from_checkpoint(saved, KEY)
    assert_same(restored, state)
    assert int(restored.step) == 17


def test_parameters_that_are_not_finite_are_refused(initializer, state, tmp_path):
    params = jax.tree.map(np.array, state.params)
    params["wi"][0, 0] = np.nan
    checkpoints.save_safetensors(tmp_path / "model.safetensors", params)
    manager = checkpoints.CheckpointManager(tmp_path)
    manager.save(3, state.replace_params(params).state_dict())
    manager.wait()
    message = r"{}: 1 of 4 arrays hold NaN or infinite numbers, such as wi"
    for name in ("model.safetensors", "checkpoint_3"):
        with pytest.raises(CheckpointError, match=message.format(tmp_path / name)):
            initializer.from_checkpoint(tmp_path / name, KEY)
    with pytest.raises(CheckpointError, match=message.format(tmp_path / "checkpoint_3")):
        initializer.from_manager(manager, 3)
    manager.close()
    params["wi"][0, 0] = 1e5
    checkpoints.save_safetensors(tmp_path / "model.safetensors", params)
    with pytest.raises(CheckpointError, match="such as wi"):  # above float16's largest, 65504
        initializer.from_checkpoint(tmp_path / "model.safetensors", KEY, dtype="float16")


def test_parameters_from_safetensors(initializer, state, tmp_path):
    path = tmp_path / "model.safetensors"
    checkpoints.save_safetensors(path, jax.device_get(state.params))
    restored = initializer.from_checkpoint(path, KEY)
    jax.tree.map(np.testing.assert_array_equal, restored.params, state.params)
    assert int(restored.step) == 0
    half = initializer.from_checkpoint(path, KEY, dtype="bfloat16").params["wi"]
    expected = state.params["wi"].astype(jnp.bfloat16).astype(jnp.float32)
    np.testing.assert_array_equal(half, expected)


def test_other_names_need_an_assignment_map(initializer, state, saved, tmp_path):
    flat = flatten_dict(jax.device_get(state.state_dict()), sep="/")
    flat["target/old/wi"] = flat.pop("target/wi")
    flat["target/unused"] = np.zeros(3)
    from flax.traverse_util import unflatten_dict

    manager = checkpoints.CheckpointManager(tmp_path / "old")
    manager.save(1, jax.tree.map(jnp.asarray, unflatten_dict(flat, sep="/")))
    manager.wait()
    folder = tmp_path / "old"
    with pytest.raises(CheckpointError, match=r"(?s)missing: target/wi.*unknown.*target/unused"):
        initializer.from_checkpoint(folder, KEY)
    renamed = initializer.from_checkpoint(
        folder, KEY, assignment_map=[(r"target/(wi)", r"target/old/\1")]
    )
    assert_same(renamed, state)
    fresh = initializer.from_checkpoint(
        folder, KEY, assignment_map=[(r"target/wi", None)], fallback_to_scratch=True
    )
    expected = initializer.from_scratch(KEY).params
    np.testing.assert_array_equal(fresh.params["wi"], expected["wi"])
    np.testing.assert_array_equal(fresh.params["wo"], state.params["wo"])
    with pytest.raises(CheckpointError, match="missing: target/wi"):
        initializer.from_checkpoint(folder, KEY, assignment_map=[(r"target/wi", None)])
    manager.close()


def test_assignment_rules():
    wanted = dict.fromkeys(["target/a", "target/b", "state/step"])
    found = {"target/x": 1, "target/b": 2, "state/step": 3, "more": 4}
    chosen, used = assign(wanted, found, [(r"target/a", "target/x"), (r"target/.*", None)])
    assert chosen == {"target/a": 1, "target/b": None, "state/step": 3}
    assert used == {"target/x", "state/step"}
    with pytest.raises(CheckpointError, match=r"match no name of the model: \['target/c'\]"):
        assign(wanted, found, [("target/c", None)])
    with pytest.raises(CheckpointError, match=r"target/a from target/y, which the checkpoint lac"):
        assign(wanted, found, [("target/a", "target/y")])


def test_paths_of_a_restore_configuration(saved):
    assert checkpoint_paths([], "latest") == []
    assert checkpoint_paths(str(saved), "latest") == [saved / "checkpoint_17"]
    assert checkpoint_paths(str(saved), "specific") == [saved]
    for mode in ("latest", "all", "specific"):
        assert checkpoint_paths(saved / "checkpoint_17", mode) == [saved / "checkpoint_17"]
    with pytest.raises(CheckpointError, match="no checkpoint_<step> folder"):
        checkpoint_paths(str(saved / "absent"), "latest")
    with pytest.raises(ValueError, match="mode is 'newest'"):
        utils.RestoreCheckpointConfig("x", mode="newest")
    with pytest.raises(ValueError, match="dtype is 'float23'"):
        utils.SaveCheckpointConfig(dtype="float23")


def test_round_vocab_size():
    class Vocabulary:
        vocab_size = 129

    assert utils.round_vocab_size_to_multiple(Vocabulary()) == 256
    assert utils.round_vocab_size_to_multiple(Vocabulary(), 129) == 129


def test_transformations_get_what_they_take(initializer, state, saved):
    seen = []

    def ours(state, *, train_state):
        seen.append(train_state is initializer.global_train_state_shape)
        return state

    def upstreams(state_dict, target_state_dict, *, is_resuming=False):
        seen.append((target_state_dict["state"]["step"].shape, is_resuming))
        state_dict["state"]["step"] = state_dict["state"]["step"] + 1
        return state_dict

    restored = initializer.from_checkpoint(saved, KEY, transformations=[ours, upstreams])
    assert int(restored.step) == 18
    assert seen == [True, ((), False)]


def test_first_configuration_with_a_checkpoint_counts(initializer, state, saved, tmp_path):
    empty = utils.RestoreCheckpointConfig(path=str(tmp_path / "empty"))
    nothing = utils.RestoreCheckpointConfig(path=[])
    found = utils.RestoreCheckpointConfig(path=str(saved), dtype="float32")
    restored = initializer.from_checkpoint_or_scratch([empty, nothing, found], init_rng=KEY)
    assert_same(restored, state)
    fresh = initializer.from_checkpoint_or_scratch([nothing, empty], init_rng=KEY)
    assert_same(fresh, initializer.from_scratch(KEY))
    absent = utils.RestoreCheckpointConfig(path=str(tmp_path / "absent"), mode="specific")
    with pytest.raises(CheckpointError, match="absent: no checkpoint here"):
        initializer.from_checkpoint_or_scratch([absent], init_rng=KEY)
    assert_same(initializer.from_checkpoint([empty, found]), state)
    assert initializer.from_checkpoint([empty], init_rng=KEY) is None


def test_states_of_several_checkpoints(initializer, state, tmp_path):
    manager = checkpoints.CheckpointManager(tmp_path)
    for step in (3, 10):
        position = {"next": step}
        manager.save(step, state.replace_step(step).state_dict(), dataset=position)
    manager.wait()
    manager.close()
    cfg = utils.RestoreCheckpointConfig(path=str(tmp_path), mode="all", restore_dataset=True)
    positions = []

    class Data:
        set_state = staticmethod(positions.append)

    steps = [int(s.step) for s in initializer.from_checkpoints([cfg], ds_iter=Data())]
    assert steps == [3, 10]
    assert positions == [{"next": 3}, {"next": 10}]
    with pytest.raises(ValueError, match="mean several checkpoints"):
        initializer.from_checkpoint_or_scratch([cfg], init_rng=KEY)
    rules = [("target/wi", None)]
    partial = utils.RestoreCheckpointConfig(
        path=str(tmp_path), assignment_map=rules, fallback_to_scratch=True
    )
    with pytest.raises(ValueError, match=r"give a random key \(init_rng\)"):
        next(initializer.from_checkpoints([partial]))


def remedy(error):
    """The options of a configuration that a message names, as `t5x.train` would take them."""
    lines = [line.strip() for line in str(error).splitlines() if "RestoreCheckpointConfig." in line]
    pairs = (line.removeprefix("utils.RestoreCheckpointConfig.").split(" = ", 1) for line in lines)
    return {name: ast.literal_eval(value) for name, value in pairs}


def test_the_remedy_for_another_optimizer_works(state, saved):
    model = toy.ToyModel(optimizers.adamw(0.1))
    shapes = {"decoder_input_tokens": (2, 8)}
    adam = TrainStateInitializer(
        model.optimizer_def, model.get_initial_variables, shapes, PjitPartitioner(1)
    )
    with pytest.raises(CheckpointError, match="the optimizer is another") as error:
        adam.from_checkpoint(saved, KEY)
    options = remedy(error.value)
    assert options == {"strict": False, "fallback_to_scratch": True}
    found = adam.from_config(utils.RestoreCheckpointConfig(str(saved), **options), saved, KEY)
    jax.tree.map(np.testing.assert_array_equal, found.params, state.params)
    manager = checkpoints.CheckpointManager(saved)
    with pytest.raises(CheckpointError, match=r"begin a new one: another MODEL_DIR"):
        adam.from_manager(manager, 17)
    manager.close()


@pytest.mark.parametrize("kind", ["orbax", "safetensors"])
def test_the_remedy_for_another_vocabulary_works(state, saved, kind, monkeypatch):
    path = saved
    if kind == "safetensors":
        path = saved / "params.safetensors"
        checkpoints.save_safetensors(path, jax.device_get(state.params))
    monkeypatch.setattr(toy, "VOCAB", 20)
    model = toy.ToyModel(toy.optimizer())
    larger = TrainStateInitializer(
        model.optimizer_def,
        model.get_initial_variables,
        {"decoder_input_tokens": (2, 8)},
        PjitPartitioner(1),
    )
    with pytest.raises(CheckpointError, match="as for another vocabulary") as error:
        larger.from_checkpoint(path, KEY)
    options = remedy(error.value)
    assert options["fallback_to_scratch"] is True
    found = larger.from_config(utils.RestoreCheckpointConfig(str(path), **options), path, KEY)
    assert found.params["embedding"].shape == (20, 8)
    np.testing.assert_array_equal(found.params["wi"], state.params["wi"])
    assert np.isfinite(found.params["logits"]).all()
