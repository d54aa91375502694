import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t5x import metrics as m


def test_merging_equals_computing_on_everything():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(4, 6, 5)), rng.integers(5, size=(4, 6))
    mask = (rng.random((4, 6)) > 0.3).astype(np.float32)

    def measure(rows):
        return {
            "accuracy": m.Accuracy.from_model_output(logits[rows], labels[rows], mask[rows]),
            "mean": m.Average.from_model_output(logits[rows][..., 0], mask[rows]),
            "sum": m.Sum.from_model_output(labels[rows], mask[rows]),
        }

    halves = m.merge(measure(slice(0, 1)), measure(slice(1, 4)))
    whole = measure(slice(None))
    for name, value in m.compute(halves).items():
        np.testing.assert_allclose(value, float(whole[name].compute()), rtol=1e-6)
    expected = ((logits.argmax(-1) == labels) * mask).sum() / mask.sum()
    np.testing.assert_allclose(m.compute(whole)["accuracy"], expected, rtol=1e-6)


def test_per_step_and_timing_metrics():
    step = {
        "loss": m.AveragePerStep.from_model_output(jnp.ones((2, 3))),
        "steps": m.Step(),
        "rate": m.TimeRate.from_model_output(12.0),
        "steps_per_second": m.StepsPerTime(),
        "seconds": m.Time(),
    }
    two = m.set_duration(m.merge(step, step), 4.0)
    expected = {"loss": 6, "steps": 2, "rate": 6, "steps_per_second": 0.5, "seconds": 4}
    assert m.compute(two) == expected
    assert m.compute(m.set_duration(m.set_steps(two, 1), 4.0))["loss"] == 12


def test_time_without_duration_raises():
    with pytest.raises(ValueError, match="set_duration"):
        m.compute({"seconds": m.Time()})


def test_nothing_counted_gives_zero():
    assert m.compute({"a": m.Average.from_model_output(jnp.ones(3), jnp.zeros(3))}) == {"a": 0.0}


def test_merge_names_what_differs():
    with pytest.raises(ValueError, match="extra"):
        m.merge({"loss": m.Sum()}, {"loss": m.Sum(), "extra": m.Sum()})


def test_accumulate_starts_over_inside_jit():
    def step(total, first, x):
        new = {"loss": m.AveragePerStep(total=x), "count": m.Step()}
        return m.accumulate(total, new, first)

    step = jax.jit(step)
    total = m.empty_like({"loss": m.AveragePerStep(total=jnp.float32(0)), "count": m.Step()})
    for first, x in [(True, 1.0), (False, 3.0), (True, 7.0), (False, 9.0)]:
        total = step(total, first, jnp.float32(x))
    assert m.compute(total) == {"loss": 8.0, "count": 2.0}
