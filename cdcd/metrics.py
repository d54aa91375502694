"""What is measured of models: samples by themselves and beside the data, gaps filled in.

Letters in shapes: B rows, L length, N tokens of a run.
"""

import itertools
import re
from collections.abc import Collection, Iterator, Sequence

import numpy as np

from cdcd.edit_distance import edit_distances
from musax.metrics.bootstrap import bootstrap_mean

#: The major scale of C, by pitch class.
_MAJOR = np.array([1, 0, 1, 0, 1, 1, 0, 1, 0, 1, 0, 1])


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
    _, counts = np.unique(_row_hashes(rows, order), return_counts=True)
    share = counts / counts.sum()
    return float(-np.sum(share * np.log(share)))


def copied_share(rows: np.ndarray, training: Sequence[np.ndarray], length: int) -> float:
    """Share of the runs of `length` tokens of rows that occur in training sequences, 0 to 1.

    Runs are told apart by hashes of 64 bits, so that a corpus of a hundred million tokens takes
    seconds, and little memory beside its own.

    Args:
      rows: int [B, L].
      training: int [n] each.
      length: N.

    Raises:
      ValueError: rows are shorter than `length`.
    """
    ours, place = np.unique(_row_hashes(rows, length), return_inverse=True)
    # Nearly all runs of a corpus are none of ours, which one look at so many bits tells of most.
    seen = np.zeros(1 << 22, bool)
    seen[ours % seen.size] = True
    copied = np.zeros(len(ours), bool)
    for part in _parts(training, tokens=1 << 22):
        theirs = _run_hashes(part, length)
        theirs = theirs[seen[theirs % seen.size]]
        copied |= np.isin(ours, theirs)
    return float(copied[place].mean())


def _row_hashes(rows: np.ndarray, length: int) -> np.ndarray:
    """`_run_hashes` of rows int [B, L]; raises ValueError where they are shorter."""
    if rows.ndim != 2 or rows.shape[1] < length:
        raise ValueError(f"rows {rows.shape}: expected [rows, length] of {length} tokens or more")
    return _run_hashes(list(rows), length)


def _run_hashes(sequences: Sequence[np.ndarray], length: int) -> np.ndarray:
    """A hash of each run of `length` tokens within a sequence, uint64 [runs]: a sum of tokens by
    factors of their place."""
    factors = np.random.default_rng(0).integers(1 << 64, size=length, dtype=np.uint64)
    tokens = np.concatenate(sequences).astype(np.uint64)
    sizes = [len(x) for x in sequences]
    left = np.repeat(np.cumsum(sizes), sizes) - np.arange(len(tokens))
    runs = max(len(tokens) - length + 1, 0)
    hashes = np.zeros(runs, np.uint64)
    for i, factor in enumerate(factors):
        hashes += factor * tokens[i : i + runs]
    return hashes[left[:runs] >= length]


def _parts(sequences: Sequence[np.ndarray], tokens: int) -> Iterator[Sequence[np.ndarray]]:
    """Sequences side by side of about so many tokens together."""
    part = np.cumsum([len(x) for x in sequences]) // tokens
    edges = np.flatnonzero(np.diff(part, prepend=-1, append=-1))
    for first, last in itertools.pairwise(edges.tolist()):
        yield sequences[first:last]


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


def word_gaps(
    rng: np.random.Generator, texts: Sequence[str], letters: tuple[int, int] = (3, 5)
) -> np.ndarray:
    """A gap in place of one word of each text, anywhere; bool [B, L], True in the gap.

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
    """What stands in place of words.

    Args:
      truth, filled: texts of L symbols.
      gaps: bool [B, L] of `word_gaps`; texts without one do not count.
      known: words.

    Returns:
      `found`, the share of words that are those that stood there, and `known`, that of words that
      are known.

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
    found = [wanted == made for wanted, made in pairs]
    return {
        "found": float(np.mean(found)),
        "known": float(np.mean([made in known for _, made in pairs])),
    }


def scale_share(pitches: Sequence[np.ndarray]) -> float:
    """Share of the notes of each melody that are in the major scale that fits it best, the mean of
    melodies with notes, 0 to 1. Minor scales have the notes of a major one.

    Args:
      pitches: MIDI pitches int [n] of each melody.

    Raises:
      ValueError: there are no notes at all.
    """
    counts = np.array([np.bincount(p % 12, minlength=12) for p in pitches if len(p)])
    if not len(counts):
        raise ValueError("no melody has notes: expected one at least")
    scales = np.array([np.roll(_MAJOR, key) for key in range(12)])
    return float(((counts @ scales.T).max(axis=1) / counts.sum(axis=1)).mean())


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
    accuracy = bootstrap_mean(by_row, seed=bootstrap_seed)
    edits = edit_distances(wanted.tolist(), found.tolist()).mean() / size
    return {
        "accuracy": accuracy.mean,
        "low": accuracy.low,
        "high": accuracy.high,
        "edits": float(edits),
    }
