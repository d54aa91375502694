"""What is measured of models: samples by themselves and beside the data, gaps filled in.

Letters in shapes: B rows, L length, N tokens of a run.
"""

from collections.abc import Sequence

import numpy as np

from cdcd.edit_distance import edit_distances


def ngram_entropy(rows: np.ndarray, order: int = 1) -> float:
    """Entropy of the last of `order` tokens given those before it, nats, by counting.

    Of a model's samples, beside a judge's likelihood of them: what is likely and not various says
    the same again and again. Few tokens look less various than they are, so compare equal numbers.

    Args:
      rows: int [B, L].
      order: 1 for the unigram entropy, 2 for that of bigrams.

    Raises:
      ValueError: rows are shorter than `order`.
    """
    longer = _block_entropy(rows, order)
    return longer - (_block_entropy(rows[:, :-1], order - 1) if order > 1 else 0.0)


def _block_entropy(rows: np.ndarray, order: int) -> float:
    _, counts = np.unique(_windows(rows, order), return_counts=True)
    share = counts / counts.sum()
    return float(-np.sum(share * np.log(share)))


def _windows(rows: np.ndarray, length: int) -> np.ndarray:
    """All runs of `length` tokens, each as one opaque value, [runs]."""
    rows = np.asarray(rows, np.int32)
    if rows.ndim != 2 or rows.shape[1] < length:
        raise ValueError(f"rows {rows.shape}: expected [rows, length] of {length} tokens or more")
    runs = np.lib.stride_tricks.sliding_window_view(rows, length, axis=1).reshape(-1, length)
    return np.ascontiguousarray(runs).view(np.dtype((np.void, 4 * length))).ravel()


def copied_share(rows: np.ndarray, training: Sequence[np.ndarray], length: int) -> float:
    """Share of the runs of `length` tokens of rows that occur in training sequences, 0 to 1.

    Args:
      rows: int [B, L].
      training: int [n] each.
      length: N.

    Raises:
      ValueError: rows are shorter than `length`.
    """
    known = [_windows(np.asarray(x)[None], length) for x in training if len(x) >= length]
    ours = _windows(rows, length)
    return float(np.isin(ours, np.concatenate([ours[:0], *known])).mean())


def span_masks(rng: np.random.Generator, shape: tuple[int, int], share: float) -> np.ndarray:
    """One gap in each row, of `share` of its length, anywhere; bool [B, L], True in the gap.

    Raises:
      ValueError: the share is not above 0 and up to 1.
    """
    if not 0.0 < share <= 1.0:
        raise ValueError(f"share={share}: expected above 0, up to 1")
    rows, length = shape
    size = max(1, round(share * length))
    first = rng.integers(0, length - size + 1, (rows, 1))
    place = np.arange(length)
    return (place >= first) & (place < first + size)


def infilling_scores(
    truth: np.ndarray, filled: np.ndarray, gaps: np.ndarray, bootstrap_seed: int = 0
) -> dict[str, float]:
    """How much of what was there is found again.

    Args:
      truth: int [B, L].
      filled: int [B, L], equal to the truth outside of gaps.
      gaps: bool [B, L], as many positions in every row.
      bootstrap_seed: of the interval.

    Returns:
      `accuracy` of tokens in gaps, with the 95 % interval `low` to `high` by bootstrap of rows, and
      `edits`, the mean edit distance as a share of the gap's length.
    """
    rows, size = len(truth), int(gaps[0].sum())
    wanted, found = truth[gaps].reshape(rows, size), filled[gaps].reshape(rows, size)
    by_row = (wanted == found).mean(axis=1)
    draws = np.random.default_rng(bootstrap_seed).integers(0, rows, (1000, rows))
    low, high = np.percentile(by_row[draws].mean(axis=1), [2.5, 97.5])
    edits = edit_distances(wanted.tolist(), found.tolist()).mean() / size
    return {
        "accuracy": float(by_row.mean()),
        "low": float(low),
        "high": float(high),
        "edits": float(edits),
    }


def mean_and_interval(values: np.ndarray, seed: int = 0) -> tuple[float, float, float]:
    """(mean, low, high) of [B], the 95 % interval by bootstrap."""
    values = np.asarray(values, np.float64)
    draws = np.random.default_rng(seed).integers(0, len(values), (1000, len(values)))
    low, high = np.percentile(values[draws].mean(axis=1), [2.5, 97.5])
    return float(values.mean()), float(low), float(high)
