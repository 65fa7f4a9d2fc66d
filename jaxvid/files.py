"""Files on the host: written whole or not at all, locks, arrays of users, paths, and the cache folder."""

import argparse
import fcntl
import json
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
from typing import Any

import numpy as np

ARRAYS = (".npy", ".npz")


class NotLocal(ValueError, argparse.ArgumentTypeError):
    """A path that is none of this machine; argparse prints the message of the second base as it is."""


def local_path(path: str | Path) -> str:
    """A path with its `~` expanded; the `type` of options that take paths. Raises NotLocal for a URL such as gs://x."""
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

    Raises ValueError where there is no such array.
    """
    try:
        loaded = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(loaded, np.lib.npyio.NpzFile):
            return loaded
        with loaded:
            names = [name for name in loaded.files if len(loaded.files) == 1 or name == "video"]
            if names:
                return loaded[names[0]]
    except (OSError, EOFError, ValueError, zlib.error, zipfile.BadZipFile, SyntaxError, struct.error) as error:
        raise ValueError(f"{path} is damaged, or holds no array of numbers.") from error
    raise ValueError(f"{path} holds {', '.join(loaded.files) or 'nothing'}, expected one array, or one called video.")
