"""Learning-rate schedules against the reference."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t5x.schedules import create_learning_rate_scheduler
from tests.vectors import golden_dir


def cases():
    return json.loads((golden_dir("t5x") / "lr_schedules.json").read_text())["cases"]


@pytest.mark.parametrize("case", cases(), ids=lambda c: c["kwargs"].get("factors", "default"))
def test_schedules_are_the_references(case):
    schedule = jax.jit(jax.vmap(create_learning_rate_scheduler(**case["kwargs"])))
    rates = schedule(jnp.asarray(case["steps"]))
    assert rates.dtype == jnp.float32
    np.testing.assert_allclose(rates, case["values"], rtol=1e-5)


def test_offset_and_minimum():
    schedule = create_learning_rate_scheduler(
        "constant*rsqrt_decay", 1.0, warmup_steps=4, step_offset=10, min_learning_rate=0.3
    )
    assert [float(schedule(s)) for s in (0, 14, 19, 1000)] == pytest.approx([0.5, 0.5, 1 / 3, 0.3])


def test_unknown_factors_are_named():
    with pytest.raises(ValueError, match=r"\['square_decay'\].*cosine_decay"):
        create_learning_rate_scheduler("constant * square_decay")
