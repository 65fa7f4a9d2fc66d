"""Reads TensorFlow's checkpoints (TensorBundle) without TensorFlow.

A checkpoint is PREFIX.index, a LevelDB table of tensors with their offsets, and PREFIX.data-00000-of-00001, their data.
Formats: LevelDB's doc/table_format.md, Snappy's format_description.txt, TensorFlow's tensor_bundle.proto.
"""

import io
import math
from collections.abc import Iterator
from typing import Any, BinaryIO

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

    Raises ValueError where a checksum does not match, a tensor lies outside the data, the index ends early, or the
    checkpoint has several data files.
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
        kind = f"partitioned or of TensorFlow's type {fields.get(1)}"
        raise ValueError(f"its tensor {name!r} is {kind}, which is not read")
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
    _, _, offset, size = _varints(footer, 4)  # of the metaindex block, and of the index
    for _, handle in _entries(_block(table, offset, size)):
        yield from _entries(_block(table, *_varints(handle, 2)))


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
    end, key = len(block) - 4 - 4 * int.from_bytes(block[-4:], "little"), b""
    stream = io.BytesIO(block[: max(end, 0)])
    while stream.tell() < end:
        shared, unshared, size = (_varint(stream) for _ in range(3))
        if shared > len(key) or shared + unshared > MAX_NAME_BYTES:
            raise ValueError("its index contains an impossible entry: it is damaged")
        key = key[:shared] + _take(stream, unshared)
        yield key, _take(stream, size)


def snappy_decompress(data: bytes) -> bytes:
    """Decompresses one Snappy block of at most 64 MiB; ValueError for anything else."""
    stream, out = io.BytesIO(data), bytearray()
    length = _varint(stream)
    if length > MAX_BLOCK_BYTES:
        raise ValueError(f"its index has a block of {length} bytes")
    while stream.tell() < len(data) and len(out) <= length:
        (tag,) = _take(stream, 1)
        kind, size = tag & 3, (tag >> 2) + 1
        if kind == 0:  # a literal; the sizes above 60 stand for 1 to 4 bytes that hold it
            if size > 60:
                size = int.from_bytes(_take(stream, size - 60), "little") + 1
            out += _take(stream, size)
            continue
        offset = int.from_bytes(_take(stream, {1: 1, 2: 2, 3: 4}[kind]), "little")
        if kind == 1:  # three bits of size, eleven of offset
            size, offset = (tag >> 2 & 7) + 4, tag >> 5 << 8 | offset
        if not 0 < offset <= len(out):
            raise ValueError("its index contains a copy from before its block: it is damaged")
        start = len(out) - offset
        repeated = bytes(out[start : start + size])
        out += (repeated * -(-size // len(repeated)))[:size]  # the source may overlap the destination
    if len(out) != length or stream.tell() != len(data):
        raise ValueError("its index has a block of another size than declared: it is damaged")
    return bytes(out)


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Numbers and values of a protocol buffer's fields: bytes where they have a length, integers otherwise."""
    stream = io.BytesIO(message)
    while stream.tell() < len(message):
        tag = _varint(stream)
        if tag & 7 == 0:
            yield tag >> 3, _varint(stream)
        elif tag & 7 == 2:
            yield tag >> 3, _take(stream, _varint(stream))
        elif tag & 7 in (1, 5):
            yield tag >> 3, int.from_bytes(_take(stream, 8 if tag & 7 == 1 else 4), "little")
        else:
            raise ValueError("its index contains a field of an unknown kind: it is damaged")


def _take(stream: BinaryIO, size: int) -> bytes:
    data = stream.read(min(size, MAX_BLOCK_BYTES))
    if len(data) != size:
        raise ValueError("its index contains something that ends early: it is damaged")
    return data


def _varints(data: bytes, count: int) -> list[int]:
    stream = io.BytesIO(data)
    return [_varint(stream) for _ in range(count)]


def _varint(stream: BinaryIO) -> int:
    """An integer in groups of seven bits, the lowest first."""
    value = 0
    for shift in range(0, 70, 7):
        (byte,) = _take(stream, 1)
        value |= (byte & 127) << shift
        if byte < 128:
            return value
    raise ValueError("its index contains a number of more than ten bytes: it is damaged")
