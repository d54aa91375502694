"""Whether a batch fits into the memory of this machine."""

import math
import os
from collections.abc import Mapping

import numpy as np

from t5x.data.converters import FeatureConverter, FeatureSpec
from t5x.data.features import Feature
from t5x.data.packing import Lengths, axis_limits


def check_batch_memory(
    converter: FeatureConverter,
    lengths: Lengths,
    rows: int,
    name: str,
    features: Mapping[str, Feature | FeatureSpec] | None = None,
) -> None:
    """Refuse a batch that is larger than the memory, before an example is read.

    Args:
      converter: gives the model features.
      lengths: task feature lengths.
      rows: of a batch in this process.
      name: of the task or mixture.
      features: the task's, for converters that hand them on.

    Raises:
      ValueError: a batch needs more bytes than this machine has.
    """
    row = _least_row_bytes(converter, lengths, features or {})
    memory = physical_memory()
    if rows * row > memory:
        raise ValueError(
            f"batch_size (BATCH_SIZE): {rows} rows of {name}, of {row} bytes or more each, take "
            f"{_readable(rows * row)}; this machine has {_readable(memory)} of memory, so lower it "
            f"to far fewer than {memory // row} rows."
        )


def physical_memory() -> int:
    """Return the bytes of memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _least_row_bytes(
    converter: FeatureConverter, lengths: Lengths, features: Mapping[str, Feature | FeatureSpec]
) -> int:
    """Return the bytes of a row at full lengths; axes that have no length count as 1."""
    specs = {**features, **converter.passthrough_features, **converter.MODEL_FEATURES}
    dtypes = {name: spec.dtype for name, spec in specs.items()}
    dtypes |= converter.PACKING_FEATURE_DTYPES or {}
    return sum(
        math.prod(axis_limits(length)) * np.dtype(dtypes.get(name, np.int8)).itemsize
        for name, length in converter.get_model_feature_lengths(lengths).items()
        if length is not None
    )


def _readable(count: int) -> str:
    units = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB")
    power = min((count.bit_length() - 1) // 10, len(units) - 1) if count else 0
    return f"{count / 1024**power:.3g} {units[power]}"
