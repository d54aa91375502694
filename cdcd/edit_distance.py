"""Levenshtein distance between sequences of symbols."""

from collections.abc import Hashable, Sequence

import numpy as np

Rows = Sequence[Sequence[Hashable]]


def edit_distances(references: Rows, hypotheses: Rows) -> np.ndarray:
    """Return the Levenshtein distance of each pair of sequences, int64 [N].

    The least number of symbols that are inserted, left out or replaced.

    Raises:
      ValueError: there are not as many of the one as of the other.
    """
    if len(references) != len(hypotheses):
        raise ValueError(f"{len(references)} references, but {len(hypotheses)} hypotheses")
    numbers: dict[Hashable, int] = {}
    (wanted, ends), (found, lengths) = (_matrix(rows, numbers) for rows in (references, hypotheses))
    columns = np.arange(found.shape[1] + 1)
    # row[n, j]: distance of the first i symbols of reference n from the first j of the hypothesis.
    row = np.tile(columns, (len(found), 1))
    for i in range(wanted.shape[1]):
        best = row + 1
        replaced = row[:, :-1] + (found != wanted[:, i : i + 1])
        best[:, 1:] = np.minimum(best[:, 1:], replaced)
        # Insertions: from any earlier column on, one each.
        best = np.minimum.accumulate(best - columns, axis=1) + columns
        row = np.where((i < ends)[:, None], best, row)
    return row[np.arange(len(found)), lengths]


def _matrix(rows: Rows, numbers: dict[Hashable, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return symbols as numbers int64 [N, L], -1 after the end, and lengths int64 [N]."""
    lengths = np.array([len(row) for row in rows], np.int64)
    matrix = np.full((len(rows), lengths.max(initial=0)), -1)
    for numbered, row in zip(matrix, rows):
        numbered[: len(row)] = [numbers.setdefault(symbol, len(numbers)) for symbol in row]
    return matrix, lengths
