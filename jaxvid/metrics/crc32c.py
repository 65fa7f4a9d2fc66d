"""CRC-32C (Castagnoli) in NumPy, the checksum of TensorFlow's checkpoints.

A CRC is linear over GF(2): the data are cut into lanes whose registers advance together, and the lanes are then joined
in pairs, the left one moved on by the length of the right one (as in zlib's crc32_combine).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

POLYNOMIAL = np.uint32(0x82F63B78)  # reflected
START = np.uint32(0x641F6454)  # the four bytes, little-endian, that take the register from 0 to all ones
LANE_WORDS = 128
BITS = np.arange(32, dtype=np.uint32)


def crc32c(data: bytes | bytearray | memoryview) -> int:
    """CRC-32C of the bytes, in [0, 2^32)."""
    body = np.frombuffer(data, np.uint8)
    padded = np.zeros(
        -(-(body.size + 4) // (4 * LANE_WORDS)) * 4 * LANE_WORDS, np.uint8
    )  # leading zeros change nothing
    start = padded.size - body.size
    padded[start:] = body
    padded[start - 4 : start] = np.frombuffer(START.astype("<u4").tobytes(), np.uint8)
    words = padded.view("<u4").reshape(-1, LANE_WORDS)
    low, high, shift = _tables()
    registers = np.zeros(len(words), np.uint32)
    for column in np.ascontiguousarray(words.T):
        registers ^= column
        registers = low[registers & 0xFFFF] ^ high[registers >> 16]
    while registers.size > 1:
        if registers.size % 2:
            registers = np.concatenate([np.zeros(1, np.uint32), registers])
        registers = _apply(shift, registers[::2]) ^ registers[1::2]
        shift = _apply(shift, shift)
    return int(registers[0]) ^ 0xFFFFFFFF


def masked_crc32c(data: bytes | bytearray | memoryview) -> int:
    """CRC-32C as LevelDB and TensorFlow store it: rotated right by 15 bits, plus a constant."""
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


@lru_cache(maxsize=1)
def _tables() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Registers four bytes on, for each low and each high half, [65536] each; columns [32] of the map one lane on."""
    half = np.arange(1 << 16, dtype=np.uint32)
    tables: np.ndarray = np.stack([half, half << np.uint32(16)])
    for _ in range(32):
        tables = tables >> 1 ^ POLYNOMIAL * (tables & 1)
    low, high = tables
    columns: np.ndarray = np.uint32(1) << BITS
    for _ in range(LANE_WORDS):
        columns = low[columns & 0xFFFF] ^ high[columns >> 16]
    return low, high, columns


def _apply(columns: np.ndarray, registers: np.ndarray) -> np.ndarray:
    """The linear map with these columns [32], of each register [N]."""
    return np.bitwise_xor.reduce(np.where(registers[:, None] >> BITS & 1, columns, np.uint32(0)), axis=1)
