"""Reads and writes the safetensors format: a length (8 bytes), a JSON header of that many bytes, raw tensors."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import ml_dtypes
import numpy as np

DTYPES = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}


def read_safetensors(data: bytes) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The tensors by name, and the metadata, of a whole file; bfloat16 becomes float32.

    Raises:
      ValueError: the tensors do not fill the file exactly, or are of a type not read here.
      Exception: the header is damaged; which one depends on where.
    """
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    metadata = header.pop("__metadata__", {})
    tensors, position = {}, start
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        dtype, shape, (begin, end) = DTYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
        if any(type(length) is not int or length < 0 for length in shape) or start + begin != position:
            raise ValueError(f"its tensor {name!r} has an impossible shape, or does not follow the one before it")
        position = start + end
        if end - begin != math.prod(shape) * dtype.itemsize or position > len(data):
            raise ValueError(f"its tensor {name!r} has not the size of its shape, or the file is truncated")
        array = np.frombuffer(memoryview(data)[start + begin : position], dtype).reshape(shape)
        tensors[name] = array.astype(np.float32) if dtype == ml_dtypes.bfloat16 else array.copy()
    if position != len(data):
        raise ValueError(f"it has {len(data) - position} bytes that belong to no tensor")
    return tensors, {str(key): str(value) for key, value in metadata.items()}


def write_safetensors(path: str | Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Writes the file whole or not at all, and the folders above it."""
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    position = 0
    for name, tensor in tensors.items():
        offsets = [position, position + tensor.nbytes]
        header[name] = {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": offsets}
        position += tensor.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.name, delete=False) as file:
        try:
            file.write(len(text).to_bytes(8, "little") + text)
            for tensor in tensors.values():
                file.write(np.ascontiguousarray(tensor).data)
            file.flush()
            os.fsync(file.fileno())
            os.chmod(file.name, 0o644)
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise
