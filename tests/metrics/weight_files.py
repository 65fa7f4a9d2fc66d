"""Small files of weights, put together byte by byte from the formats' descriptions."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Mapping

import numpy as np

CLASSES = {"f4": b"FloatStorage", "i8": b"LongStorage", "f2": b"HalfStorage"}


def crc32c(data: bytes) -> int:
    """Bit by bit, as the polynomial says."""
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


def masked(crc: int) -> bytes:
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def integers(values) -> bytes:
    return b"(" + b"".join(b"J" + struct.pack("<i", value) for value in values) + b"t"


def rebuild(array: np.ndarray, key: str, legacy: bool = False, offset: int = 0, stride=None, function=None) -> bytes:
    """The opcodes that PyTorch writes for a tensor."""
    kind = b"ctorch\n" + CLASSES[array.dtype.str[1:]] + b"\n"
    count = b"J" + struct.pack("<i", array.size)
    storage = b"(" + text("storage") + kind + text(key) + text("cpu") + count + (b"N" if legacy else b"") + b"tQ"
    strides = [step // array.itemsize for step in array.strides] if stride is None else stride
    place = b"J" + struct.pack("<i", offset) + integers(array.shape) + integers(strides)
    function = function or b"ctorch._utils\n_rebuild_tensor_v2\n"
    return function + b"(" + storage + place + b"\x89ccollections\nOrderedDict\n)RtR"


def state_dict(tensors: Mapping[str, np.ndarray], legacy: bool = False) -> bytes:
    items = [text(name) + rebuild(tensor, str(index), legacy) for index, (name, tensor) in enumerate(tensors.items())]
    return b"\x80\x02ccollections\nOrderedDict\n)R(" + b"".join(items) + b"u."


def torch_zip(pickle: bytes, storages: list[bytes], extra: Mapping[str, bytes] | None = None) -> bytes:
    members = {"data.pkl": pickle, "version": b"3\n"} | {f"data/{i}": raw for i, raw in enumerate(storages)}
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in (members | dict(extra or {})).items():
            archive.writestr(f"archive/{name}", content)
    return file.getvalue()


def torch_file(tensors: Mapping[str, np.ndarray]) -> bytes:
    return torch_zip(state_dict(tensors), [tensor.tobytes() for tensor in tensors.values()])


def torch_legacy(tensors: Mapping[str, np.ndarray]) -> bytes:
    magic = b"\x80\x02\x8a\x0a" + (0x1950A86A20F9469CFC6C).to_bytes(10, "little") + b"."
    system = b"\x80\x02}" + text("little_endian") + b"\x88s."
    keys = b"\x80\x02](" + b"".join(text(str(index)) for index in range(len(tensors))) + b"e."
    raw = b"".join(struct.pack("<q", tensor.size) + tensor.tobytes() for tensor in tensors.values())
    return magic + b"\x80\x02M\xe9\x03." + system + state_dict(tensors, legacy=True) + keys + raw


def torch_script(tensors: Mapping[str, np.ndarray]) -> bytes:
    """A module tree whose attributes are named as the tensors, dots for sub-modules."""
    tree: dict = {}
    for index, (name, tensor) in enumerate(tensors.items()):
        *path, leaf = name.split(".")
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        node[leaf] = rebuild(tensor, str(index))

    def module(node: dict) -> bytes:
        items = [text(key) + (module(value) if isinstance(value, dict) else value) for key, value in node.items()]
        training = text("training") + b"\x89"
        return b"c__torch__.torch_mangle_3\nLayer\n)\x81}(" + training + b"".join(items) + b"ub"

    storages = [tensor.tobytes() for tensor in tensors.values()]
    return torch_zip(b"\x80\x02" + module(tree) + b".", storages, {"constants.pkl": b"\x80\x02)."})


def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def snappy(data: bytes) -> bytes:
    """Literals of up to 60 bytes."""
    pieces = [data[i : i + 60] for i in range(0, len(data), 60)]
    return varint(len(data)) + b"".join(bytes([len(piece) - 1 << 2]) + piece for piece in pieces)


def bundle(tensors: Mapping[str, np.ndarray], compress: bool = False, crc=crc32c) -> tuple[bytes, bytes]:
    """The .index and the data file of a TensorFlow checkpoint; keys share prefixes as in LevelDB, restarts each 16."""
    entries, data = [(b"", b"\x08\x01\x1a\x02\x08\x01")], b"".join(tensors[name].tobytes() for name in sorted(tensors))
    offset = 0
    for name in sorted(tensors):
        tensor = tensors[name]
        dims = b"".join(b"\x12" + varint(len(d)) + d for d in (b"\x08" + varint(n) for n in tensor.shape))
        value = b"\x08" + varint({"f4": 1, "i8": 9}[tensor.dtype.str[1:]]) + b"\x12" + varint(len(dims)) + dims
        value += (b"\x20" + varint(offset)) * (offset > 0) + b"\x28" + varint(tensor.nbytes)
        entries.append((name.encode(), value + b"\x35" + masked(crc(tensor.tobytes()))))
        offset += tensor.nbytes
    index = b""

    def block(items: list[tuple[bytes, bytes]]) -> bytes:
        """Appends a block and returns its handle."""
        nonlocal index
        body, restarts, last = b"", [], b""
        for number, (key, value) in enumerate(items):
            shared = 0
            if number % 16 == 0:
                restarts.append(len(body))
            else:
                while shared < min(len(key), len(last)) and key[shared] == last[shared]:
                    shared += 1
            body += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
            last = key
        body += struct.pack(f"<{len(restarts) + 1}I", *restarts, len(restarts))
        stored = snappy(body) + b"\1" if compress else body + b"\0"
        start, size = len(index), len(stored) - 1
        index += stored + masked(crc(stored))
        return varint(start) + varint(size)

    half = len(entries) // 2
    handles = [(part[-1][0], block(part)) for part in (entries[:half], entries[half:]) if part]
    footer = block([]) + block(handles)
    return index + footer.ljust(40, b"\0") + bytes.fromhex("57fb808b247547db"), data
