"""CRC-32C (Castagnoli, RFC 3720 appendix B.4) in NumPy, and the masking that TFRecord files add."""

import functools
from typing import NamedTuple

import numpy as np

_POLYNOMIAL = 0x82F63B78  # reflected
_MASK_DELTA = 0xA282EAD8
_ONES = 0xFFFFFFFF
_BLOCK = 512
_SPAN = 16 * _BLOCK  # bytes at once: what they take in between stays in the cache
_SHORT = 24  # up to here a plain loop is quicker


class _Tables(NamedTuple):
    """What bytes do to the state after a block.

    A CRC is linear over XOR: that state is the XOR of what each byte alone, and the state before,
    become once they are moved on to the end of the block.

    Attributes:
      byte: [256], the state after one byte.
      moved: uint32 [_BLOCK * 256]: the state after byte b at place p alone, at 256 * p + b.
      starts: int64 [_BLOCK]: 256 * p.
      enter: rows of `moved` of the first four places, where the state before enters.
      ones: for n = 0 … _BLOCK the state after n zero bytes of one that is all ones.
    """

    byte: list[int]
    moved: np.ndarray
    starts: np.ndarray
    enter: list[list[int]]
    ones: list[int]


@functools.cache
def _tables() -> _Tables:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(_POLYNOMIAL), table >> 1)
    moved = np.empty((_BLOCK, 256), np.uint32)
    moved[-1] = table
    for place in range(_BLOCK - 2, -1, -1):
        moved[place] = (moved[place + 1] >> 8) ^ table[moved[place + 1] & 0xFF]
    byte, ones = table.tolist(), [_ONES]
    for _ in range(_BLOCK):
        ones.append((ones[-1] >> 8) ^ byte[ones[-1] & 0xFF])
    return _Tables(byte, moved.reshape(-1), np.arange(_BLOCK) * 256, moved[:4].tolist(), ones)


def crc32c(data: bytes | memoryview) -> int:
    """CRC-32C of `data`, an unsigned 32-bit number. b"123456789" -> 0xE3069283."""
    tables = _tables()
    if len(data) <= _SHORT:
        state = _ONES
        for byte in data:
            state = tables.byte[(state ^ byte) & 0xFF] ^ (state >> 8)
        return state ^ _ONES
    raw = np.frombuffer(data, np.uint8)
    short = len(raw) % _BLOCK
    state = tables.ones[short]
    if short:
        head = tables.moved.take(raw[:short] + tables.starts[-short:])
        state ^= int(np.bitwise_xor.reduce(head))
    for begin in range(short, len(raw), _SPAN):
        state = _after_blocks(state, raw[begin : begin + _SPAN].reshape(-1, _BLOCK), tables)
    return state ^ _ONES


def _after_blocks(state: int, blocks: np.ndarray, tables: _Tables) -> int:
    """The state after uint8 [n, _BLOCK]."""
    a, b, c, d = tables.enter
    alone = np.bitwise_xor.reduce(tables.moved.take(blocks + tables.starts), axis=1)
    for block in alone.tolist():
        before = a[state & 0xFF] ^ b[state >> 8 & 0xFF] ^ c[state >> 16 & 0xFF] ^ d[state >> 24]
        state = before ^ block
    return state


def masked_crc32c(data: bytes | memoryview) -> int:
    """The rotated and shifted CRC-32C that TFRecord files store."""
    crc = crc32c(data)
    return (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & 0xFFFFFFFF
