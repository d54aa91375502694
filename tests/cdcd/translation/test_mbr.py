"""Utilities against plain implementations and values by hand; which candidate is chosen."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdcd.translation.mbr import UTILITIES, choose, chrf, negative_edit_distance, sentence_bleu

groups = st.lists(st.lists(st.integers(3, 6), max_size=9), min_size=1, max_size=6)
utilities = pytest.mark.parametrize("utility", UTILITIES.values(), ids=UTILITIES)


# ------------------------------------------------------------------------- plain implementations


def ngrams(row, order):
    return Counter(tuple(row[i : i + order]) for i in range(len(row) - order + 1))


def plain_bleu(hypothesis, reference):
    if not hypothesis:
        return float(not reference)
    product = 1.0
    for order in range(1, 5):
        ours, theirs = ngrams(hypothesis, order), ngrams(reference, order)
        added = order > 1
        product *= ((ours & theirs).total() + added) / (ours.total() + added)
    short = len(hypothesis) < len(reference)
    return product**0.25 * (math.exp(1 - len(reference) / len(hypothesis)) if short else 1.0)


def plain_chrf(hypothesis, reference):
    if not hypothesis and not reference:
        return 1.0
    precisions, recalls = [], []
    for order in range(1, 7):
        ours, theirs = ngrams(hypothesis, order), ngrams(reference, order)
        if ours and theirs:
            precisions.append((ours & theirs).total() / ours.total())
            recalls.append((ours & theirs).total() / theirs.total())
    if not sum(precisions):
        return 0.0
    p, r = np.mean(precisions), np.mean(recalls)
    return 5 * p * r / (4 * p + r)


@pytest.mark.parametrize(("utility", "plain"), [(sentence_bleu, plain_bleu), (chrf, plain_chrf)])
@given(rows=groups)
@settings(max_examples=60, deadline=None)
def test_all_pairs_at_once_are_as_one_by_one(utility, plain, rows):
    expected = [[plain(hypothesis, reference) for reference in rows] for hypothesis in rows]
    np.testing.assert_allclose(utility(rows), expected, atol=1e-12)


# ------------------------------------------------------------------------------- values by hand


def test_values_by_hand():
    """Of 5 symbols and 4: 3 are shared, then the pairs ab and bc, and the triple abc."""
    rows = ["abcde", "abcx"]
    precisions = [3 / 5, (2 + 1) / (4 + 1), (1 + 1) / (3 + 1), (0 + 1) / (2 + 1)]
    backwards = [3 / 4, (2 + 1) / (3 + 1), (1 + 1) / (2 + 1), (0 + 1) / (1 + 1)]
    bleu = sentence_bleu(rows)
    assert bleu[0, 1] == pytest.approx(math.prod(precisions) ** 0.25)
    assert bleu[1, 0] == pytest.approx(math.prod(backwards) ** 0.25 * math.exp(1 - 5 / 4))
    precision, recall = np.mean([3 / 5, 2 / 4, 1 / 3, 0]), np.mean([3 / 4, 2 / 3, 1 / 2, 0])
    assert chrf(rows)[0, 1] == pytest.approx(5 * precision * recall / (4 * precision + recall))
    assert negative_edit_distance(rows).tolist() == [[0, -2], [-2, 0]]


def test_repetitions_count_as_often_as_the_other_has_them():
    """The classic: seven times "the" has of "the cat is on the mat" only two."""
    rows = [["the"] * 7, ["the", "cat", "is", "on", "the", "mat"]]
    assert sentence_bleu(rows, max_order=1)[0, 1] == pytest.approx(2 / 7)


@utilities
def test_nothing_is_better_than_equal(utility):
    rows = [[3, 4, 5, 3], [3, 4, 5], [6], []]
    values = utility(rows)
    best = 0.0 if utility is negative_edit_distance else 1.0
    np.testing.assert_allclose(np.diagonal(values), best)
    assert np.all(values - np.diag(np.diagonal(values)) < best + np.eye(4))


# --------------------------------------------------------------------------------------- choices


@utilities
def test_of_one_candidate_it_is_the_one(utility):
    assert choose([[[3, 4]], [[]], [[5]]], utility).tolist() == [0, 0, 0]


@utilities
def test_what_most_agree_on_is_chosen(utility):
    common = [4, 5, 6, 4]
    group = [[3, 3, 3], common, [4, 5, 6], common, common, [7, 7, 7, 7, 7]]
    assert choose([group, group[::-1]], utility).tolist() == [1, 1]


def test_a_compromise_that_was_drawn_once_beats_what_is_far_from_it():
    """abcd is one edit from three others, which are two from each other; wwww was drawn twice."""
    group = ["wwww", "abcx", "abxd", "xbcd", "abcd", "wwww"]
    assert choose([group], negative_edit_distance).tolist() == [4]


@utilities
@given(rows=groups)
@settings(max_examples=30, deadline=None)
def test_the_choice_has_the_highest_mean_utility_over_the_others(utility, rows):
    values = utility(rows)
    others = np.sum(values, axis=1) - np.diagonal(values)
    assert others[choose([rows], utility)[0]] == pytest.approx(others.max())


def test_a_group_without_candidates_is_an_error():
    with pytest.raises(ValueError, match="without candidates"):
        choose([[[3]], []], chrf)
