"""What gin configures directly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.linen.partitioning import AxisMetadata

from t5x import utils
from t5x.data import ByteVocabulary, PassThroughVocabulary
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
