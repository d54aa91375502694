import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from perceiver_ar.lazy_arrays import LazyArray, lazy_sequence
from t5x.data.records import deserialize_example, serialize_example


@given(st.lists(st.integers(3, 258), max_size=12), st.data())
def test_slices_are_those_of_the_array(ids, data):
    ids = np.array(ids, np.int32)
    example = lazy_sequence(len(ids), lambda first, end: ids[first:end])
    tokens = np.concatenate([[2], ids, [1]]).astype(np.int32)
    whole = {"tokens": tokens, "positions": np.arange(1, len(tokens) + 1)[:, None]}
    bounds = st.integers(-len(tokens) - 1, len(tokens) + 1) | st.none()
    first, end = data.draw(bounds), data.draw(bounds)
    for name, value in whole.items():
        lazy = example[name]
        assert len(lazy) == len(value)
        np.testing.assert_array_equal(lazy[first:end], value[first:end])
        assert lazy[first:end].shape == value[first:end].shape
        assert lazy[first:end].dtype == np.int32
        np.testing.assert_array_equal(np.asarray(lazy), value)


def test_only_the_slice_is_read():
    asked = []

    def read(first, end):
        asked.append((first, end))
        return np.zeros(end - first, np.int32)

    tokens = lazy_sequence(10**9, read)["tokens"]
    assert len(tokens[5_000_000:5_000_100]) == 100
    assert asked == [(4_999_999, 5_000_099)]


def test_lazy_arrays_can_be_cached():
    array = LazyArray(4, lambda first, end: np.arange(first, end))
    back = deserialize_example(serialize_example({"x": array}))
    assert back["x"].tolist() == [0, 1, 2, 3]
