"""Files on the host: written whole or not at all, locks, arrays of users, paths, and the cache folder."""

import argparse
import fcntl
import json
import math
import os
import re
import socket
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import ml_dtypes
import numpy as np

ARRAYS = (".npy", ".npz")
MAX_BYTES = 1 << 30  # of an array that has to be in memory
# What NumPy, zipfile and zlib raise for damaged files, besides ValueError.
DAMAGED = (OSError, EOFError, KeyError, zlib.error, zipfile.BadZipFile, SyntaxError, struct.error, RuntimeError)


class NotLocal(ValueError, argparse.ArgumentTypeError):
    """A path that is none of this machine; argparse prints the message of the second base as it is."""


def local_path(path: str | Path) -> str:
    """A path with its `~` expanded; the `type` of options that take paths. Raises NotLocal for a URL such as gs://x."""
    if not str(path):
        raise NotLocal("an empty path names no file and no folder: write one")
    if scheme := re.match(r"(\w{2,}):/+", str(path)):  # two letters and more: not the drive of C:/
        raise NotLocal(f"{path} is no path of this machine, and {scheme[1]}:// is not supported: mount it, or copy it")
    expanded = os.path.expanduser(path)
    if re.match("~(/|$)", expanded):
        raise NotLocal(f"{path} cannot be found, since this user has no home folder: write the path out")
    return expanded


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Names the file in errors of writing it, as that of a full disk names none. Raises OSError."""
    try:
        yield
    except OSError as error:
        raise OSError(f"{path} could not be written: {error.strerror or error}.") from error


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path` that replaces it if the block succeeds: others see the whole file or none.

    The folder is made. The temporary file is removed if the block fails; an OSError names `path`.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")  # processes may write the same file at once
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds the lock of a file, which is made; it ends with the process, however that ends.

    Warns where the file system, some network's, has no locks. Raises ValueError where another process holds it.
    """
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read() or "another process"
            raise ValueError(
                f"{path.parent} is in use by {holder}: wait for its end, or name another --workdir."
            ) from error
        except OSError as error:
            warnings.warn(
                f"{path.parent} cannot be locked ({error.strerror}): let one run alone write to it.", stacklevel=3
            )
        with suppress(OSError):  # of a full disk; who holds the lock is no more than words
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
            file.flush()
            os.fsync(file.fileno())  # so that other machines see it while the file is open
        yield


def write_json(path: Path, value: Any) -> None:
    """Writes a file of indented JSON, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n")


def cache_folder() -> Path:
    """The folder of everything that jaxvid caches: `$XDG_CACHE_HOME/jaxvid`, or `~/.cache/jaxvid`.

    Raises FileNotFoundError where neither exists, as for a container's user of no name.
    """
    for folder in (os.environ.get("XDG_CACHE_HOME", ""), os.path.expanduser("~/.cache")):
        if os.path.isabs(folder):  # others are to be ignored, says XDG; without a home ~ stays as it is
            return Path(folder) / "jaxvid"
    raise FileNotFoundError("there is no folder for jaxvid's cache: set HOME or XDG_CACHE_HOME to a full path.")


def load_array(path: str) -> np.ndarray:
    """The array of a `.npy` file, which stays on the disk, or the only one or `video` of a `.npz` file.

    Raises ValueError as `open_array`, and for more than 1 GiB in a `.npz` file.
    """
    return open_array(path).whole


def open_array(path: str) -> "StoredArray":
    """As `load_array`, but only the header is read. Raises ValueError where there is no such array of numbers."""
    arrays = open_arrays(path)
    names = [name for name in arrays if len(arrays) == 1 or name == "video"]
    if not names:
        raise ValueError(f"{path} holds {', '.join(arrays) or 'nothing'}, expected one array, or one called video.")
    return arrays[names[0]]


def open_arrays(path: str | os.PathLike[str]) -> dict[str, "StoredArray"]:
    """The arrays of a `.npz` file by name, or the one of a `.npy` file under the name "".

    Raises ValueError where the file is damaged, or holds something that is no array of numbers.
    """
    with _readable(path), open(path, "rb") as file:
        if file.read(2) != b"PK":
            file.seek(0)
            return {"": StoredArray(path, file, os.path.getsize(path))}
        archive = zipfile.ZipFile(path)
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        return {name: StoredArray(path, archive.open(info), info.file_size) for name, info in members.items()}


class StoredArray:
    """An array in a file, of which only what is asked for is read: `array[i, j]`, one index for each leading axis.

    One in an archive is best read in ascending order, since a step back may begin anew. bfloat16, which NumPy writes as
    two bytes of no kind, is read as such. Reading raises ValueError where the file is damaged.
    """

    def __init__(self, path: str | os.PathLike[str], file: IO[bytes], size: int):
        """Reads the header from the beginning of the file, which has so many bytes."""
        version = np.lib.format.read_magic(file)
        header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
        self.shape, self._turned, dtype = header(file)  # turned: the first index runs fastest
        self.dtype = np.dtype(ml_dtypes.bfloat16) if dtype.str[1:] == "V2" and not dtype.names else dtype
        self._path, self._file = path, file if isinstance(file, zipfile.ZipExtFile) else None
        self._start, self.nbytes = file.tell(), math.prod(self.shape) * dtype.itemsize
        if dtype.hasobject or self._start + self.nbytes > size:
            raise ValueError("no numbers, or fewer than its header says")

    def __getitem__(self, index: tuple[int, ...]) -> np.ndarray:
        if self._file is None or self._turned:
            return np.array(self.whole[index])
        place = int(np.ravel_multi_index(index, self.shape[: len(index)])) if index else 0
        return self._read(self.shape[len(index) :], place)

    @property
    def whole(self) -> np.ndarray:
        """All of it: on the disk in a `.npy` file, else in memory. Raises ValueError for more than 1 GiB of memory."""
        if self._file is None and self.nbytes:
            return np.memmap(self._path, self.dtype, "r", self._start, self.shape, "F" if self._turned else "C")
        if self.nbytes > MAX_BYTES:
            size = f"{self.nbytes / 2**30:.1f} GiB, which have to be read at once"
            raise ValueError(f"{self._path} holds an array of {size}: save it as .npy, which stays on the disk.")
        return self._read(self.shape[::-1]).T if self._turned else self._read(self.shape)

    def _read(self, shape: tuple[int, ...], place: int = 0) -> np.ndarray:
        """The entry of this number among those of this shape."""
        size = math.prod(shape) * self.dtype.itemsize
        if self._file is None or not size:
            return np.empty(shape, self.dtype)
        with _readable(self._path):
            self._file.seek(self._start + place * size)
            return np.frombuffer(self._file.read(size), self.dtype).reshape(shape)


@contextmanager
def _readable(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turns what NumPy and zipfile raise for damaged files, errors of many types, into ValueError."""
    try:
        yield
    except (*DAMAGED, ValueError) as error:
        raise ValueError(f"{path} is damaged, or holds no array of numbers.") from error
