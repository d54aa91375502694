"""CRC-32C (Castagnoli, RFC 3720 appendix B.4) in NumPy, and the masking that TFRecord files add."""

import numpy as np

_POLYNOMIAL = 0x82F63B78  # reflected
_MASK_DELTA = 0xA282EAD8
_STRIDE = 64  # bytes that each lane takes, one a step
_SHORT = 8192  # below it a plain loop is quicker


def _make_table() -> np.ndarray:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(_POLYNOMIAL), table >> 1)
    return table.astype(np.uint32)


_TABLE = _make_table()
_TABLE_LIST = _TABLE.tolist()


def crc32c(data: bytes | memoryview) -> int:
    """CRC-32C of `data`, an unsigned 32-bit number. b"123456789" -> 0xE3069283."""
    if len(data) < _SHORT:
        state = 0xFFFFFFFF
        for byte in data:
            state = _TABLE_LIST[(state ^ byte) & 0xFF] ^ (state >> 8)
        return state ^ 0xFFFFFFFF
    return _in_lanes(np.frombuffer(data, np.uint8))


def masked_crc32c(data: bytes | memoryview) -> int:
    """The rotated and shifted CRC-32C that TFRecord files store."""
    crc = crc32c(data)
    return (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & 0xFFFFFFFF


def _in_lanes(data: np.ndarray) -> int:
    """The same for uint8 [n], all `_STRIDE`-byte pieces side by side.

    A CRC is linear: that of A followed by B is that of A, moved on by len(B) zero bytes, plus that
    of B. Starting from all ones means to flip the first four bytes; zeros in front change nothing.
    """
    count = 1 << (-(-len(data) // _STRIDE) - 1).bit_length()
    padded = np.zeros(count * _STRIDE, np.uint8)
    padded[-len(data) :] = data
    padded[len(padded) - len(data) :][:4] ^= 0xFF
    lanes = padded.reshape(count, _STRIDE).T.astype(np.uint32)
    # 32 more states, one bit each, are moved over zeros: the columns of "move on by a stride".
    states = np.zeros(count, np.uint32)
    columns = np.uint32(1) << np.arange(32, dtype=np.uint32)
    for step in lanes:
        states = _TABLE[(states ^ step) & 0xFF] ^ (states >> 8)
        columns = _TABLE[columns & 0xFF] ^ (columns >> 8)
    while len(states) > 1:
        states = _apply(columns, states[0::2]) ^ states[1::2]
        columns = _apply(columns, columns)
    return int(states[0]) ^ 0xFFFFFFFF


def _apply(columns: np.ndarray, states: np.ndarray) -> np.ndarray:
    """The linear map with the images `columns` [32] of single bits, on uint32 [n]."""
    result = np.zeros_like(states)
    for bit in range(32):
        result ^= columns[bit] * ((states >> np.uint32(bit)) & np.uint32(1))
    return result
