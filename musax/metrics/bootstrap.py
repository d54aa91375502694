"""Uncertainty of a mean: percentile intervals by the bootstrap.

Conventions
-----------
An *item* is one independent observation: a recording, a generated piece, a sequence of tokens. It
has one value or an array of them (a *cluster*, such as the costs of the tokens of one sequence,
which depend on each other). The estimate is the mean over the values of all items; its interval
comes from drawing whole items with replacement. NaN values are not counted. All results are
deterministic in the seed.

Source: Efron & Tibshirani, "An Introduction to the Bootstrap" (1993), chapters 8 and 13.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

#: Items drawn at a time, a bound of memory.
_DRAWS = 1 << 22


class Estimate(NamedTuple):
    """A mean with its interval, in the unit of the values."""

    mean: float
    low: float
    high: float

    @property
    def interval(self) -> tuple[float, float]:
        """`(low, high)`."""
        return self.low, self.high


def bootstrap_mean(
    values: np.ndarray | Sequence[float] | Sequence[np.ndarray],
    paired: np.ndarray | Sequence[float] | Sequence[np.ndarray] | None = None,
    *,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Estimate:
    """Return the mean of values and its percentile interval.

    Args:
      values: a number for each item, [N], or an array for each item, [n_i].
      paired: values of another system for the same items, of the same shapes; the estimate is then
        of the difference `values - paired`.
      level: probability that the interval covers, above 0 and below 1.
      resamples: number of draws of N items.
      seed: of the draws.

    Raises:
      ValueError: all values are NaN, shapes differ, or an option is out of range.

    >>> bootstrap_mean([1.0, 1.0, 1.0])
    Estimate(mean=1.0, low=1.0, high=1.0)
    """
    if not 0.0 < level < 1.0 or resamples < 1:
        raise ValueError(
            f"level={level}, resamples={resamples}: expected a level between 0 and 1, and 1 "
            "resample or more"
        )
    items = [np.atleast_1d(np.asarray(item, np.float64)) for item in values]
    if paired is not None:
        others = [np.atleast_1d(np.asarray(item, np.float64)) for item in paired]
        if [x.shape for x in items] != [x.shape for x in others]:
            raise ValueError("paired values: expected the items and shapes of the values")
        items = [x - y for x, y in zip(items, others)]
    totals = np.array([np.nansum(item) for item in items])
    counts = np.array([np.count_nonzero(~np.isnan(item)) for item in items])
    totals, counts = totals[counts > 0], counts[counts > 0]
    if not len(totals):
        raise ValueError(f"{len(items)} items without a value: expected one value at least")
    means = np.concatenate(
        [
            totals[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
            for drawn in _draws(len(totals), resamples, seed)
        ]
    )
    tail = (1.0 - level) / 2
    low, high = np.quantile(means, [tail, 1.0 - tail])
    return Estimate(float(totals.sum() / counts.sum()), float(low), float(high))


def _draws(items: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Yield indices int64 [R, items], `resamples` rows together."""
    rng = np.random.default_rng(seed)
    rows = max(1, _DRAWS // items)
    for first in range(0, resamples, rows):
        yield rng.integers(0, items, (min(rows, resamples - first), items))
