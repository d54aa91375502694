import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musax.metrics import bootstrap
from musax.metrics.bootstrap import bootstrap_mean

VALUES = st.lists(st.floats(-100, 100), min_size=1, max_size=12)


@settings(max_examples=50, deadline=None)
@given(VALUES, st.integers(0, 3))
def test_the_interval_is_that_of_a_loop_and_holds_the_values(values, seed):
    found = bootstrap_mean(values, resamples=40, seed=seed)
    rng = np.random.default_rng(seed)
    means = [
        np.mean([values[i] for i in row]) for row in rng.integers(0, len(values), (40, len(values)))
    ]
    np.testing.assert_allclose(found.interval, np.percentile(means, [2.5, 97.5]), atol=1e-9)
    assert found.mean == pytest.approx(np.mean(values), abs=1e-9)
    assert min(values) - 1e-9 <= found.low <= found.high <= max(values) + 1e-9


def test_intervals_cover_and_narrow():
    rng = np.random.default_rng(0)
    covered = [
        found.low <= 0 <= found.high
        for found in (bootstrap_mean(rng.normal(size=40), seed=i) for i in range(300))
    ]
    assert 0.9 < np.mean(covered) < 0.98
    few, many = (bootstrap_mean(rng.normal(size=n)) for n in (10, 1000))
    assert many.high - many.low == pytest.approx(2 * 1.96 / np.sqrt(1000), rel=0.15)
    assert few.high - few.low > 4 * (many.high - many.low)
    half = bootstrap_mean(np.arange(100.0), level=0.5)
    whole = bootstrap_mean(np.arange(100.0), level=0.95)
    assert whole.low < half.low < half.high < whole.high


def test_clusters_are_drawn_whole_and_nan_is_not_counted():
    rng = np.random.default_rng(0)
    levels = rng.normal(2.0, 0.5, 50)
    clusters = [np.full(rng.integers(10, 90), level) for level in levels]
    found = bootstrap_mean(clusters)
    assert found.mean == pytest.approx(np.concatenate(clusters).mean())
    # About 2 * 1.96 * 0.5 / sqrt(50); were the values independent it would be 7 times less.
    assert 0.2 < found.high - found.low < 0.4
    holes = [np.append(row, np.nan) for row in clusters]
    assert bootstrap_mean([*holes, np.array([np.nan])]) == pytest.approx(found)


def test_pairs_share_what_varies():
    values = np.random.default_rng(0).normal(0, 10, 30)
    found = bootstrap_mean(values + 0.5, values)
    assert found == pytest.approx((0.5, 0.5, 0.5))


def test_draws_in_parts_are_the_draws(monkeypatch):
    values = np.random.default_rng(0).normal(size=7)
    whole = bootstrap_mean(values, resamples=101)
    monkeypatch.setattr(bootstrap, "_DRAWS", 20)
    assert bootstrap_mean(values, resamples=101) == whole


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        ([], {}, "0 items without a value"),
        ([np.nan], {}, "1 items without a value"),
        ([1.0], {"level": 1.0}, r"level=1\.0"),
        ([1.0], {"resamples": 0}, "resamples=0"),
        ([1.0, 2.0], {"paired": [1.0]}, "paired values"),
    ],
)
def test_what_has_no_interval_is_named(values, options, message):
    with pytest.raises(ValueError, match=message):
        bootstrap_mean(values, **options)
