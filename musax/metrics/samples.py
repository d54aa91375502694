"""Samples of a model beside a corpus: distances of their features, and copies of training pieces.

The same numbers of held-out pieces stand beside those of samples, which copied nothing.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from musax.metrics import generated
from musax.metrics.generated import COPY_LENGTHS, FEATURES, VIEWS, Pieces
from musax.tables import Report, Table

_DISTANCES = ("overlap", "kl", "wasserstein")


def evaluate(
    samples: Pieces, reference: Pieces, other: Pieces, training: Pieces, names: tuple[str, str]
) -> Report:
    """Compare samples with a corpus.

    Held-out pieces are cut to the mean length of samples, in notes, before their longest copies are
    sought.

    Args:
      samples: of a model.
      reference: of a held-out split.
      other: of another held-out split, as many as there are samples.
      training: of the training split.
      names: of the two held-out splits.

    Returns:
      Tables of measures, distances and copies; the data has the numbers of all.

    Raises:
      ValueError: a set has no notes; see `musax.metrics.generated`.
    """
    split, second = names
    measured = {"samples": generated.evaluate(samples), split: generated.evaluate(reference)}
    sets = {"samples": samples, f"{len(other)} of {second}": other}
    distances = {
        name: {
            feature: dataclasses.asdict(distance)
            for feature, distance in generated.compare(pieces, reference).items()
        }
        for name, pieces in sets.items()
    }
    pairs = {"samples": samples, split: reference}
    size = int(np.mean([len(notes) for notes in samples]))
    copies = {
        view: {name: _copies(p, training, size, view) for name, p in pairs.items()}
        for view in VIEWS
    }
    data = {"measures": measured, f"distance from {split}": distances}
    data |= {f"copies of train, {view}": found for view, found in copies.items()}
    return Report(_tables(data, measured, distances, split), data)


def _copies(pieces: Pieces, training: Pieces, size: int, view: str) -> dict[str, float]:
    shares = {f"of {n} notes": generated.copy_rate(pieces, training, n, view) for n in COPY_LENGTHS}
    longest = generated.longest_copies([p[:size] for p in pieces], training, view)
    return shares | {"median longest": float(np.median(longest)), "longest": max(longest)}


def _tables(
    data: Mapping[str, Any],
    measured: Mapping[str, Mapping[str, float]],
    distances: Mapping[str, Mapping[str, Mapping[str, float]]],
    split: str,
) -> list[Table]:
    rows = [
        {"feature": feature}
        | {
            f"{name}: {kind}": distances[name][feature][kind]
            for kind in _DISTANCES
            for name in distances
        }
        for feature in FEATURES
    ]
    copies = [
        {"n-grams": view, "pieces": name} | found
        for view in VIEWS
        for name, found in data[f"copies of train, {view}"].items()
    ]
    return [
        Table("Means over pieces", [{"pieces": k} | dict(v) for k, v in measured.items()]),
        Table(f"Distance from {split}", rows),
        Table("Share of n-grams of notes that are in the training split", copies),
    ]
