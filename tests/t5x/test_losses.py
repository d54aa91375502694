"""Losses against the reference, and against automatic differentiation of the formulas."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t5x import losses
from tests.vectors import golden_dir


@pytest.fixture(scope="module")
def z():
    with np.load(golden_dir("t5x") / "losses.npz") as data:
        return {k: data[k] for k in data.files}


def test_soft_cross_entropy_and_gradients_are_the_references(z):
    for i, coefficient in enumerate(z["ce/z_coefficients"]):
        onehot = np.eye(z["logits"].shape[-1], dtype=np.float32)[z["targets"]]
        for kind, targets in (("onehot", onehot), ("soft", z["soft_targets"])):
            prefix = f"ce/{kind}_{i}/"

            def weighted(logits, targets, coefficient):
                loss, z_term = losses.cross_entropy_with_logits(logits, targets, coefficient)
                return jnp.sum(loss * z["cotangent"]), (loss, z_term)

            args = (z["logits"], targets, jnp.float32(coefficient))
            (_, (loss, z_term)), grads = jax.value_and_grad(weighted, (0, 1, 2), has_aux=True)(
                *args
            )
            tolerance = {"rtol": 2e-6, "atol": 1e-5}
            np.testing.assert_allclose(loss, z[prefix + "loss"], **tolerance)
            np.testing.assert_allclose(z_term, z[prefix + "z_loss"], **tolerance)
            for name, grad in zip(("logits", "targets", "z"), grads):
                np.testing.assert_allclose(grad, z[prefix + f"grad_{name}"], **tolerance)


def test_weighted_cross_entropy_is_the_references(z):
    for i, case in enumerate(json.loads(str(z["weighted/cases_json"]))):
        weights = None if case["weights"] == "none" else z[case.pop("weights")]
        case.pop("weights", None)

        def loss_fn(logits, weights=weights, case=case):
            results = losses.compute_weighted_cross_entropy(logits, z["targets"], weights, **case)
            return results[0], results

        (_, results), grad = jax.value_and_grad(loss_fn, has_aux=True)(z["logits"])
        np.testing.assert_allclose(
            np.stack(results), z["weighted/loss_zloss_weightsum"][i], rtol=1e-5, atol=1e-5
        )
        np.testing.assert_allclose(grad, z["weighted/grad_logits"][i], rtol=2e-6, atol=1e-5)


def test_vocabulary_of_one(z):
    logits = z["vocab1/logits"]
    targets = np.zeros(logits.shape[:-1], np.int32)
    results = losses.compute_weighted_cross_entropy(
        logits, targets, label_smoothing=0.1, z_loss=1e-3
    )
    np.testing.assert_allclose(np.stack(results), z["vocab1/loss_zloss_weightsum"], rtol=1e-5)


def test_normalising_factors_are_the_references(z):
    for i, case in enumerate(json.loads(str(z["norm/cases_json"]))):
        prefix = f"norm/{case['batch']}/"
        batch = {k.removeprefix(prefix): v for k, v in z.items() if k.startswith(prefix)}
        factor = case["loss_normalizing_factor"]
        if isinstance(factor, str) and factor.startswith("ENUM:"):
            factor = losses.SpecialLossNormalizingFactor[factor.removeprefix("ENUM:")]
        factor, weights = losses.get_loss_normalizing_factor_and_weights(factor, batch)
        expected_factor, expected_weights = z[f"norm/case_{i}/factor"], z[f"norm/case_{i}/weights"]
        assert (factor is None) == bool(np.isnan(expected_factor))
        if factor is not None:
            np.testing.assert_allclose(factor, expected_factor, rtol=1e-6)
        assert (weights is None) == (expected_weights.size == 0)
        if weights is not None:
            np.testing.assert_allclose(weights, expected_weights, rtol=1e-6)
        results = losses.compute_weighted_cross_entropy(
            z["logits"], batch["decoder_target_tokens"], weights, 0.1, 1e-4, factor
        )
        np.testing.assert_allclose(
            np.stack(results), z[f"norm/case_{i}/loss_zloss_weightsum"], rtol=1e-5, atol=1e-5
        )


def test_unknown_normalising_factor_names_the_known_ones():
    with pytest.raises(ValueError, match="AVERAGE_PER_SEQUENCE"):
        losses.get_loss_normalizing_factor_and_weights("per_token", {})


@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
def test_custom_gradient_is_the_derivative_of_the_formula(label_smoothing):
    rng = np.random.default_rng(0)
    logits = jnp.asarray(rng.normal(size=(2, 3, 7)) * 3, jnp.float32)
    targets = jnp.asarray(rng.integers(0, 7, (2, 3)))
    weights = jnp.asarray(rng.uniform(size=(2, 3)), jnp.float32)

    def formula(logits):
        log_z = jax.nn.logsumexp(logits, -1)
        soft = losses.smoothed_targets(targets, 7, label_smoothing)
        entropy = -(soft * jax.nn.log_softmax(logits)).sum(-1)
        return ((entropy + 1e-2 * log_z**2) * weights).sum()

    def ours(logits):
        return losses.compute_weighted_cross_entropy(
            logits, targets, weights, label_smoothing, 1e-2
        )[0]

    np.testing.assert_allclose(jax.grad(ours)(logits), jax.grad(formula)(logits), atol=1e-5)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 0.5])
def test_perfect_prediction_has_no_loss(label_smoothing):
    targets = jnp.asarray([[0, 3, 4]])
    logits = jnp.log(losses.smoothed_targets(targets, 5, label_smoothing) + 1e-20)
    loss, _, weight_sum = losses.compute_weighted_cross_entropy(
        logits, targets, label_smoothing=label_smoothing
    )
    assert loss == pytest.approx(0.0, abs=1e-5)
    assert weight_sum == 3


def test_logits_of_the_wrong_rank_are_refused():
    with pytest.raises(ValueError, match="one axis more"):
        losses.compute_weighted_cross_entropy(jnp.zeros((2, 3)), jnp.zeros((2, 3), int))
