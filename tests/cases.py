"""Cases of parametrized tests, of which some are run by `scripts/test --all` alone."""

from collections.abc import Collection, Mapping
from typing import Any

import pytest


def slow_but(fast: Collection[str], cases: Mapping[str, Any]) -> list[Any]:
    """Return the values of `cases` as parameters named by their keys; those not `fast` are slow.

    Raises:
      KeyError: `fast` names a case that is absent.
    """
    for name in fast:
        cases[name]
    return [
        pytest.param(value, id=name, marks=() if name in fast else pytest.mark.slow)
        for name, value in cases.items()
    ]
