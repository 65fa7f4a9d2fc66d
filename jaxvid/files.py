"""Files on the host: written whole or not at all, arrays of users, and the cache folder."""

import json
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

ARRAYS = (".npy", ".npz")


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path` that replaces it if the block succeeds: others see the whole file or none.

    The folder is made. The temporary file is removed if the block fails.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")  # processes may write the same file at once
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Writes a file of indented JSON, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n")


def cache_folder() -> Path:
    """The folder of everything that jaxvid caches: `$XDG_CACHE_HOME/jaxvid`, or `~/.cache/jaxvid`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jaxvid"


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
