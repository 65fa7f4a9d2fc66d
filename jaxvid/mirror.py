"""A copy of a run in a place that lasts, such as a mounted drive, kept up to date while the run trains."""

import contextlib
import itertools
import json
import shutil
import tempfile
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

from jaxvid import config as config_lib
from jaxvid.files import local_path, replacing, writing

CHECKPOINTS = ("checkpoints", "damaged_checkpoints")  # folders that are not copied file by file


@contextlib.contextmanager
def mirrored(workdir: str | Path, target: str | Path, every: float = 60.0) -> Iterator[None]:
    """Copies a work folder to `target` every so many seconds while the block trains in it, and at the block's end.

    Where `workdir` is not there and `target` is, the run is brought back first: after a machine was lost the same lines
    go on from the newest checkpoint of the copy. Checkpoints are copied once they are finished, each whole or not at
    all, and leave the copy when the run has deleted them. A copy that fails, as a drive may, is no more than a warning.

    Raises ValueError where one lies in the other, or `target` holds a run with another config, or has come further than
    `workdir`. Raises OSError where `target` cannot be written.
    """
    workdir, target = Path(local_path(workdir)), Path(local_path(target))
    if any(a.resolve().is_relative_to(b.resolve()) for a, b in ((workdir, target), (target, workdir))):
        raise ValueError(f"{target} and {workdir} lie one in the other: name another target for the copy.")
    if not workdir.exists() and target.exists():
        copy_run(target, workdir)
    saved = [json.loads(file.read_text()) for folder in (target, workdir) if (file := folder / "config.json").is_file()]
    if len(saved) == 2 and (changed := config_lib.differences(*saved)):
        lines = "\n".join(changed)
        raise ValueError(f"{target} holds a run with another config than {workdir}: name another target.\n{lines}")
    here, there = (max(checkpoints(folder), default=0) for folder in (workdir, target))
    if there > here:
        raise ValueError(
            f"{target} holds a run at step {there}, and {workdir} one at step {here}: delete {workdir} to go on from "
            f"step {there}, or name another target."
        )
    with writing(target):  # a place where it never can be is said before the hours of training
        folder = target if target.exists() else target.parent
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryDirectory(dir=folder).cleanup()
    ended = threading.Event()

    def work() -> None:
        while not ended.wait(every):
            _attempt(workdir, target)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        _attempt(workdir, target)


def checkpoints(workdir: Path) -> dict[int, Path]:
    """The finished checkpoints of a run by step; Orbax gives those that it is writing other names."""
    return {int(path.name): path for path in (workdir / "checkpoints").glob("*") if path.name.isdecimal()}


def copy_run(source: Path, target: Path) -> None:
    """Makes `target` a copy of the run in `source`, where only what differs is copied. Raises OSError."""
    entries = [entry for entry in source.glob("*") if entry.name not in CHECKPOINTS]
    for file in itertools.chain(entries, *(entry.rglob("*") for entry in entries)):
        path = file.relative_to(source)
        hidden = any(part.startswith(".") for part in path.parts)  # the lock, and files that are being written
        if file.is_file() and not hidden:
            _copy_file(file, target / path)
    present = checkpoints(target)
    for step in sorted(checkpoints(source).keys() - present.keys()):
        with contextlib.suppress(FileNotFoundError):  # the run has deleted it meanwhile
            _copy_checkpoint(source / "checkpoints" / str(step), target / "checkpoints" / str(step))
    kept = checkpoints(source)
    for step, folder in present.items():
        if step not in kept and kept:
            shutil.rmtree(folder)


def _copy_file(source: Path, target: Path) -> None:
    about = source.stat()
    if target.exists() and (there := target.stat()).st_size == about.st_size and there.st_mtime >= about.st_mtime:
        return
    with replacing(target) as temporary:
        shutil.copyfile(source, temporary)


def _copy_checkpoint(source: Path, target: Path) -> None:
    """Copies a folder under another name first. Raises FileNotFoundError where it is deleted meanwhile."""
    temporary = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        shutil.copytree(source, temporary)
        if not source.exists():
            raise FileNotFoundError(source)
        temporary.rename(target)
    except OSError as error:
        if not source.exists():
            raise FileNotFoundError(source) from error
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _attempt(source: Path, target: Path) -> None:
    try:
        copy_run(source, target)
    except OSError as error:
        warnings.warn(f"{source} could not be copied to {target} ({error}); the next copy tries again.", stacklevel=3)
