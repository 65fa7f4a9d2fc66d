"""Checkpoints that are whole or passed over: Orbax, with a digest of every array."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from ml_collections import ConfigDict

from jaxvid import config as config_lib
from jaxvid import parallel
from jaxvid.core import Method, TrainState
from jaxvid.methods import METHODS


class DamagedCheckpoint(Exception):
    """A checkpoint that cannot be read, or whose arrays are not those that were saved."""


def _described(tree: Any) -> dict[str, list]:
    """{"params/generator/...": [shape, dtype]} of every leaf."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): [list(x.shape), str(x.dtype)] for path, x in leaves}


def _digests(state: TrainState) -> dict[str, int]:
    """The CRC-32 of every leaf's bytes. A state is replicated, so this process's first copy stands for all."""
    raw = state.replace(key=jax.random.key_data(state.key))
    local = jax.device_get(jax.tree.map(lambda x: x.addressable_data(0), raw))
    leaves = jax.tree_util.tree_leaves(local)
    # bfloat16 offers no buffer of its own; its bytes do.
    digests = (zlib.crc32(np.ascontiguousarray(x).view(np.uint8)) for x in leaves)
    return dict(zip(_described(state), digests, strict=True))


def _digest(*values: Any) -> int:
    """The CRC-32 of JSON values."""
    return zlib.crc32(json.dumps(values, sort_keys=True).encode())


def _restore(manager: ocp.CheckpointManager, step: int, abstract: TrainState) -> TrainState:
    # Orbax raises bare Exceptions for truncated files, ValueErrors for missing ones, nothing at all for flipped bits.
    try:
        saved = manager.restore(step, args=ocp.args.Composite(summary=ocp.args.JsonRestore()))["summary"]
        leaves, digests = saved["leaves"], saved["digests"]
        intact = saved["digest"] == _digest(leaves, digests)
    except Exception as error:
        raise DamagedCheckpoint("its summary cannot be read") from error
    if not intact:
        raise DamagedCheckpoint("its summary is not what was saved (the digest differs)")
    present = _described(abstract)
    for name in leaves.keys() | present.keys():
        if leaves.get(name) != present.get(name):
            raise ValueError(
                f"checkpoint {step} has {name} as {leaves.get(name, 'absent')}, this version of the method as "
                f"{present.get(name, 'absent')}; use the version that wrote it, or another --workdir."
            )
    try:
        state = manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract)))["state"]
    except Exception as error:
        raise DamagedCheckpoint("its arrays cannot be read") from error
    for name, digest in _digests(state).items():
        if digests[name] != digest:
            raise DamagedCheckpoint(f"{name} is not what was saved (its digest differs)")
    return state


def _restore_newest(manager: ocp.CheckpointManager, abstract: TrainState) -> tuple[TrainState | None, list[int]]:
    """The newest whole state, and the damaged steps that were passed over. Raises ValueError if all are damaged."""
    reasons: dict[int, str] = {}
    for step in sorted(manager.all_steps(), reverse=True):
        try:
            return _restore(manager, step, abstract), list(reasons)
        except DamagedCheckpoint as error:
            reasons[step] = str(error)
            logging.warning("Checkpoint %s/%d is damaged: %s. Trying the one before.", manager.directory, step, error)
    if reasons:
        raise ValueError(
            f"every checkpoint in {manager.directory} is damaged "
            f"({'; '.join(f'{step}: {why}' for step, why in reasons.items())}); "
            "delete the folder to start from the beginning, or use another --workdir."
        )
    return None, []


class Checkpointer:
    """The checkpoints of a run, in `workdir/checkpoints`.

    A state holds the data position too: `state.step` is the index of the next batch.
    """

    def __init__(self, workdir: Path, keep: int):
        directory = workdir.resolve() / "checkpoints"
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, cleanup_tmp_directories=True)
        self._manager = ocp.CheckpointManager(directory, options=options)

    def save(self, state: TrainState) -> None:
        """Saves asynchronously; the state may be donated as soon as this returns. A failed save raises at the next."""
        step = int(state.step)
        if step == self._manager.latest_step():
            return
        leaves, digests = _described(state), _digests(state)
        summary = {"leaves": leaves, "digests": digests, "digest": _digest(leaves, digests)}
        items = ocp.args.Composite(state=ocp.args.StandardSave(state), summary=ocp.args.JsonSave(summary))
        needed = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
        with self._writing():
            # Asked before, since storage threads print tracebacks of their own when a device fills up.
            if needed > shutil.disk_usage(self._manager.directory).free:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._manager.save(step, args=items, force=True)

    def restore(self, abstract: TrainState, mesh: jax.sharding.Mesh) -> TrainState | None:
        """The newest whole state on the devices of `mesh`, or None before the first save.

        Damaged checkpoints are moved to `workdir/damaged_checkpoints`, so that their steps can be saved again.
        """
        state, damaged = _restore_newest(self._manager, placed(abstract, parallel.replicated(mesh)))
        aside = Path(self._manager.directory).parent / "damaged_checkpoints"
        if damaged and jax.process_index() == 0:
            aside.mkdir(exist_ok=True)
            for step in damaged:
                number = sum(1 for _ in aside.glob(f"{step}-*"))
                (Path(self._manager.directory) / str(step)).rename(aside / f"{step}-{number}")
        self._manager.reload()
        return state

    def close(self) -> None:
        """Waits for the save under way."""
        with self._writing():
            self._manager.wait_until_finished()
        self._manager.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Says in one sentence what Orbax says in the words of the storage library, of this save or the one before."""
        try:
            yield
        except (ValueError, OSError) as error:
            full = "RESOURCE_EXHAUSTED" in str(error) or getattr(error, "errno", None) == errno.ENOSPC
            why = "no space is left on the device" if full else str(error).partition("\n")[0][:200]
            raise OSError(f"no checkpoint could be written to {self._manager.directory}: {why}.") from error


def placed(abstract: TrainState, sharding: jax.sharding.Sharding) -> TrainState:
    """An abstract state (shapes and dtypes) with a sharding on every leaf."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), abstract)


def described_batch(batch: Mapping[str, jax.Array]) -> dict[str, list]:
    """{"video": [[8, 16, 64, 64, 3], "uint8"], ...}, for `abstract_state`."""
    return {name: [list(x.shape), str(x.dtype)] for name, x in batch.items()}


def abstract_state(method: Method, described: Mapping[str, list]) -> TrainState:
    """The shapes and dtypes of a method's state, from those of a batch."""
    batch = {name: jax.ShapeDtypeStruct(shape, dtype) for name, (shape, dtype) in described.items()}
    return jax.eval_shape(method.init, jax.random.key(0), batch)


class Run(NamedTuple):
    """A trained run: its config, its method's four functions, and its newest state."""

    config: ConfigDict
    method: Method
    state: TrainState


def load(workdir: str | Path) -> Run:
    """Loads the newest whole checkpoint of a run onto one device, whatever it was trained on.

    Args:
      workdir: the work folder of `jaxvid.main`.

    Raises:
      FileNotFoundError: there is no config or no checkpoint in it.
      ValueError: all its checkpoints are damaged, or another version wrote them.
    """
    workdir = Path(workdir)
    if not (workdir / "config.json").is_file():
        raise FileNotFoundError(f"{workdir} has no config.json; expected the work folder of a run of jaxvid.main.")
    try:
        saved, described = (json.loads((workdir / name).read_text()) for name in ("config.json", "batch.json"))
    except ValueError as error:
        raise ValueError(f"config.json or batch.json in {workdir} is damaged: {error}.") from error
    config = config_lib.from_dict(saved)
    try:
        method = METHODS[config.method](config)
    except AttributeError as error:  # of a ConfigDict; its text is the field's name in quotes
        field = str(error).strip("\"'")
        raise ValueError(
            f"config.json in {workdir} lacks a field, {field}, that this version of jaxvid reads; use the version that "
            "wrote it, or train anew."
        ) from error
    abstract = abstract_state(method, described)
    options = ocp.CheckpointManagerOptions(read_only=True)
    with ocp.CheckpointManager(workdir.resolve() / "checkpoints", options=options) as manager:
        sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        state, _ = _restore_newest(manager, placed(abstract, sharding))
    if state is None:
        raise FileNotFoundError(f"{workdir} has no checkpoint yet.")
    return Run(config, method, state)
