import jax.numpy as jnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from t5x.reductions import argmax

#: Few values, so that rows have ties.
values = st.sampled_from([-np.inf, -1.0, 0.0, 2.0, np.inf, np.nan])


@given(arrays(np.float32, (3, 7), elements=values))
def test_argmax_is_that_of_numpy(x):
    np.testing.assert_array_equal(argmax(jnp.asarray(x)), np.argmax(x, axis=-1))


def test_argmax_of_bfloat16():
    x = jnp.asarray([[1.0, 300.0, 300.0]], jnp.bfloat16)
    assert argmax(x).tolist() == [1]
