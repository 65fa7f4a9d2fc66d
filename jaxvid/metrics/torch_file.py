"""Reads the tensors of files written by torch.save and torch.jit.save, without PyTorch and without running anything.

Such files contain pickles, which are programs. Here their opcodes only move data: names are not resolved, nothing is
imported or called, and any name or opcode that PyTorch does not need to store tensors is an error.
"""

import io
import math
import pickle
import pickletools
import zipfile
from collections.abc import Callable
from functools import lru_cache
from typing import Any, BinaryIO, NamedTuple, NoReturn, TypeVar

import ml_dtypes
import numpy as np

MAX_PICKLE_BYTES = 1 << 24
MAX_STEPS = 1_000_000  # opcodes of a pickle, and items that they copy: some 100 MB, whatever they do
MAX_NODES = 20_000  # of the tree of dicts that is searched for tensors
MAX_NAME = 1000
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
STORAGES = {
    "torch FloatStorage": np.dtype("<f4"),
    "torch DoubleStorage": np.dtype("<f8"),
    "torch HalfStorage": np.dtype("<f2"),
    "torch BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "torch LongStorage": np.dtype("<i8"),
    "torch IntStorage": np.dtype("<i4"),
    "torch ShortStorage": np.dtype("<i2"),
    "torch CharStorage": np.dtype("i1"),
    "torch ByteStorage": np.dtype("u1"),
    "torch BoolStorage": np.dtype("?"),
}
# The opcodes that only move data.
MOVES = """
    PROTO FRAME STOP MARK NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 LONG4 BINFLOAT BINUNICODE SHORT_BINUNICODE
    BINUNICODE8 BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINBYTES8 EMPTY_LIST EMPTY_TUPLE TUPLE TUPLE1 TUPLE2
    TUPLE3 BINPUT LONG_BINPUT MEMOIZE BINGET LONG_BINGET APPEND APPENDS SETITEM SETITEMS GLOBAL STACK_GLOBAL BINPERSID
""".split()
T = TypeVar("T")


class _Storage(NamedTuple):
    """Numbers that tensors are views of: `length` of them from `first` on, out of `total` that are stored as `key`."""

    dtype: np.dtype
    key: str
    total: int
    first: int
    length: int


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class _Name(NamedTuple):
    name: str  # of a global, "module name"


class _Dict(dict[Any, Any]):
    """A dict of names: hashing a deeply nested tuple would overflow the stack."""

    def __setitem__(self, key: Any, value: Any) -> None:
        if not isinstance(key, (str, int)):
            raise ValueError("it holds a dict with keys other than names")
        super().__setitem__(key, value)


class _Module(_Dict):
    """The attributes of a TorchScript module."""


def read_torch(data: bytes) -> dict[str, np.ndarray]:
    """The tensors of a file of any of PyTorch's formats: zip, legacy (before 1.6) or TorchScript; `data` is all of it.

    Names of nested dicts and modules are joined by dots, bfloat16 becomes float32, and what is no tensor is left out.
    Raises ValueError where the file would call something, a tensor is outside of its storage, or the file would take
    far more memory than it is long, and any exception where it is damaged.
    """
    tensors, stored = (_read_zip if data.startswith(b"PK") else _read_legacy)(data)
    if not tensors:
        raise ValueError("it contains no named tensors")
    budget, arrays = 2 * len(data), {}  # tensors may share their numbers
    for name, tensor in tensors.items():
        arrays[name] = _array(name, tensor, stored, budget)
        budget -= arrays[name].nbytes
    return arrays


def _read_zip(data: bytes) -> tuple[dict[str, _Tensor], Callable[[_Storage], bytes]]:
    """Lazy tensors, and a function that returns the bytes of their storages."""
    archive = zipfile.ZipFile(io.BytesIO(data))
    members = {member.filename: member for member in archive.infolist()}
    pickles = [name for name in members if name.rpartition("/")[2] == "data.pkl"]
    if len(members) != len(archive.infolist()) or len(pickles) != 1:
        raise ValueError("it is a ZIP archive, but not one of PyTorch's: they have one data.pkl, and no name twice")
    root = pickles[0].removesuffix("data.pkl")

    def member(name: str, limit: int) -> bytes:
        info = members.get(root + name)
        if info is None or info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1 or info.file_size > limit:
            raise ValueError(f"its member {name!r} is missing, compressed, encrypted or too large")
        return archive.read(info)

    if root + "byteorder" in members and member("byteorder", 16) != b"little":
        raise ValueError("it was written on a big-endian machine")
    tree = _Unpickler(io.BytesIO(member("data.pkl", MAX_PICKLE_BYTES)), {}, root + "constants.pkl" in members).load()
    cached = lru_cache(maxsize=None)(lambda key: member(f"data/{key}", len(data)))
    return _named_tensors(tree), lambda storage: cached(storage.key)


def _read_legacy(data: bytes) -> tuple[dict[str, _Tensor], Callable[[_Storage], bytes]]:
    """As `_read_zip`, of a file that is five pickles, then each storage's count and numbers."""
    stream = io.BytesIO(data)
    storages: dict[str, _Storage] = {}
    magic, _, system, tree, keys = (_Unpickler(stream, storages).load() for _ in range(5))
    if magic != LEGACY_MAGIC or not isinstance(system, dict) or system.get("little_endian") is not True:
        raise ValueError("it is a pickle, but not one of PyTorch's for a little-endian machine")
    places: dict[str, slice] = {}
    for key in keys:
        count, start = int.from_bytes(stream.read(8), "little"), stream.tell()
        places[key] = slice(start, start + count * storages[key].dtype.itemsize)
        stream.seek(places[key].stop)
    return _named_tensors(tree), lambda storage: data[places[storage.key]]


def _array(name: str, tensor: _Tensor, stored: Callable[[_Storage], bytes], budget: int) -> np.ndarray:
    """A copy of the tensor, after checks that it is within its storage."""
    storage, offset, size, stride = tensor
    counts = (offset, *size, *stride)
    if len(size) != len(stride) or any(type(count) is not int or count < 0 for count in counts):
        raise ValueError(f"its tensor {name!r} has an impossible shape or stride")
    elements = math.prod(size)
    last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    if elements and last >= storage.length:
        raise ValueError(f"its tensor {name!r} lies outside its storage")
    if elements * storage.dtype.itemsize > budget:
        raise ValueError("its tensors have more than twice the bytes of the file: they repeat what is stored")
    raw = stored(storage)
    if len(raw) != storage.total * storage.dtype.itemsize:
        raise ValueError(f"the storage of its tensor {name!r} has {len(raw)} bytes: the file is truncated or damaged")
    start, *strides = (step * storage.dtype.itemsize for step in (storage.first + offset, *stride))
    view = np.ndarray(size, storage.dtype, raw, start, strides) if elements else np.empty(size, storage.dtype)
    return view.astype(np.float32) if storage.dtype == ml_dtypes.bfloat16 else view.copy()


def _named_tensors(tree: Any) -> dict[str, _Tensor]:
    """The tensors in nested dicts, their keys joined by dots."""
    found: dict[str, _Tensor] = {}
    pending, seen = [("", tree)], 0
    while pending:
        name, value = pending.pop()
        seen += 1
        if seen + len(pending) > MAX_NODES or len(name) > MAX_NAME:
            raise ValueError("it is nested too deeply, or holds too many names")
        if isinstance(value, _Tensor) and name:
            if name in found:
                raise ValueError(f"it holds two tensors of the name {name!r}")
            found[name] = value
        elif isinstance(value, dict):
            pending += [(f"{name}.{key}" if name else str(key), value[key]) for key in reversed(value)]
    return found


class _Opcodes(dict[int, Callable[..., None]]):
    def __missing__(self, code: int) -> NoReturn:
        name = {opcode.code: opcode.name for opcode in pickletools.opcodes}[chr(code)]
        raise ValueError(f"its pickle holds the opcode {name}, which no file of tensors needs")


def _counted(move: Callable[[Any], None]) -> Callable[[Any], None]:
    def step(unpickler: Any) -> None:
        unpickler.spend(1)
        move(unpickler)

    return step


class _Unpickler(pickle._Unpickler):  # the one in Python: the one in C makes room for any index of the memo
    """Reads the next object of the stream; `storages` receives the storages by key."""

    stack: list[Any]
    append: Callable[[Any], None]  # to the stack

    def __init__(self, stream: BinaryIO, storages: dict[str, _Storage], is_script: bool = False):
        super().__init__(stream, encoding="latin1")
        self.storages, self.is_script, self.steps = storages, is_script, 0

    def spend(self, steps: int) -> None:
        """Counts what the pickle does: a few bytes may stand for lists of lists without end."""
        self.steps += steps
        if self.steps > MAX_STEPS:
            raise ValueError(f"its pickle takes more than {MAX_STEPS:,} steps, far more than a file of tensors needs")

    def find_class(self, module: str, name: str) -> _Name:
        """The global, if PyTorch needs it to store tensors; names are compared whole."""
        name = f"{module} {name}"
        if name in REBUILDS or name in STORAGES or (self.is_script and _is_script_class(name)):
            return _Name(name)
        raise ValueError(f"it names {name[:200]!r}, which no file of tensors needs: unpickling it could run code")

    def persistent_load(self, pid: Any) -> _Storage:
        """From ("storage", class, key, device, count) and, in legacy files, (view's key, offset, count) or None."""
        kind, storage_class, key, _, total, *rest = _expect(pid, tuple)
        if kind != "storage" or _expect(storage_class, _Name).name not in STORAGES:
            raise ValueError("its pickle refers to something that is no storage of tensors")
        _, first, count = rest[0] if rest and rest[0] is not None else (None, 0, total)
        if any(type(number) is not int or number < 0 for number in (total, first, count)) or first + count > total:
            raise ValueError(f"its storage {key!r} has an impossible size")
        storage = _Storage(STORAGES[storage_class.name], _expect(key, str), total, first, count)
        self.storages.setdefault(key, storage)
        return storage

    def _reduce(self) -> None:
        arguments, function = _expect(self.stack.pop(), tuple), _expect(self.stack.pop(), _Name)
        if function.name not in REBUILDS:
            raise ValueError(f"it would call {function.name!r}")
        self.spend(sum(len(each) for each in arguments if isinstance(each, (list, tuple, str, dict))))
        self.append(REBUILDS[function.name](*arguments))

    def _newobj(self) -> None:
        _, script_class = self.stack.pop(), _expect(self.stack.pop(), _Name)
        if not _is_script_class(script_class.name):
            raise ValueError(f"it would make an object of {script_class.name!r}")
        self.append(_Module())

    def _build(self) -> None:
        state = self.stack.pop()
        self.spend(len(state) if isinstance(state, dict) else 0)
        if isinstance(_expect(self.stack[-1], _Dict), _Module):  # of an OrderedDict it is its metadata
            self.stack[-1].update(_expect(state, _Dict))

    moves: dict[int, Callable[[Any], None]] = {
        code: pickle._Unpickler.dispatch[code] for (code, *_) in (getattr(pickle, n) for n in MOVES)
    }
    moves |= {pickle.EMPTY_DICT[0]: lambda self: self.append(_Dict()), pickle.REDUCE[0]: _reduce}
    moves |= {pickle.NEWOBJ[0]: _newobj, pickle.BUILD[0]: _build}
    dispatch = _Opcodes({code: _counted(move) for code, move in moves.items()})


def _is_script_class(name: str) -> bool:
    return name.partition(" ")[0].partition(".")[0] == "__torch__"


def _ordered_dict(pairs: Any = ()) -> _Dict:
    """A dict for OrderedDict(pairs); Python 2 pickled the pairs as its arguments."""
    items = _Dict()
    for key, value in pairs:
        items[key] = value
    return items


def _expect(value: Any, kind: type[T]) -> T:
    if not isinstance(value, kind):
        raise ValueError(f"its pickle has a {type(value).__name__} where a {kind.__name__} belongs: it is damaged")
    return value


# Functions that PyTorch's pickles call, and their replacements.
REBUILDS: dict[str, Callable[..., Any]] = {
    "collections OrderedDict": _ordered_dict,
    "torch._utils _rebuild_tensor": _Tensor,  # before PyTorch 0.4
    "torch._utils _rebuild_tensor_v2": lambda *arguments: _Tensor(*arguments[:4]),
    "torch._utils _rebuild_parameter": lambda tensor, *_: tensor,
    "torch.jit._pickle build_intlist": list,
    "torch.jit._pickle build_doublelist": list,
    "torch.jit._pickle build_boollist": list,
    "torch.jit._pickle build_tensorlist": list,
    "torch.jit._pickle restore_type_tag": lambda value, _: value,
    "_codecs encode": lambda text, _: text.encode("latin1"),
}
