"""A trained run as a value: loading it, remaking it under a changed config, and claiming a work folder."""

import argparse
import errno
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from jaxvid import checkpoint
from jaxvid import config as config_lib
from jaxvid.core import Method, TrainState, make_method


class Run(NamedTuple):
    """A trained run: its config, its method, and its newest state."""

    config: ConfigDict
    method: Method
    state: TrainState


class Output(NamedTuple):
    """What a mode of `jaxvid.sample` returns."""

    panels: dict[str, np.ndarray]  # uint8 [N,T,H,W,3], drawn side by side; the last is the model's, and names the files
    captions: dict[str, list[str]] = {}  # by name, what is written beside each of the N
    note: str = ""  # a sentence to print


class Mode(NamedTuple):
    """What `jaxvid.sample --mode` does with a run; a method's module exports its own by name as `MODES`."""

    make: Callable[[Run, argparse.Namespace], Output]  # from the run and the command line
    videos: int = 0  # how many --video it needs
    takes: tuple[str, ...] = ()  # which of the options num, seed, frames and batch_size it reads
    options: Mapping[str, Mapping[str, Any]] = {}  # those of its own, as keyword arguments of `add_argument`


def saved_config(workdir: str | Path) -> ConfigDict:
    """The config of the run in a work folder.

    Raises:
      FileNotFoundError: there is none.
      ValueError: it is damaged.
    """
    path = Path(workdir) / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{workdir} has no config.json; expected the work folder of a run of jaxvid.main.")
    try:
        fields = json.loads(path.read_text())
        if not isinstance(fields, dict) or "method" not in fields:
            raise ValueError("it holds no config")
        return config_lib.from_dict(fields)
    except ValueError as error:
        raise ValueError(f"{path} is damaged: put back what it was, or name another --workdir.") from error


def load(workdir: str | Path) -> Run:
    """Loads the newest whole checkpoint of a run onto one device, whatever it was trained on.

    Args:
      workdir: the work folder of `jaxvid.main`.

    Raises:
      FileNotFoundError: there is no config or no checkpoint in it.
      ValueError: all its checkpoints are damaged, another version wrote them, or a frozen player is not what was loaded
        when the run began.
    """
    workdir = Path(workdir)
    config = saved_config(workdir)
    try:
        described = json.loads((workdir / "batch.json").read_text())
    except ValueError as error:
        raise ValueError(f"batch.json in {workdir} is damaged: {error}.") from error
    try:
        method = make_method(config)
    except ValueError as error:
        raise ValueError(
            f"config.json in {workdir} is not for this version of jaxvid: {error} Use the version that wrote it, or "
            "train anew."
        ) from error
    state = checkpoint.restore_newest(workdir, checkpoint.abstract_state(method, described))
    if state is None:
        raise FileNotFoundError(f"{workdir} has no checkpoint yet.")
    checkpoint.verify(state, method.frozen)
    return Run(config, method, state)


def remake(run: Run, changes: Mapping[str, Any]) -> Run:
    """The run with a method that is made anew under some changed fields: {"sample.temperature": 0.8}.

    Raises ValueError: the method cannot be made so.
    """
    if not changes:
        return run
    config = run.config.copy_and_resolve_references()
    config.update_from_flattened_dict(changes)
    return Run(config, make_method(config), run.state)


def claim(workdir: Path, config: ConfigDict) -> None:
    """Makes the work folder, or checks that the run in it has this config.

    Raises:
      ValueError: the folder holds a run with another config; one line per field.
      OSError: the folder cannot be made or written.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"the work folder {workdir} cannot be made ({error.strerror}): name another one.") from error
    if not os.access(workdir, os.W_OK):
        raise PermissionError(errno.EACCES, "the work folder cannot be written; name another --workdir", str(workdir))
    if (workdir / "config.json").is_file():
        changed = config_lib.differences(config_lib.to_dict(saved_config(workdir)), config_lib.to_dict(config))
        if changed:
            undo = "\n".join(changed)
            raise ValueError(f"{workdir} holds a run with another config. Name another --workdir, or undo:\n{undo}")
    elif any((workdir / "checkpoints").glob("[0-9]*")):
        raise ValueError(f"{workdir} has checkpoints but no config.json to compare with: name another --workdir.")
