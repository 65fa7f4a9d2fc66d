"""Checkpoints that are whole or passed over: Orbax, with a digest of every array."""

import contextlib
import errno
import functools
import hashlib
import json
import logging as python_logging
import os
import shutil
import sys
import threading
import traceback
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from absl import logging

from jaxvid import processes
from jaxvid.core import Method, TrainState

SUMS = "sums"  # in a checkpoint's summary; versions before had other "digests"


class DamagedCheckpoint(Exception):
    """A checkpoint that cannot be read, or whose arrays are not those that were saved."""


@functools.cache  # once
def _hush() -> None:
    """Keeps off stderr what Orbax's threads and coroutines say about errors: these arrive here as exceptions too."""
    in_object, in_thread = sys.unraisablehook, threading.excepthook

    def known(error: BaseException | None) -> bool:
        late = "Event loop is closed"  # where storage ends what it had begun when Orbax met the first error
        frames = traceback.extract_tb(error.__traceback__ if error else None)
        return str(error) == late or any("orbax" in frame.filename for frame in frames)

    sys.unraisablehook = lambda event: known(event.exc_value) or in_object(event)
    threading.excepthook = lambda event: known(event.exc_value) or in_thread(event)
    for name in ("absl", "asyncio"):
        python_logging.getLogger(name).addFilter(
            lambda record: "orbax" not in record.pathname and not known(record.exc_info[1] if record.exc_info else None)
        )


def described(tree: Any) -> dict[str, list]:
    """{"params/generator/...": [shape, dtype]} of every leaf: of a batch {"video": [[8, 16, 64, 64, 3], "uint8"]}."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): [list(x.shape), str(x.dtype)] for path, x in leaves}


def sums(tree: Any) -> jax.Array:
    """Two sums of the words of each leaf, uint32 [leaves,2], of its bits alone: no devices, no sharding decide them.

    A word is a value's bits as an unsigned number; a value of 64 bits is two. The first sum is plain. In the second a
    word w counts as w xor w >> 15, since a sign, the highest bit, would not show in it, and the one at position i, in C
    order, 2 i + 1 times. Both are modulo 2^32. A flipped bit changes both, and words that change places the second.
    """
    return jnp.stack([_sums(leaf) for leaf in jax.tree.leaves(tree)])


def _sums(leaf: jax.Array) -> jax.Array:
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    leaf = leaf.astype(jnp.uint8) if leaf.dtype == jnp.bool_ else leaf
    unsigned = {1: jnp.uint8, 2: jnp.uint16}.get(leaf.dtype.itemsize, jnp.uint32)
    words = jax.lax.bitcast_convert_type(leaf, unsigned).astype(jnp.uint32)
    place = jnp.uint32(0)
    for axis, length in enumerate(words.shape):  # of counters alone, so that no device needs the words of another
        place = place * jnp.uint32(length) + jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis)
    # One reduction each: XLA would gather what it reduces to two numbers at once.
    weighted = (words ^ words >> 15) * (2 * place + 1)
    return jnp.stack([jnp.sum(each, dtype=jnp.uint32) for each in (words, weighted)])


@functools.lru_cache(maxsize=4)
def _summing(sharding: jax.sharding.Sharding) -> Callable[[TrainState], jax.Array]:
    return jax.jit(sums, out_shardings=sharding)


def _digests(state: TrainState) -> dict[str, list[int]]:
    """The sums of every leaf, the same on all processes that share the state."""
    found = jax.device_get(_summing(state.step.sharding)(state))  # a scalar is on all devices
    return dict(zip(described(state), found.tolist(), strict=True))


def _digest(*values: Any) -> int:
    """The CRC-32 of JSON values."""
    return zlib.crc32(json.dumps(values, sort_keys=True).encode())


def _reader(directory: Path) -> ocp.CheckpointManager:
    """A manager that reads, and waits for no other process: what one finds damaged may be whole for another."""
    alone = ocp.options.MultiprocessingOptions(primary_host=jax.process_index(), active_processes={jax.process_index()})
    options = ocp.CheckpointManagerOptions(read_only=True, multiprocessing_options=alone)
    return ocp.CheckpointManager(directory, options=options)


def _read(
    manager: ocp.CheckpointManager, step: int, abstract: TrainState
) -> tuple[TrainState, dict[str, list[int]] | None]:
    """A state, and the sums that it had when it was saved; None of a version before these."""
    # Orbax raises bare Exceptions for truncated files, ValueErrors for missing ones, nothing at all for flipped bits.
    try:
        saved = manager.restore(step, args=ocp.args.Composite(summary=ocp.args.JsonRestore()))["summary"]
        leaves, digests = saved["leaves"], saved.get(SUMS) or saved["digests"]
        intact = saved["digest"] == _digest(leaves, digests)
    except Exception as error:
        raise DamagedCheckpoint("its summary cannot be read") from error
    if not intact:
        raise DamagedCheckpoint("its summary is not what was saved (the digest differs)")
    present = described(abstract)
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
    return state, saved.get(SUMS)


def _restore(manager: ocp.CheckpointManager, step: int, abstract: TrainState, shared: bool) -> TrainState:
    """A state, where every process that shares it can read it. Raises DamagedCheckpoint on all of them elsewhere."""
    damage = ""
    if shared:
        processes.wait_for((Path(manager.directory) / str(step)).is_dir)
    try:
        state, expected = _read(manager, step, abstract)
    except DamagedCheckpoint as error:
        damage = str(error)
    for each in processes.of_all(damage) if shared else [damage]:
        if each:
            raise DamagedCheckpoint(each)
    if expected is None:
        logging.warning("Checkpoint %d was written by a version whose digest is another: it is not verified.", step)
        return state
    for name, found in _digests(state).items():
        if found != expected[name]:
            raise DamagedCheckpoint(f"{name} is not what was saved (its digest differs)")
    return state


def _restore_newest(directory: Path, abstract: TrainState) -> tuple[TrainState | None, list[int]]:
    """The newest whole state, and the damaged steps that were passed over. Raises ValueError if all are damaged."""
    shared = not jax.tree.leaves(abstract)[0].sharding.is_fully_addressable  # by several processes
    reasons: dict[int, str] = {}
    with _reader(directory) as manager:
        steps = sorted(manager.all_steps(), reverse=True)
        for step in processes.of_first(lambda: steps) if shared else steps:
            try:
                return _restore(manager, step, abstract, shared), list(reasons)
            except DamagedCheckpoint as error:
                reasons[step] = str(error)
                logging.warning("Checkpoint %s/%d is damaged: %s. Trying the one before.", directory, step, error)
    if reasons:
        raise ValueError(
            f"every checkpoint in {directory} is damaged "
            f"({'; '.join(f'{step}: {why}' for step, why in reasons.items())}); "
            "delete the folder to start from the beginning, or use another --workdir."
        )
    return None, []


class Checkpointer:
    """The checkpoints of a run, in `workdir/checkpoints`, which all processes of the run share.

    A state holds the data position too: `state.step` is the index of the next batch. Every array is saved whole, each
    process writes a part, and the number of processes and devices is no part of what is saved. Raises ValueError for a
    folder whose name is not in UTF-8.
    """

    def __init__(self, workdir: Path, keep: int):
        _hush()
        self._directory, self._last = workdir.resolve() / "checkpoints", -1
        if str(self._directory) != str(self._directory).encode(errors="replace").decode():
            raise ValueError(f"{workdir} is no name in UTF-8, which checkpoints need: name another --workdir.")
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, cleanup_tmp_directories=True)
        self._manager = ocp.CheckpointManager(self._directory, options=options)

    def save(self, state: TrainState) -> None:
        """Saves asynchronously; the state may be donated as soon as this returns. A failed save raises at the next.

        The newest step of those saved and restored is not saved again.
        """
        step = int(state.step)
        if step == self._last:
            return
        leaves, found = described(state), _digests(state)
        summary = {"leaves": leaves, SUMS: found, "digest": _digest(leaves, found)}
        items = ocp.args.Composite(state=ocp.args.StandardSave(state), summary=ocp.args.JsonSave(summary))
        needed = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
        with self._writing():
            # Asked before, since storage threads print tracebacks of their own when a device fills up.
            if needed > processes.of_first(lambda: shutil.disk_usage(self._directory).free):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._manager.save(step, args=items, force=True)
        self._last = step

    def restore(self, abstract: TrainState) -> TrainState | None:
        """The newest whole state, or None before the first save.

        Damaged checkpoints are moved to `workdir/damaged_checkpoints`, so that their steps can be saved again.

        Args:
          abstract: shapes, dtypes and shardings, from `placed`; the state may have been saved with other shardings, by
            other numbers of processes and devices.
        """
        state, damaged = _restore_newest(self._directory, abstract)
        if damaged:
            processes.of_first(lambda: self._set_aside(damaged))
        self._manager.reload()
        self._last = -1 if state is None else int(state.step)
        return state

    def _set_aside(self, steps: Sequence[int]) -> None:
        aside = self._directory.with_name("damaged_checkpoints")
        aside.mkdir(exist_ok=True)
        for step in steps:
            number = sum(1 for _ in aside.glob(f"{step}-*"))
            (self._directory / str(step)).rename(aside / f"{step}-{number}")

    def close(self) -> None:
        """Waits for the save under way."""
        with self._writing():
            self._manager.wait_until_finished()
        self._manager.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Turns errors of the storage library, of this save or the one before, into one sentence."""
        try:
            yield
        except (ValueError, OSError) as error:
            full = "RESOURCE_EXHAUSTED" in str(error) or getattr(error, "errno", None) == errno.ENOSPC
            why = "no space is left on the device" if full else str(error).partition("\n")[0][:200]
            raise OSError(f"no checkpoint could be written to {self._directory}: {why}.") from error


def placed(abstract: TrainState, shardings: TrainState) -> TrainState:
    """An abstract state (shapes and dtypes) with the sharding of every leaf, see `parallel.state_sharding`."""
    return jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), abstract, shardings
    )


def abstract_state(method: Method, described: Mapping[str, list]) -> TrainState:
    """The shapes and dtypes of a method's state, from those of a batch as `described`."""
    batch = {name: jax.ShapeDtypeStruct(shape, dtype) for name, (shape, dtype) in described.items()}
    return jax.eval_shape(method.init, jax.random.key(0), batch)


def restore_newest(workdir: Path, abstract: TrainState) -> TrainState | None:
    """The newest whole state of a run on one device, whatever it was trained on; None where there is none."""
    _hush()
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    abstract = placed(abstract, jax.tree.map(lambda _: sharding, abstract))
    return _restore_newest(workdir.resolve() / "checkpoints", abstract)[0]


def sha256(params: Any, collections: Any) -> str:
    """The SHA-256 of the names, shapes, types and bytes of a frozen player's arrays, in hexadecimal."""
    tree = {"params": params, "collections": collections}
    local = jax.device_get(jax.tree.map(lambda x: x.addressable_data(0) if isinstance(x, jax.Array) else x, tree))
    digest = hashlib.sha256(json.dumps(described(local), sort_keys=True).encode())
    for leaf in jax.tree_util.tree_leaves(local):
        digest.update(np.ascontiguousarray(leaf).view(np.uint8).data)
    return digest.hexdigest()


def verify(state: TrainState, frozen: Mapping[str, Any]) -> None:
    """Raises ValueError for a frozen player (`Method.frozen`) that is missing, or has other arrays than were loaded."""
    for player, reference in frozen.items():
        if missing := {"path", "step", "sha256"} - set(reference):
            raise ValueError(
                f"config.json has no {player}.{min(missing)}, which says where the frozen {player} is from: put back "
                "the config.json of the run, or train anew in another --workdir."
            )
        if player not in state.params:
            raise ValueError(f"the checkpoint has no frozen player {player}, which comes from {reference.path}.")
        found = sha256(state.params[player], state.collections.get(player, {}))
        if found != reference.sha256:
            raise ValueError(
                f"the frozen {player} in the checkpoint is not the one of {reference.path} at step {reference.step}: "
                f"its SHA-256 is {found[:16]}, and {player}.sha256 in config.json {reference.sha256[:16]}; put back "
                "the config.json of the run, or train anew in another --workdir."
            )
