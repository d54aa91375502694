"""Numbers on a command line: what argparse's `type` takes, with messages that say the limits."""

import argparse
import math
from collections.abc import Callable


def real(
    expected: str,
    low: float = -math.inf,
    high: float = math.inf,
    *,
    above: bool = False,
    below: bool = False,
) -> Callable[[str], float]:
    """Reads a number from `low` to `high`; `above` and `below` leave these themselves out.

    Args:
      expected: what the message says it should have been, such as "a number of 0 or more".
      low, high: limits.
      above, below: whether a limit is itself too small, or too large.
    """

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        enough = low < value if above else low <= value
        if not enough or not (value < high if below else value <= high):
            raise argparse.ArgumentTypeError(f"{text!r} is not {expected}")
        return value

    return read


#: Readers of what several verbs ask for.
seconds = real("a positive number of seconds", 0.0, 1e5, above=True)
not_negative = real("a number of 0 or more", 0.0, 1e5)
positive = real("a positive number", 0.0, 1e5, above=True)
probability = real("a probability above 0, up to 1", 0.0, 1.0, above=True)
#: Quarter notes a minute.
tempo = real("a tempo from 4 to 1000", 4.0, 1000.0)


def count(text: str) -> int:
    """Reads a whole number of 1 or more."""
    if not (text.isascii() and text.isdigit()) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)
