"""The order of examples as a function of the place alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t5x.data import order as order_module
from t5x.data.order import ConcatenatedOrder, MixedOrder, Place, TaskOrder, permuted


@pytest.mark.parametrize("largest_table", [0, 2**16])
@pytest.mark.parametrize("size", [1, 2, 100, 1000])
def test_permutations_are_permutations(size, largest_table, monkeypatch):
    monkeypatch.setattr(order_module, "_LARGEST_TABLE", largest_table)
    assert sorted(permuted(i, size, 0, 5) for i in range(size)) == list(range(size))
    if size > 2:
        assert [permuted(i, size, 0) for i in range(50)] != [
            permuted(i, size, 1) for i in range(50)
        ]


def test_each_epoch_has_its_own_permutation():
    order = TaskOrder(20, shuffle=True, seed=1)
    epochs = [[order.place(20 * e + i) for i in range(20)] for e in range(3)]
    for number, places in enumerate(epochs):
        assert {place.epoch for place in places} == {number}
        assert sorted(place.index for place in places) == list(range(20))
    assert len({tuple(p.index for p in places) for places in epochs}) == 3


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 40), st.integers(1, 7), st.booleans(), st.integers(0, 5))
def test_shards_partition(size, num_shards, shuffle, epoch):
    found = []
    for shard in range(num_shards):
        order = TaskOrder(size, shuffle, 3, 0, shard, num_shards)
        n = order.shard_size
        found += [order.place(epoch * n + i).index for i in range(n)]
    assert sorted(found) == list(range(size))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(1e-3, 10), min_size=1, max_size=5), st.integers(0, 3))
def test_mixing_keeps_shares_and_each_tasks_order(rates, seed):
    tasks = [TaskOrder(1000, False, seed, i) for i in range(len(rates))]
    order = MixedOrder(tasks, rates, seed)
    blocks = 3 * order._block_size
    stop = min(blocks, 3000)
    places = [order[i] for i in range(stop)]
    for component in range(len(rates)):
        mine = [p.epoch * 1000 + p.index for p in places if p.component == component]
        assert mine == list(range(len(mine)))
    if stop == blocks:
        shares = np.bincount([p.component for p in places], minlength=len(rates)) / stop
        np.testing.assert_allclose(shares, np.array(rates) / sum(rates), atol=1.01 / stop)


def test_a_place_far_away_costs_nothing():
    order = MixedOrder([TaskOrder(7, True, 1, 0), TaskOrder(9, True, 1, 1)], [1, 3], 1)
    far = order[10**12]
    assert (
        far == MixedOrder([TaskOrder(7, True, 1, 0), TaskOrder(9, True, 1, 1)], [1, 3], 1)[10**12]
    )
    assert far.epoch > 10**10


def test_finite_orders_are_complete_and_end():
    tasks = [TaskOrder(3, True, 1, 0), TaskOrder(5, True, 1, 1)]
    order = ConcatenatedOrder(tasks, 2)
    places = [order[i] for i in range(len(order))]
    expected = [Place(c, e, i) for c, n in ((0, 3), (1, 5)) for e in range(2) for i in range(n)]
    key = repr
    assert sorted(places, key=key) == sorted(expected, key=key)
    with pytest.raises(IndexError):
        order[16]
