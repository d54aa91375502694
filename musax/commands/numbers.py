"""Types of numbers for argparse, with messages that state the limits."""

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
    """Return a type that reads a number from `low` to `high`.

    Args:
      expected: the end of the message for other values, such as "a number of 0 or more".
      low, high: limits.
      above, below: whether the limit itself is excluded.
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


seconds = real("a positive number of seconds", 0.0, 1e5, above=True)
not_negative = real("a number of 0 or more", 0.0, 1e5)
positive = real("a positive number", 0.0, 1e5, above=True)
probability = real("a probability above 0, up to 1", 0.0, 1.0, above=True)
#: Quarter notes per minute.
tempo = real("a tempo from 4 to 1000", 4.0, 1000.0)


def whole(expected: str, low: int, high: int) -> Callable[[str], int]:
    """Return a type that reads a whole number from `low` to `high`; `expected` as in `real`."""

    def read(text: str) -> int:
        digits = text.lstrip("0") or "0"  # Python refuses to read thousands of digits
        good = text.isascii() and text.isdigit() and len(digits) <= len(str(high))
        if not good or not low <= int(digits) <= high:
            shown = text if len(text) <= 40 else f"{text[:40]}…"
            raise argparse.ArgumentTypeError(f"{shown!r} is not {expected}")
        return int(digits)

    return read


_MOST = 1_000_000
_up_to_most = whole(f"at most {_MOST}", 0, _MOST)
_count = whole("a whole number of 1 or more", 1, _MOST)


def count(text: str) -> int:
    """Read a whole number of 1 or more, up to a million."""
    if text.isascii() and text.isdigit():
        _up_to_most(text)
    return _count(text)


#: Numbers of 32 bits give different random numbers.
seed = whole(f"a whole number from 0 to {(1 << 32) - 1}", 0, (1 << 32) - 1)
#: MIDI pitches.
pitch = whole("a MIDI pitch from 0 to 127", 0, 127)
#: Of MIDI.
velocity = whole("a velocity from 1 to 127", 1, 127)
#: Hz.
sample_rate = whole("a sample rate from 1000 to 1000000 Hz", 1000, 1_000_000)


def span(read: Callable[[str], float], example: str) -> Callable[[str], tuple[float, float]]:
    """Return a type that reads `FROM:TO` with another type; FROM is below TO.

    Args:
      read: type of both ends.
      example: what the message shows for other values, such as "4:6.5".
    """

    def read_span(text: str) -> tuple[float, float]:
        first, colon, last = text.partition(":")
        try:
            begin, end = read(first), read(last if colon else first)
        except argparse.ArgumentTypeError as error:
            raise argparse.ArgumentTypeError(f"{text!r}: {error}; for example {example}") from error
        if begin > end:
            raise argparse.ArgumentTypeError(
                f"{text!r} ends before it begins; for example {example}"
            )
        return begin, end

    return read_span
