"""Diversity of token sequences, and the share of them copied from training data.

Conventions
-----------
A sequence is an int array [n] of tokens; tokens of different sequences never form an n-gram
together. N-grams are compared by hashes of 64 bits, so a corpus of a hundred million tokens takes
seconds, and little memory beside its own. No function changes its arguments.

Source: rolling hashes after Karp & Rabin, "Efficient randomized pattern-matching algorithms"
(1987); tokens are scattered first (SplitMix64 of Steele et al. 2014).
"""

import functools
import itertools
from collections.abc import Iterator, Sequence

import numpy as np

Sequences = Sequence[np.ndarray] | np.ndarray

#: Base of the hash polynomials; odd, so that it has an inverse modulo 2^64.
_BASE = 0xD1342543DE82EF95
#: Tokens of a corpus that are hashed together.
_PART_TOKENS = 1 << 22


def ngram_entropy(rows: Sequences, order: int = 1) -> float:
    """Return the entropy of a token given the `order - 1` before it, in nats, from counts.

    Few tokens look less varied than their source, so compare equal numbers of tokens.

    Args:
      rows: int arrays [n].
      order: 1 for the entropy of single tokens, 2 for that of the second token of pairs.

    Raises:
      ValueError: no row has `order` tokens.
    """
    longer = _block_entropy(rows, order)
    return longer - (_block_entropy([row[:-1] for row in rows], order - 1) if order > 1 else 0.0)


def _block_entropy(rows: Sequences, order: int) -> float:
    hashes = _ngram_hashes(rows, order)
    if not len(hashes):
        raise ValueError(f"{len(rows)} rows: expected {order} tokens or more in one at least")
    _, counts = np.unique(hashes, return_counts=True)
    share = counts / counts.sum()
    return float(-np.sum(share * np.log(share)))


def copied_share(sequences: Sequences, training: Sequences, length: int) -> float:
    """Return the share of the n-grams of sequences that occur in training sequences, 0 to 1.

    Args:
      sequences: int arrays [n].
      training: int arrays [n].
      length: tokens of an n-gram.

    Returns:
      NaN if no sequence has `length` tokens.

    Raises:
      ValueError: `length` is below 1.
    """
    if length < 1:
        raise ValueError(f"length={length}: expected 1 token or more")
    ours, place = np.unique(_ngram_hashes(sequences, length), return_inverse=True)
    if not len(ours):
        return float("nan")
    # Nearly all n-grams of a corpus are none of ours; a table of bits rules most of them out.
    seen = np.zeros(1 << 22, bool)
    seen[ours % seen.size] = True
    copied = np.zeros(len(ours), bool)
    for part in _parts(training):
        theirs = _ngram_hashes(part, length)
        theirs = theirs[seen[theirs % seen.size]]
        copied |= np.isin(ours, theirs)
    return float(copied[place].mean())


def longest_copies(sequences: Sequences, training: Sequences) -> list[int]:
    """Return the tokens of the longest n-gram of each sequence that occurs in training sequences.

    Args:
      sequences: int arrays [n].
      training: int arrays [n].
    """

    @functools.cache
    def known(length: int) -> np.ndarray:
        parts = [_ngram_hashes(part, length) for part in _parts(training)]
        return np.sort(np.concatenate([np.zeros(0, np.uint64), *parts]))

    def occurs(sequence: np.ndarray, length: int) -> bool:
        ours, theirs = _ngram_hashes([sequence], length), known(length)
        if not len(theirs):
            return False
        at = np.minimum(np.searchsorted(theirs, ours), len(theirs) - 1)
        return bool(np.any(theirs[at] == ours))

    def longest(sequence: np.ndarray) -> int:
        low, high = 0, 1  # n-grams of `low` tokens occur, those of `high` do not
        while occurs(sequence, high):
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if occurs(sequence, middle) else (low, middle)
        return low

    return [longest(sequence) for sequence in sequences]


def _ngram_hashes(sequences: Sequences, length: int) -> np.ndarray:
    """Return a hash for each n-gram within a sequence, uint64 [n-grams], in order.

    Polynomials in the tokens, modulo 2^64, all from one running sum.
    """
    sizes = [len(x) for x in sequences]
    count = sum(sizes) - length + 1
    if count < 1:
        return np.zeros(0, np.uint64)
    tokens = _scattered(np.concatenate([np.asarray(x) for x in sequences]).astype(np.uint64))
    total = np.append(np.uint64(0), np.cumsum(tokens * _powers(_BASE, len(tokens))))
    inverse = _powers(pow(_BASE, -1, 1 << 64), count)
    hashes = (total[length:] - total[:-length]) * inverse
    left = np.repeat(np.cumsum(sizes), sizes) - np.arange(len(tokens))
    return hashes[left[:count] >= length]


def _scattered(x: np.ndarray) -> np.ndarray:
    """Return uint64 numbers scattered over their range."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _powers(base: int, count: int) -> np.ndarray:
    """Return 1, base, base^2, ... modulo 2^64, uint64 [count]."""
    factors = np.full(count, base, np.uint64)
    factors[:1] = 1
    return np.cumprod(factors, dtype=np.uint64)


def _parts(sequences: Sequences) -> Iterator[Sequences]:
    """Yield adjacent sequences that have about `_PART_TOKENS` tokens together."""
    if not len(sequences):
        return
    part = np.cumsum([len(x) for x in sequences]) // _PART_TOKENS
    edges = np.flatnonzero(np.diff(part, prepend=-1, append=-1))
    for first, last in itertools.pairwise(edges.tolist()):
        yield sequences[first:last]
