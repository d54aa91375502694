import functools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdcd.edit_distance import edit_distances

WORDS = st.text("abc", max_size=7)


@functools.cache
def distance(a, b):
    """By its definition."""
    if not a or not b:
        return len(a) + len(b)
    return min(
        distance(a[1:], b) + 1, distance(a, b[1:]) + 1, distance(a[1:], b[1:]) + (a[0] != b[0])
    )


@given(st.lists(st.tuples(WORDS, WORDS), max_size=5))
def test_as_defined(pairs):
    found = edit_distances([a for a, _ in pairs], [b for _, b in pairs])
    np.testing.assert_array_equal(found, [distance(a, b) for a, b in pairs])


def test_symbols_are_compared_not_letters():
    assert edit_distances([["HH", "AH"], ["N"]], [["HH", "AA"], ["N"]]).tolist() == [1, 0]
    with pytest.raises(ValueError, match="1 references, but 2 hypotheses"):
        edit_distances(["a"], ["a", "b"])
