"""Minimum Bayes risk decoding: choose the sample most similar to the other samples.

Eikema & Aziz 2020, "Is MAP decoding all you need?"; section 4.4 of Dieleman et al. 2022. A utility
says how good a hypothesis is if a reference is right. It takes the candidates of one input, any
sequences of symbols (lists of ids or of strings), and returns float64 [N, N]: entry (i, j) is that
of candidate i as the hypothesis and j as the reference.

    best = choose(samples, sentence_bleu)
    [group[i] for group, i in zip(samples, best)]
"""

from collections.abc import Callable, Hashable, Sequence

import numpy as np

from cdcd.edit_distance import edit_distances

Candidates = Sequence[Sequence[Hashable]]
Utility = Callable[[Candidates], np.ndarray]


def choose(candidates: Sequence[Candidates], utility: Utility) -> np.ndarray:
    """Return the candidate of each group with the highest mean utility against the others.

    Candidates that are there several times are compared once and count as often. The first of
    equals is chosen, and of one the one.

    Args:
      candidates: of B inputs N each; N may differ.
      utility: see the module.

    Returns:
      int64 [B], indices of candidates.

    Raises:
      ValueError: a group is empty.
    """
    return np.array([_choose(group, utility) for group in candidates], np.int64)


def _choose(group: Candidates, utility: Utility) -> int:
    if not len(group):
        raise ValueError("a group without candidates: expected one or more of each")
    counts: dict[tuple, int] = {}
    first: dict[tuple, int] = {}
    for i, candidate in enumerate(map(tuple, group)):
        counts[candidate] = counts.get(candidate, 0) + 1
        first.setdefault(candidate, i)
    values = utility(list(counts))
    # Of a candidate's own copies one is itself, and no reference.
    total = values @ np.array(list(counts.values())) - np.diagonal(values)
    return list(first.values())[int(np.argmax(total))]


# -------------------------------------------------------------------------------------- utilities


def negative_edit_distance(candidates: Candidates) -> np.ndarray:
    """Return minus the Levenshtein distance."""
    count = len(candidates)
    hypothesis, reference = np.divmod(np.arange(count**2), count)
    distances = edit_distances(
        [candidates[j] for j in reference], [candidates[i] for i in hypothesis]
    )
    return -distances.reshape(count, count).astype(np.float64)


def sentence_bleu(candidates: Candidates, max_order: int = 4) -> np.ndarray:
    """Return BLEU of single sentences, 0 to 1.

    The geometric mean of the precisions of n-grams up to an order, with 1 added to both numbers of
    those that are longer than 1 (Lin & Och 2004, "ORANGE"), times exp(1 - r / h) where h, the
    length of the hypothesis, is less than r, that of the reference (Papineni et al. 2002).
    """
    lengths = _lengths(candidates)
    hypothesis, reference = lengths[:, None], lengths[None, :]
    logs = np.zeros((len(lengths), len(lengths)))
    with np.errstate(divide="ignore", invalid="ignore"):
        for order, (matches, totals) in enumerate(_ngram_matches(candidates, max_order), 1):
            added = float(order > 1)
            precision = (matches + added) / (totals[:, None] + added)
            logs += np.log(np.where(hypothesis > 0, precision, 1.0)) / max_order
        brevity = np.where(hypothesis < reference, 1.0 - reference / hypothesis, 0.0)
    return np.exp(logs + brevity)


def chrf(candidates: Candidates, max_order: int = 6, beta: float = 2.0) -> np.ndarray:
    """Return the F-score of n-grams of symbols, 0 to 1; recall weighs beta times as much.

    Precision and recall are means over the orders that both sentences have n-grams of (Popović
    2015); 1 if both are empty. Symbols are those of the candidates: for the characters of texts,
    give strings.
    """
    lengths = _lengths(candidates)
    shape = (len(lengths), len(lengths))
    precision, recall, orders = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    for matches, totals in _ngram_matches(candidates, max_order):
        both = (totals[:, None] > 0) & (totals[None, :] > 0)
        precision += np.where(both, matches / np.maximum(totals[:, None], 1), 0.0)
        recall += np.where(both, matches / np.maximum(totals[None, :], 1), 0.0)
        orders += both
    precision, recall = precision / np.maximum(orders, 1), recall / np.maximum(orders, 1)
    below = beta**2 * precision + recall
    score = (1 + beta**2) * precision * recall / np.where(below > 0, below, 1.0)
    return np.where(lengths[:, None] + lengths[None, :] > 0, score, 1.0)


#: By name.
UTILITIES: dict[str, Utility] = {
    "edit_distance": negative_edit_distance,
    "bleu": sentence_bleu,
    "chrf": chrf,
}


def _lengths(candidates: Candidates) -> np.ndarray:
    return np.array([len(candidate) for candidate in candidates])


def _ngram_matches(candidates: Candidates, max_order: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return for orders 1, 2, ...: n-grams that pairs share, [N, N], and n-grams of each, [N].

    An n-gram that i has twice and j three times is shared twice. The k-th occurrence of an n-gram
    is the member (n-gram, k) of a set: the shared count is the size of an intersection, which is a
    product of rows of zeros and ones.
    """
    lengths = _lengths(candidates)
    numbers: dict[Hashable, int] = {}
    symbols = np.array([numbers.setdefault(s, len(numbers)) for c in candidates for s in c], int)
    owner = np.repeat(np.arange(len(lengths)), lengths)
    to_end = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(symbols))
    grams, found = symbols, []
    for order in range(1, max_order + 1):
        begins = np.flatnonzero(to_end >= order)
        if order > 1:
            # An n-gram is the one that is shorter by one and the symbol behind it.
            grams[begins] = grams[begins] * len(numbers) + symbols[begins + order - 1]
        _, numbered = np.unique(grams[begins], return_inverse=True)
        grams = np.zeros_like(symbols)
        grams[begins] = numbered
        members = _indicator(owner[begins], numbered, len(lengths))
        found.append((members @ members.T, np.maximum(lengths - order + 1, 0)))
    return found


def _indicator(owner: np.ndarray, gram: np.ndarray, count: int) -> np.ndarray:
    """Return [N, members] of 0 and 1, for n-grams int [G] and the candidates that contain them."""
    order = np.lexsort((gram, owner))
    owner, gram = owner[order], gram[order]
    begins = np.ones(len(gram), bool)
    begins[1:] = (owner[1:] != owner[:-1]) | (gram[1:] != gram[:-1])
    place = np.arange(len(gram))
    occurrence = place - np.maximum.accumulate(np.where(begins, place, 0))
    keys = gram * (occurrence.max(initial=0) + 1) + occurrence
    _, member = np.unique(keys, return_inverse=True)
    members = np.zeros((count, member.max(initial=-1) + 1))
    members[owner, member] = 1.0
    return members
