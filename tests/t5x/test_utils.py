"""What gin configures directly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.linen.partitioning import AxisMetadata

from t5x import models, utils
from t5x.data import ByteVocabulary, PassThroughVocabulary
from t5x.examples.t5 import network
from t5x.training.profiling import Profiler
from tests.t5x import toy


def config(task=toy.TASK, **options):
    return utils.DatasetConfig(task, {"targets": 8}, "train", 8, True, **options)


class Vocabularies:
    def __init__(self, inputs, outputs):
        self.input_vocabulary, self.output_vocabulary = inputs, outputs


def test_vocabularies_of_a_task_without_inputs():
    inputs, targets = utils.get_vocabulary(config())
    assert inputs is targets
    assert targets == PassThroughVocabulary(toy.VOCAB)


def test_vocabularies_that_differ_are_named():
    same = PassThroughVocabulary(toy.VOCAB)
    utils.verify_matching_vocabs(config(), Vocabularies(same, same))
    utils.verify_matching_vocabs(config(), Vocabularies(None, same))
    utils.verify_matching_vocabs(config(), object())
    with pytest.raises(ValueError, match=r"the output vocabulary of the data.*is not the model's"):
        utils.verify_matching_vocabs(config(), Vocabularies(same, ByteVocabulary()))


def test_axis_names_are_replaced_by_pattern():
    variables = {
        "params": {"a": {"w": jnp.ones((2, 3))}, "b": jnp.ones(2)},
        "params_axes": {
            "a": {"w_axes": AxisMetadata(names=("embed", "mlp"))},
            "b_axes": AxisMetadata(names=("embed",)),
        },
    }
    changed = utils.override_params_axes_names(variables, [("a/.*", ("x", "y"))])
    assert changed["params_axes"]["a"]["w_axes"].names == ("x", "y")
    assert changed["params_axes"]["b_axes"].names == ("embed",)
    with pytest.raises(ValueError, match="no parameter matches"):
        utils.override_params_axes_names(variables, [("c", ("x",))])
    with pytest.raises(ValueError, match=r"for a/w of shape \(2, 3\)"):
        utils.override_params_axes_names(variables, [("a/w", ("x",))])


def test_a_missing_task_module_is_named():
    with pytest.raises(ImportError, match="there is no module 'no_such_tasks'"):
        config(module="no_such_tasks")


def test_vocabularies_of_a_model():
    module = network.Transformer(network.T5Config(vocab_size=5))
    inputs, outputs = ByteVocabulary(), PassThroughVocabulary(5)
    model = models.EncoderDecoderModel(module, inputs, outputs, toy.optimizer())
    assert models.get_input_vocabulary(model) is inputs
    assert models.get_output_vocabulary(model) is outputs


def test_local_data_is_what_this_process_holds():
    mesh = jax.sharding.Mesh(jax.devices()[:1], "data")
    whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    step = jax.device_put(jnp.int32(7), whole)
    assert utils.get_local_data(step) == 7
    assert utils.get_local_data(3.5) == 3.5
    assert jax.jit(lambda x: utils.get_local_data(x) + 1)(step) == 8


def test_hardware_random_numbers_are_a_setting_of_jax():
    before = jax.config.jax_default_prng_impl
    try:
        utils.set_hardware_rng_ops()
        assert jax.random.PRNGKey(0).shape == (4,)
    finally:
        jax.config.update("jax_default_prng_impl", before)


def test_what_is_airios_is_refused():
    with pytest.raises(ValueError, match="belongs to airio"):
        config(runtime_preprocessors=[])
    assert config(num_prefetch_threads=3).num_read_threads == 3


def test_the_profiler_traces_its_window(tmp_path):
    profiler = Profiler(tmp_path / "profile", (1, 2), start=100)
    for step in range(100, 105):
        profiler.before(step)
        assert profiler._running == (step in (101, 102))
        np.asarray(jax.jit(lambda x: x + 1)(np.ones(3)))
    profiler.close()
    assert list((tmp_path / "profile").rglob("*.pb"))
    with pytest.raises(ValueError, match="first <= last"):
        Profiler(tmp_path, (3, 1), 0)
