import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perceiver_ar.models import PerceiverARModel
from perceiver_ar.network import PerceiverAR
from perceiver_ar.optimizers import learning_rate_schedule, optimizer
from t5x import losses, metrics
from t5x.decoding import topp_mask
from t5x.partitioning import PjitPartitioner
from t5x.train_state import FlaxOptimTrainState
from t5x.trainer import Trainer
from tests.perceiver_ar.reference import (
    config_of,
    golden,
    load,
    network_files,
    random_tokens,
    tiny,
    tree_of,
)


def model_of(config, **options):
    return PerceiverARModel(PerceiverAR(config), None, optimizer(), **options)


def batch_of(events, positions=None):
    """Inputs and targets of the reference's events: the last real token is no input."""
    real = np.count_nonzero(events, axis=1)
    inputs = np.where(np.arange(events.shape[1]) < real[:, None] - 1, events, 0)[:, :-1]
    batch = {"decoder_input_tokens": inputs, "decoder_target_tokens": events[:, 1:]}
    return batch if positions is None else {**batch, "decoder_positions": positions[:, :-1]}


@pytest.mark.parametrize("path", network_files()[:1])
def test_loss_of_the_reference_is_a_sum(path):
    data = load(path)
    config = config_of(data)
    params = tree_of(data, config)
    batch = {
        "decoder_input_tokens": data["inputs"],
        "decoder_target_tokens": data["targets"],
        "decoder_positions": data["input_idxs"],
    }
    names = {0.0: "loss_total", 0.1: "loss_total_ls0p1"}
    models = [
        model_of(config, label_smoothing=smoothing, loss_normalizing_factor=None)
        for smoothing in names
    ]

    @jax.jit
    def run(params):
        return [m.loss_fn(params, batch, None) for m in models], models[0].at_latents(batch)

    losses, at = run(params)
    for (loss, _), name in zip(losses, names.values()):
        np.testing.assert_allclose(loss, data[name], rtol=1e-5)
    found = losses[-1][1]
    at = jax.device_get(at)
    np.testing.assert_array_equal(at["latent_steps"], data["latent_last_steps"])
    np.testing.assert_array_equal(at["decoder_loss_weights"], data["loss_mask"])
    real = data["loss_mask"]
    np.testing.assert_array_equal(at["decoder_target_tokens"][real], data["labels"][real])
    found = metrics.compute(metrics.set_duration(found, 1.0))
    nats = (data["loss_per_latent"] - data["z_loss_per_latent"])[real].mean()
    assert found["nats_per_token"] == pytest.approx(nats, rel=1e-5)
    assert found["bits_per_token"] == pytest.approx(nats / np.log(2), rel=1e-5)


def test_our_loss_is_a_mean_and_evaluations_have_neither_z_loss_nor_smoothing():
    config, _, params = tiny()
    events = random_tokens([25, 12], 25)
    batch = batch_of(events)
    model = model_of(config, label_smoothing=0.2, z_loss=0.1)

    @jax.jit
    def run(params):
        trained, _ = model.loss_fn(params, batch, None)
        return *model.eval_fn(params, batch), trained, model.score_batch(params, batch)

    loss, found, trained, scores = run(params)
    found = metrics.compute(metrics.set_duration(found, 1.0))
    assert float(loss) == pytest.approx(found["nats_per_token"], rel=1e-5)
    assert found["loss"] == pytest.approx(float(loss))
    assert float(trained) > float(loss) + 0.1
    assert model._z_loss == 0.1
    assert -float(scores.sum()) / 16 == pytest.approx(float(loss), rel=1e-5)


def test_weights_of_the_batch_choose_what_counts():
    config, _, _ = tiny()
    batch = batch_of(random_tokens([25], 25))
    weights = np.zeros((1, 24), np.int32)
    weights[0, [3, 20, 22]] = 1
    at = model_of(config).at_latents({**batch, "decoder_loss_weights": weights})
    np.testing.assert_array_equal(at["decoder_loss_weights"], [[0, 0, 0, 0, 1, 0, 1, 0]])
    at = model_of(config).at_latents({**batch, "decoder_latent_counts": jnp.array([3])})
    np.testing.assert_array_equal(at["decoder_loss_weights"], [[0, 0, 0, 0, 0, 1, 1, 1]])


def trainer_of(model, params, schedule, **options):
    state = FlaxOptimTrainState.create(model.optimizer_def, {"params": params})
    return Trainer(
        model, state, PjitPartitioner(num_partitions=1), learning_rate_fn=schedule, **options
    )


@pytest.mark.parametrize("path", golden("train_*.npz"))
def test_training_of_the_reference(path):
    data = load(path)
    config, options = config_of(data), json.loads(str(data["opt_config"]))
    model = PerceiverARModel(
        PerceiverAR(config),
        None,
        optimizer(options["optimizer"], options["clip"]),
        z_loss=options["z_loss"],
        loss_normalizing_factor=None,
    )
    schedule = learning_rate_schedule(
        options["schedule"], options["base_lr"], options["warmup"], options["total"]
    )
    params = jax.tree.map(jnp.asarray, tree_of(data, config, "params0/"))
    # Microbatches are every other row here, and parts one after the other there.
    count = options["microbatches"]
    trainer = trainer_of(model, params, schedule, num_microbatches=count)
    for step, (events, positions) in enumerate(zip(data["events"], data["event_idxs"])):
        rows = [np.swapaxes(x, 0, 1).reshape(-1, *x.shape[2:]) for x in (events, positions)]
        found = trainer.train(iter([batch_of(*rows)]), 1)
        assert found["loss"] == pytest.approx(data["losses"][step], rel=1e-5)
        assert found["grad_norm"] == pytest.approx(data["grad_norms"][step], rel=1e-4)
        assert found["learning_rate"] == pytest.approx(data["learning_rates"][step], rel=1e-5)
    expected = tree_of(data, config, "params4/")
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5),
        jax.device_get(trainer.train_state.params),
        expected,
    )


@pytest.mark.slow
def test_microbatches_are_the_whole_batch():
    config, _, params = tiny()
    batch = batch_of(random_tokens([25, 12, 4, 19], 25))
    schedule = learning_rate_schedule("constant", 1e-2, 1)
    found = []
    for count in (1, 2):
        trainer = trainer_of(
            model_of(config),
            jax.tree.map(jnp.asarray, params),
            schedule,
            num_microbatches=count,
        )
        found.append(trainer.train(iter([batch]), 1))
    for name in ("loss", "grad_norm", "accuracy", "nats_per_token", "bits_per_token"):
        assert found[0][name] == pytest.approx(found[1][name], rel=1e-5), name


@functools.partial(jax.jit, static_argnums=(2, 3))
def smoothed_loss(logits, targets, smoothing, z_loss):
    soft = losses.smoothed_targets(targets, 50, smoothing)
    loss, z = losses.cross_entropy_with_logits(logits, soft, z_loss)
    return loss - losses.smoothing_constant(50, smoothing), z


@pytest.mark.parametrize("path", golden("functions*.npz"))
def test_schedules_and_losses_of_the_reference(path):
    data = load(path)
    known = {
        "default": learning_rate_schedule(),
        "copy32": learning_rate_schedule("cosine", warmup_steps=1000),
    }
    for name, schedule in known.items():
        if name in data:
            found = jax.jit(jax.vmap(schedule))(data[f"{name}_steps"])
            np.testing.assert_allclose(found, data[name], rtol=1e-4, atol=1e-9)
    logits = data["process_logits_in"]
    for name, expected in data.items():
        if name.startswith("process_logits_p"):
            topp, temperature = (float(part[1:]) for part in name.split("_")[2:])
            kept = np.isfinite(logits)
            if topp < 1:
                kept = np.asarray(jax.jit(topp_mask)(logits, np.float32(topp))) > -1e6
            np.testing.assert_array_equal(kept, expected > -1e20, err_msg=name)
            np.testing.assert_allclose((logits / temperature)[kept], expected[kept], rtol=1e-5)
        if name.startswith("xent_") and name.endswith("_loss"):
            smoothing, z_loss = (float(part.lstrip("lsz")) for part in name.split("_")[1:3])
            stem = name.removesuffix("_loss")
            loss, z = smoothed_loss(logits, data[f"{stem}_targets"], smoothing, z_loss)
            np.testing.assert_allclose(loss, expected, rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(z, data[f"{stem}_z"], rtol=1e-5)


def test_schedules_rise_and_fall():
    for kind, late in {"constant": 1.0, "cosine": 0.0, "steps": 1e-3, "t5": 0.1}.items():
        schedule = learning_rate_schedule(kind, 1.0, 100, 10_000)
        assert [float(schedule(s)) for s in (0, 50, 100)] == pytest.approx([0, 0.5, 1], abs=1e-6)
        assert float(schedule(10_100)) == pytest.approx(late, abs=6e-3)
    steps = learning_rate_schedule("steps", 1.0, 100, 10_000)
    assert [float(steps(s)) for s in (4999, 5001, 8001, 9501)] == pytest.approx(
        [1, 0.1, 0.01, 0.001]
    )
    with pytest.raises(ValueError, match="kind='sine'"):
        learning_rate_schedule("sine")


@pytest.mark.parametrize("name", ["adam", "sgd", "lamb", "adafactor", "sm3"])
def test_optimizers_go_downhill(name):
    state = optimizer(name).create({"w": jnp.full((4, 4), 2.0)})
    step = jax.jit(lambda state: state.apply_gradient(state.target, learning_rate=0.01))
    for _ in range(5):
        state = step(state)
    assert float(jnp.abs(state.target["w"]).max()) < 2.0


def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match=r"optimizer name='adamw'.*lamb"):
        optimizer("adamw")
    config, network, _ = tiny()
    vocabulary = dataclasses.make_dataclass("V", [("vocab_size", int, 20)])()
    with pytest.raises(ValueError, match=r"20 ids.*num_classes=19"):
        PerceiverARModel(network, vocabulary, optimizer())
    with pytest.raises(ValueError, match="decoder_prompt_lengths"):
        model_of(config).predict_batch({}, batch_of(random_tokens([9], 9)))
