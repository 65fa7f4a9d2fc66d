"""Reads files of weights, by path or URL, in the formats of PyTorch, safetensors and TensorFlow."""

import os
import re
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path

import ml_dtypes
import numpy as np
import safetensors

from jaxvid.metrics.tensor_bundle import TABLE_MAGIC, read_bundle
from jaxvid.metrics.torch_file import read_torch

MAX_BYTES = 1 << 30
CHUNK_BYTES = 1 << 20
TIMEOUT = 60  # seconds without an answer
# Of safetensors; its own NumPy reader has no bfloat16.
DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": ml_dtypes.bfloat16, "BOOL": "?"}
DTYPES |= {"I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U8": "u1"}
BUNDLE_DATA = ".data-00000-of-00001"


class WeightFileError(ValueError):
    """A file that cannot be read as weights, with its name and the reason in one sentence."""

    def __init__(self, name: str | Path, reason: str):
        super().__init__(f"{name} cannot be read as weights: {reason}.")
        self.name, self.reason = str(name), reason


def fetch(source: str | Path) -> list[bytes]:
    """The bytes of the file, or of both files of a TensorFlow checkpoint: [index, data].

    `source` is a path or an http, https or file URL; of a TensorFlow checkpoint its prefix or its .index file.
    Raises WeightFileError if there is no such file, the download is incomplete, or it is larger than 1 GiB.
    """
    source = str(source)
    prefix = re.sub(r"\.(index|data-\d{5}-of-\d{5})$", "", source)
    found = None if prefix != source else _bytes(source)
    if found is not None:
        return [found]
    index = _bytes(prefix + ".index")
    if index is None:
        raise WeightFileError(source, "there is no such file" if prefix == source else f"{prefix}.index is missing")
    data = _bytes(prefix + BUNDLE_DATA)
    if data is None:
        raise WeightFileError(source, f"its data file {prefix}{BUNDLE_DATA} is missing")
    return [index, data]


def parse(source: str | Path, parts: list[bytes]) -> dict[str, np.ndarray]:
    """The tensors of the bytes from `fetch(source)`, by their names in the file.

    The format is detected by content. Nothing in a file is executed. bfloat16 becomes float32, other types are kept.
    Raises WeightFileError if the file is damaged, or no file of plain tensors.
    """
    head, start = parts[0], parts[0][:1000].lstrip().lower()
    with errors_named(source):
        if len(parts) == 2:
            return read_bundle(*parts)
        if head.endswith(TABLE_MAGIC):
            raise ValueError("it is the index of a TensorFlow checkpoint: its name has to end in .index")
        if head.startswith((b"PK\x03\x04", b"\x80")):
            return read_torch(head)
        if head[8:9] == b"{":
            return _read_safetensors(head)
        if start.startswith((b"<!doctype", b"<html", b"<?xml")):
            raise ValueError("it is a web page, not the link of the file itself")
        if start.startswith(b"version https://git-lfs"):
            raise ValueError("it is a Git LFS pointer, not the file itself")
        raise ValueError("it is empty" if not head else "its format is unknown")


def _read_safetensors(data: bytes) -> dict[str, np.ndarray]:
    tensors = {}
    for name, tensor in safetensors.deserialize(data):
        if tensor["dtype"] not in DTYPES:
            raise ValueError(f"its tensor {name!r} is of type {tensor['dtype']}, which is not read")
        array = np.frombuffer(tensor["data"], DTYPES[tensor["dtype"]]).reshape(tensor["shape"])
        tensors[name] = array.astype(np.float32) if array.dtype == ml_dtypes.bfloat16 else array
    return tensors


@contextmanager
def errors_named(source: str | Path) -> Iterator[None]:
    """Turns any error within into a WeightFileError, since damaged files raise errors of many types."""
    try:
        yield
    except WeightFileError:
        raise
    except ValueError as error:
        raise WeightFileError(source, str(error)) from error
    except Exception as error:
        raise WeightFileError(source, f"it is damaged or truncated ({type(error).__name__}: {error})") from error


def _bytes(source: str) -> bytes | None:
    """The file's bytes; None if there is no such file."""
    if re.match(r"(https?|file)://", source):
        return _download(source)
    try:
        size = os.path.getsize(source)
        if os.path.isdir(source):
            raise WeightFileError(source, "it is a folder, not a file")
        if size > MAX_BYTES:
            raise WeightFileError(source, f"it is larger than {MAX_BYTES >> 20} MiB")
        return Path(source).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise WeightFileError(source, error.strerror or str(error)) from error


def _download(url: str) -> bytes | None:
    """The bytes of a URL, with a line of progress; None if the server has no such file."""
    data = bytearray()
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as response:
            total = int(response.headers.get("Content-Length") or 0)
            while len(data) <= MAX_BYTES and (part := response.read(CHUNK_BYTES)):
                data += part
                if sys.stderr.isatty():
                    print(f"\r{len(data) / 1e6:.1f} of {total / 1e6:.1f} MB", end="", file=sys.stderr, flush=True)
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise WeightFileError(url, f"the server answers {error.code} {error.reason}") from error
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, FileNotFoundError):
            return None
        raise WeightFileError(url, f"the download fails ({reason})") from error
    if sys.stderr.isatty():
        print(file=sys.stderr)
    if len(data) > MAX_BYTES:
        raise WeightFileError(url, f"it is larger than {MAX_BYTES >> 20} MiB")
    if total and len(data) != total:
        raise WeightFileError(url, f"only {len(data)} of its {total} bytes arrived")
    return bytes(data)
