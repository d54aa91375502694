"""The training step: the reference's trajectory, microbatches, metrics, evaluation."""

import json
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from t5x import metrics as metrics_lib
from t5x import models
from t5x.adafactor import Adafactor, standard_logical_factor_rules
from t5x.data import PassThroughVocabulary
from t5x.examples.t5 import network
from t5x.optimizers import OptaxWrapper
from t5x.partitioning import PartitioningError, PjitPartitioner
from t5x.train_state import FlaxOptimTrainState
from t5x.trainer import Trainer, WeightMetricsComputer, is_finite
from tests.t5x import toy
from tests.vectors import golden_dir


def make_trainer(model, batch, learning_rate=0.05, params=None, **options):
    """A trainer at step 0, with the given or initial parameters."""
    shapes = {name: x.shape for name, x in batch.items()}
    variables = jax.eval_shape(
        lambda rng: model.get_initial_variables(rng, shapes), jax.random.PRNGKey(0)
    )
    if params is None:
        params = toy_params()
    mutables = {k: jax.tree.map(zeros, v) for k, v in variables.items() if k == "statistics"}
    variables = {**variables, **mutables, "params": params}
    state = FlaxOptimTrainState.create(model.optimizer_def, variables)
    return Trainer(
        model,
        jax.tree.map(jnp.array, state),  # separate buffers, as they are donated
        PjitPartitioner(1),
        rng=jax.random.PRNGKey(1),
        learning_rate_fn=lambda step: jnp.float32(learning_rate),
        **options,
    )


def zeros(struct):
    return jnp.zeros(struct.shape, struct.dtype)


def toy_params():
    rng = np.random.default_rng(3)
    shapes = {"embedding": (16, 8), "wi": (8, 16), "wo": (16, 8), "logits": (8, 16)}
    return {n: jnp.asarray(0.5 * rng.normal(size=s), jnp.float32) for n, s in shapes.items()}


def toy_batch(rows=8, seed=0):
    rng = np.random.default_rng(seed)
    inputs = rng.integers(1, toy.VOCAB, (rows, 8)).astype(np.int32)
    lengths = rng.integers(1, 9, (rows, 1))
    return {
        "decoder_input_tokens": inputs,
        "decoder_target_tokens": 1 + inputs % (toy.VOCAB - 1),
        "decoder_loss_weights": (np.arange(8) < lengths).astype(np.int32),
    }


# ---------------------------------------------------------------------- the reference


@pytest.mark.parametrize("path", sorted(golden_dir("t5x").glob("train*.npz")), ids=lambda p: p.name)
@pytest.mark.parametrize("whole", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_reference_trajectory(path, whole):
    """In two microbatches, or one row at a time if two do not divide the batch."""
    with np.load(path) as data:
        z = {name: data[name] for name in data.files}
    config = json.loads(str(z["config_json"]))
    model_options, optimizer_options = config.pop("model"), config.pop("optimizer")
    learning_rate = config.pop("learning_rate")
    config.pop("packed")
    config["mlp_activations"] = tuple(config["mlp_activations"])
    config["dtype"] = jnp.dtype(config["dtype"])

    def part(prefix):
        flat = {k.removeprefix(prefix): v for k, v in z.items() if k.startswith(prefix)}
        return unflatten_dict(flat, sep="/")

    vocabulary = PassThroughVocabulary(config["vocab_size"])
    model = models.EncoderDecoderModel(
        network.Transformer(network.T5Config(**config)),
        vocabulary,
        vocabulary,
        Adafactor(logical_factor_rules=standard_logical_factor_rules(), **optimizer_options),
        **model_options,
    )
    batches = [part(f"batch_{i}/") for i in range(len(z["loss"]))]
    params = jax.tree.map(jnp.asarray, part("init_params/"))
    rows = len(batches[0]["decoder_target_tokens"])
    parts = None if whole else (rows if rows % 2 else 2)
    trainer = make_trainer(model, batches[0], learning_rate, params, num_microbatches=parts)
    for number, batch in enumerate(batches):
        values = trainer.train(iter([batch]), 1)
        for name in ("loss", "z_loss", "cross_ent_loss", "grad_norm"):
            np.testing.assert_allclose(values[name], z[name][number], rtol=1e-5, err_msg=name)
        total, count = z["accuracy_total_count"][number]
        np.testing.assert_allclose(values["accuracy"], total / count, rtol=1e-6)
    expected = flatten_dict(part("final_params/"), sep="/")
    for name, value in flatten_dict(trainer.train_state.params, sep="/").items():
        np.testing.assert_allclose(value, expected[name], atol=2e-5, err_msg=name)
    evaluated = trainer.eval({"first": iter([batches[0]])})["first"]
    np.testing.assert_allclose(evaluated["loss"], z["final_loss_on_batch_0"], rtol=1e-5)


# ---------------------------------------------------------------------- microbatches


@pytest.mark.parametrize(
    "factor",
    [
        None,
        "NUM_REAL_TARGET_TOKENS",
        pytest.param(13.0, marks=pytest.mark.slow),
        pytest.param("AVERAGE_PER_SEQUENCE", marks=pytest.mark.slow),
    ],
)
def test_microbatches_equal_the_whole_batch(factor):
    batch = toy_batch()
    results = []
    for num_microbatches in (None, 4):
        model = toy.ToyModel(toy.optimizer(), loss_normalizing_factor=factor)
        trainer = make_trainer(model, batch, num_microbatches=num_microbatches)
        gradients = jax.jit(trainer.gradients)
        grads, metrics, _ = gradients(trainer.train_state, batch, jax.random.PRNGKey(0))
        results.append((grads, metrics_lib.compute(metrics_lib.set_duration(metrics, 1.0))))
    (grads, values), (other_grads, other_values) = results
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), grads, other_grads)
    assert values.keys() == other_values.keys()
    for name, value in values.items():
        np.testing.assert_allclose(other_values[name], value, rtol=1e-5, err_msg=name)


def test_microbatches_must_divide():
    trainer = make_trainer(toy.ToyModel(toy.optimizer()), toy_batch(), num_microbatches=3)
    with pytest.raises(PartitioningError, match="num_microbatches=3 does not divide the 8 rows"):
        trainer.step(toy_batch())


# ---------------------------------------------------------------------- steps


def test_loss_goes_down_and_metrics_start_over_after_a_read():
    trainer = make_trainer(toy.ToyModel(toy.optimizer()), toy_batch())
    losses = [trainer.train(iter([toy_batch()] * 10), 10)["loss"] for _ in range(4)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0] / 2
    assert int(trainer.train_state.step) == 40


def test_merged_metrics_are_those_of_single_steps():
    batches = [toy_batch(seed=s) for s in range(3)]
    one = make_trainer(toy.ToyModel(toy.optimizer()), batches[0])
    single = [one.train(iter([b]), 1) for b in batches]
    merged = make_trainer(toy.ToyModel(toy.optimizer()), batches[0]).train(iter(batches), 3)
    np.testing.assert_allclose(merged["loss"], np.mean([s["loss"] for s in single]), rtol=1e-6)
    weights = [b["decoder_loss_weights"].sum() for b in batches]
    accuracy = np.average([s["accuracy"] for s in single], weights=weights)
    np.testing.assert_allclose(merged["accuracy"], accuracy, rtol=1e-6)


def test_dropout_depends_on_the_step_only():
    batch = toy_batch()

    def losses_after(steps):
        trainer = make_trainer(toy.ToyModel(toy.optimizer(), 0.5), batch, learning_rate=0.0)
        trainer.train_state = trainer.train_state.replace_step(steps)
        return [trainer.train(iter([batch]), 1)["loss"] for _ in range(2)]

    first, second = losses_after(4)
    assert first != second
    assert losses_after(5)[0] == second


def test_state_is_donated():
    trainer = make_trainer(toy.ToyModel(toy.optimizer()), toy_batch())
    before = jax.tree.leaves(trainer.train_state.params)
    trainer.step(trainer.to_device(toy_batch()))
    assert all(x.is_deleted() for x in before)


def test_batches_of_other_shapes_are_compiled_once_each():
    trainer = make_trainer(toy.ToyModel(toy.optimizer()), toy_batch())
    short = {name: x[:, :4] for name, x in toy_batch().items()}
    for batch in (toy_batch(), short, toy_batch(), short):
        trainer.step(trainer.to_device(batch))
    assert len(trainer._compiled_steps) == 2
    assert int(trainer.train_state.step) == 4
    assert trainer.compile_seconds > 0
    assert trainer.flops > 0


class MutableModel(toy.ToyModel):
    """Counts the tokens it has seen in a mutable collection."""

    def get_initial_variables(self, rng, input_shapes, input_types=None):
        variables = super().get_initial_variables(rng, input_shapes, input_types)
        return {**variables, "statistics": {"tokens": jnp.zeros((), jnp.int32)}}

    def loss_fn(self, params, batch, dropout_rng, flax_mutables=None):
        loss, metrics = super().loss_fn(params, batch, dropout_rng)
        seen = flax_mutables["statistics"]["tokens"] + batch["decoder_loss_weights"].sum()
        return loss, (metrics, {"statistics": {"tokens": seen}})

    def eval_fn(self, params, batch, flax_mutables):
        loss, (metrics, _) = self.loss_fn(params, batch, None, flax_mutables)
        return loss, metrics


@pytest.mark.parametrize("num_microbatches", [None, 4])
def test_mutables_are_carried(num_microbatches):
    batch = toy_batch()
    model = MutableModel(toy.optimizer())
    trainer = make_trainer(model, batch, num_microbatches=num_microbatches)
    if num_microbatches:
        model.normalize_globally = lambda batch: (model, batch)
    trainer.train(iter([batch] * 3), 3)
    state = trainer.train_state
    assert state.flax_mutables["statistics"]["tokens"] == 3 * batch["decoder_loss_weights"].sum()
    again = state.restore_state(jax.device_get(state.state_dict()))
    jax.tree.map(np.testing.assert_array_equal, again.state_dict(), state.state_dict())
    assert "loss" in trainer.eval({"x": iter([batch])})["x"]


def test_weight_metrics():
    trainer = make_trainer(
        toy.ToyModel(OptaxWrapper(optax.sgd(0.5))),
        toy_batch(),
        weight_metrics_computer=WeightMetricsComputer(),
    )
    before = jax.device_get(trainer.train_state.params)
    values = trainer.train(iter([toy_batch()]), 1)
    after = jax.device_get(trainer.train_state.params)
    for name, value in before.items():
        update = np.sqrt(np.mean((after[name] - value) ** 2))
        np.testing.assert_allclose(values[f"weight_update_rms/{name}"], update, rtol=1e-4)
        np.testing.assert_allclose(values[f"weight_gradient_rms/{name}"], update * 2, rtol=1e-4)
        np.testing.assert_allclose(values[f"weight_max/{name}"], np.abs(value).max(), rtol=1e-6)
    np.testing.assert_allclose(values["weight_gradient_norm"], values["grad_norm"], rtol=1e-6)


def test_evaluation_without_batches_and_missing_schedule_raise():
    trainer = make_trainer(toy.ToyModel(toy.optimizer()), toy_batch())
    with pytest.raises(ValueError, match="'empty' has no batches"):
        trainer.eval({"empty": iter([])})
    with pytest.raises(ValueError, match="learning_rate_fn"):
        Trainer(trainer.model, trainer.train_state, trainer.partitioner)


def test_wrong_axis_annotations_are_named():
    model = toy.ToyModel(toy.optimizer())
    shapes = {"decoder_input_tokens": (1, 2)}
    variables = jax.eval_shape(
        lambda rng: model.get_initial_variables(rng, shapes), jax.random.PRNGKey(0)
    )
    del variables["params_axes"]["wi_axes"]
    with pytest.raises(ValueError, match="wi: no axis names"):
        FlaxOptimTrainState.create(model.optimizer_def, variables)


class State(NamedTuple):
    params: Any
    slots: Any


@pytest.mark.parametrize(
    ("params", "slots", "fine"),
    [
        ([1.0, -2.0], [1e30, 0.0], True),
        ([1.0], [float("inf"), -float("inf")], True),  # may be meant: the best loss so far
        ([1.0], [float("nan")], False),
        ([float("nan")], [1.0], False),
        ([float("inf")], [1.0], False),
        ([1e20], [1.0], False),  # its square is infinite: products are next
    ],
)
def test_a_state_is_finite_unless_parameters_are_not_or_anything_is_nan(params, slots, fine):
    state = State(jnp.asarray(params), [jnp.asarray(slots, jnp.bfloat16), jnp.asarray([3])])
    assert bool(is_finite(state)) == fine
