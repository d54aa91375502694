"""Vocabularies of a few symbols: letters, phonemes. Melodies have `musax.events.melody`."""

import functools
from collections.abc import Iterable, Sequence

import numpy as np

from t5x.data.vocabularies import EOS_ID, NUM_SPECIAL_IDS, TokenVocabulary, clean_ids

#: The symbols of text8 (Mahoney 2006).
TEXT8_SYMBOLS = " abcdefghijklmnopqrstuvwxyz"


class SymbolVocabulary(TokenVocabulary):
    """Symbols as ids from 3 on, in their order.

    Args:
      symbols: all different.
      separator: string between the symbols of a text.

    Raises:
      ValueError: a symbol occurs twice.
    """

    def __init__(self, symbols: Sequence[str], separator: str = ""):
        if len(set(symbols)) < len(symbols):
            raise ValueError(f"symbols={symbols!r}: expected each once")
        super().__init__(len(symbols))
        self.symbols, self.separator = tuple(symbols), separator

    def encode(self, value: str) -> list[int]:
        """Return ids of a text. Raise ValueError for unknown symbols."""
        index = _index(self.symbols)
        found = value.split(self.separator) if self.separator and value else value
        try:
            return [index[symbol] for symbol in found]
        except KeyError as e:
            raise ValueError(self._message(e.args[0])) from e

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text up to EOS; ids without a symbol are left out."""
        shifted = (i - NUM_SPECIAL_IDS for i in clean_ids(ids, None, EOS_ID))
        kept = [self.symbols[i] for i in shifted if 0 <= i < len(self.symbols)]
        return self.separator.join(kept)

    def _message(self, symbol: str) -> str:
        return f"{symbol!r} is not a known symbol: expected {' '.join(self.symbols)}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.symbols!r}, separator={self.separator!r})"


@functools.cache
def _index(symbols: tuple[str, ...]) -> dict[str, int]:
    return {symbol: i for i, symbol in enumerate(symbols, NUM_SPECIAL_IDS)}


class LettersVocabulary(SymbolVocabulary):
    """Space and a to z, the alphabet of text8: 30 ids with the special ones."""

    def __init__(self):
        super().__init__(TEXT8_SYMBOLS)

    def encode_bytes(self, data: np.ndarray) -> np.ndarray:
        """Return ids int32 [n] of ASCII uint8 [n]. Raise ValueError as `encode` does."""
        ids = _table()[data]
        if not ids.all():
            raise ValueError(self._message(chr(data[np.argmin(ids)])))
        return ids

    def _message(self, symbol: str) -> str:
        return (
            f"character {symbol!r} is neither a space nor one of a to z: put the text through "
            "cdcd.text.normalise_text8 first"
        )

    def __repr__(self) -> str:
        return "LettersVocabulary()"


@functools.cache
def _table() -> np.ndarray:
    """Return int32 [256], the id of each byte, or 0."""
    table = np.zeros(256, np.int32)
    symbols = np.frombuffer(TEXT8_SYMBOLS.encode(), np.uint8)
    table[symbols] = NUM_SPECIAL_IDS + np.arange(len(symbols))
    return table
