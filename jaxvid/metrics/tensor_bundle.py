"""Reads TensorFlow's checkpoints (TensorBundle) without TensorFlow.

A checkpoint is PREFIX.index, a LevelDB table of tensors with their offsets, and PREFIX.data-00000-of-00001, their data.
Formats: LevelDB's doc/table_format.md, Snappy's format_description.txt, TensorFlow's tensor_bundle.proto.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import google_crc32c
import ml_dtypes
import numpy as np

TABLE_MAGIC = bytes.fromhex("57fb808b247547db")  # the last 8 bytes of every LevelDB table
FOOTER_BYTES = 48
MAX_BLOCK_BYTES = 1 << 26
MAX_NAME_BYTES = 1000
DTYPES = {  # tensorflow/core/framework/types.proto
    1: np.dtype("<f4"),
    2: np.dtype("<f8"),
    3: np.dtype("<i4"),
    4: np.dtype("u1"),
    9: np.dtype("<i8"),
    10: np.dtype("?"),
    14: np.dtype(ml_dtypes.bfloat16),
    19: np.dtype("<f2"),
}


def read_bundle(index: bytes, data: bytes) -> dict[str, np.ndarray]:
    """All tensors by name, from the bytes of the .index file and of the only data file; bfloat16 becomes float32.

    Raises:
      ValueError: a checksum does not match, a tensor lies outside the data, or the checkpoint has several data files.
      IndexError: the index ends early.
    """
    entries = dict(_table(index))
    header = dict(_fields(entries.pop(b"", b"")))
    if header.get(1) != 1 or header.get(2, 0) != 0:
        raise ValueError("it is a checkpoint with several data files, or of a big-endian machine, which is not read")
    return {name.decode(): _tensor(name.decode(), entry, data) for name, entry in entries.items()}


def masked_crc32c(data: bytes | np.ndarray) -> int:
    """CRC-32C of read-only bytes as LevelDB and TensorFlow store it: rotated right by 15 bits, plus a constant."""
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _tensor(name: str, entry: bytes, data: bytes) -> np.ndarray:
    """The tensor of a BundleEntryProto."""
    fields = dict(_fields(entry))
    if fields.get(1) not in DTYPES or 7 in fields:
        raise ValueError(
            f"its tensor {name!r} is partitioned or of TensorFlow's type {fields.get(1)}, which is not read"
        )
    dtype = DTYPES[fields[1]]
    shape = [dict(_fields(dimension)).get(1, 0) for number, dimension in _fields(fields.get(2, b"")) if number == 2]
    offset, size = fields.get(4, 0), fields.get(5, 0)
    if size != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"its tensor {name!r} has shape {tuple(shape)} but {size} bytes")
    if offset + size > len(data):
        raise ValueError(f"its data file is truncated: {name!r} ends at byte {offset + size} of {len(data)}")
    raw = np.frombuffer(data, np.uint8, size, offset)
    if masked_crc32c(raw) != fields.get(6):
        raise ValueError(f"its tensor {name!r} does not match its checksum: the data file is damaged or another one")
    array = raw.view(dtype).reshape(shape)
    return array.astype(np.float32) if dtype == ml_dtypes.bfloat16 else array.copy()


def _table(table: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a LevelDB table."""
    footer = table[-FOOTER_BYTES:]
    if len(footer) < FOOTER_BYTES or not footer.endswith(TABLE_MAGIC):
        raise ValueError("its index is no LevelDB table, or truncated")
    _, position = _handle(footer, 0)  # of the metaindex block
    (offset, size), _ = _handle(footer, position)
    for _, handle in _entries(_block(table, offset, size)):
        yield from _entries(_block(table, *_handle(handle, 0)[0]))


def _block(table: bytes, offset: int, size: int) -> bytes:
    """The block's contents, checked and decompressed."""
    end = offset + size
    if end + 5 > len(table):
        raise ValueError("its index is truncated")
    if masked_crc32c(table[offset : end + 1]) != int.from_bytes(table[end + 1 : end + 5], "little"):
        raise ValueError("its index does not match its checksum: it is damaged")
    if table[end] > 1:
        raise ValueError(f"its index is compressed by method {table[end]}: only Snappy is read")
    return snappy_decompress(table[offset:end]) if table[end] else table[offset:end]


def _entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a block: each key shares a prefix with the one before it."""
    end = len(block) - 4 - 4 * int.from_bytes(block[-4:], "little")
    position, key = 0, b""
    while position < end:
        shared, position = _varint(block, position)
        unshared, position = _varint(block, position)
        size, position = _varint(block, position)
        stop = position + unshared + size
        if shared > len(key) or shared + unshared > MAX_NAME_BYTES or stop > end:
            raise ValueError("its index contains an impossible entry: it is damaged")
        key = key[:shared] + block[position : position + unshared]
        yield key, block[position + unshared : stop]
        position = stop


def snappy_decompress(data: bytes) -> bytes:
    """Decompresses one Snappy block of at most 64 MiB; ValueError or IndexError for anything else."""
    length, position = _varint(data, 0)
    if length > MAX_BLOCK_BYTES:
        raise ValueError(f"its index has a block of {length} bytes")
    out = bytearray()
    while position < len(data):
        tag, position = data[position], position + 1
        kind, size = tag & 3, (tag >> 2) + 1
        if kind == 0:  # a literal; the sizes above 60 stand for 1 to 4 bytes that hold it
            extra = max(size - 60, 0)
            if extra:
                size, position = int.from_bytes(data[position : position + extra], "little") + 1, position + extra
            out += data[position : position + size]
            position += size
        else:
            if kind == 1:  # three bits of size, eleven of offset
                size, offset, position = (tag >> 2 & 7) + 4, tag >> 5 << 8 | data[position], position + 1
            else:
                width = 2 if kind == 2 else 4
                offset, position = int.from_bytes(data[position : position + width], "little"), position + width
            if not 0 < offset <= len(out):
                raise ValueError("its index contains a copy from before its block: it is damaged")
            start = len(out) - offset
            repeated = bytes(out[start : start + size])
            out += (repeated * -(-size // len(repeated)))[:size]  # the source may overlap the destination
        if len(out) > length:
            break
    if len(out) != length or position != len(data):
        raise ValueError("its index has a block of another size than declared: it is damaged")
    return bytes(out)


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Numbers and values of a protocol buffer's fields: bytes where they have a length, integers otherwise."""
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        if tag & 7 == 0:
            value, position = _varint(message, position)
            yield tag >> 3, value
            continue
        if tag & 7 not in (1, 2, 5):
            raise ValueError("its index contains a field of an unknown kind: it is damaged")
        size, position = _varint(message, position) if tag & 7 == 2 else ({1: 8, 5: 4}[tag & 7], position)
        if position + size > len(message):
            raise ValueError("its index contains a field that ends early: it is damaged")
        raw, position = message[position : position + size], position + size
        yield tag >> 3, raw if tag & 7 == 2 else int.from_bytes(raw, "little")


def _handle(data: bytes, position: int) -> tuple[tuple[int, int], int]:
    """Offset and size of a block, and the position after them."""
    offset, position = _varint(data, position)
    size, position = _varint(data, position)
    return (offset, size), position


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """An integer in groups of seven bits, the lowest first, and the position after it."""
    value = 0
    for shift in range(0, 70, 7):
        byte, position = data[position], position + 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
    raise ValueError("its index contains a number of more than ten bytes: it is damaged")
