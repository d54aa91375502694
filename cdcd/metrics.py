"""Infilling: gaps to fill in, and metrics of the results.

Letters in shapes: B rows, L length.
"""

import re
from collections.abc import Collection, Sequence

import numpy as np

from cdcd.edit_distance import edit_distances
from musax.metrics.bootstrap import bootstrap_mean


def span_masks(rng: np.random.Generator, shape: tuple[int, int], share: float) -> np.ndarray:
    """Draw one gap in each row, of `share` of its length, anywhere; bool [B, L], True in the gap.

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


def word_gaps(
    rng: np.random.Generator, texts: Sequence[str], letters: tuple[int, int] = (3, 5)
) -> np.ndarray:
    """Draw a gap in place of one word of each text, anywhere; bool [B, L], True in the gap.

    Args:
      rng: draws the words.
      texts: of L symbols each, a to z and the space.
      letters: the fewest and the most of a word. A text without such a word has no gap.
    """
    gaps = np.zeros((len(texts), max(map(len, texts), default=0)), bool)
    words = re.compile(f"(?<= )[a-z]{{{letters[0]},{letters[1]}}}(?= )")
    for gap, text in zip(gaps, texts):
        found = [match.span() for match in words.finditer(text)]
        if found:
            gap[slice(*found[rng.integers(len(found))])] = True
    return gaps


def word_scores(
    truth: Sequence[str], filled: Sequence[str], gaps: np.ndarray, known: Collection[str]
) -> dict[str, float]:
    """Score the words that were filled in.

    Args:
      truth, filled: texts of L symbols.
      gaps: bool [B, L] of `word_gaps`; texts without one do not count.
      known: words.

    Returns:
      `found`, the share of words that equal the original, and `known`, the share of known words.

    Raises:
      ValueError: no text has a gap.
    """
    if not gaps.any():
        raise ValueError("no text has a word that could be filled in: give longer or more rows")
    pairs = [
        tuple("".join(np.array(list(text))[gap]) for text in texts)
        for *texts, gap in zip(truth, filled, gaps)
        if gap.any()
    ]
    found = [target == sampled for target, sampled in pairs]
    return {
        "found": float(np.mean(found)),
        "known": float(np.mean([sampled in known for _, sampled in pairs])),
    }


def infilling_scores(
    truth: np.ndarray, filled: np.ndarray, gaps: np.ndarray, bootstrap_seed: int = 0
) -> dict[str, float]:
    """Score the tokens that were filled in.

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
    accuracy = bootstrap_mean(by_row, seed=bootstrap_seed)
    edits = edit_distances(wanted.tolist(), found.tolist()).mean() / size
    return {
        "accuracy": accuracy.mean,
        "low": accuracy.low,
        "high": accuracy.high,
        "edits": float(edits),
    }
