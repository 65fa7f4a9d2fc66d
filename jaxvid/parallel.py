"""Many devices: the mesh, steps under jit and pmap, reductions over an optional axis, keys per example."""

import contextlib
import ctypes
import functools
import math
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXIS = "data"  # the one mesh axis: the examples of a batch
LEAST = 512  # numbers of an array that is distributed: to pass smaller ones on takes more time than it saves memory
MODES = ("jit", "pmap")
Tree = TypeVar("Tree")


def pmean(tree: Tree, axis_name: str | None) -> Tree:
    """Mean over the devices of a mapped axis; the identity for None, where jit's means are global by themselves."""
    return tree if axis_name is None else jax.lax.pmean(tree, axis_name)


def psum(tree: Tree, axis_name: str | None) -> Tree:
    """Sum over the devices of a mapped axis; the identity for None."""
    return tree if axis_name is None else jax.lax.psum(tree, axis_name)


def example_keys(key: jax.Array, count: int, axis_name: str | None = None) -> jax.Array:
    """Keys [count], one per example of this device, folded from the example's global index.

    Noise drawn from them does not depend on how many devices share the batch.
    """
    first: Any = 0 if axis_name is None else jax.lax.axis_index(axis_name) * count
    return jax.vmap(jax.random.fold_in, (None, 0))(key, first + jnp.arange(count))


def fold_keys(keys: jax.Array, number: int | jax.Array) -> jax.Array:
    """Other keys [B], for another use of the same examples."""
    return jax.vmap(jax.random.fold_in, (0, None))(keys, number)


def example_noise(keys: jax.Array, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, jax.Array]:
    """Standard normal noise [B, *shape] for each of the named shapes, every example's from its own of the B keys."""

    def of_example(key: jax.Array) -> dict[str, jax.Array]:
        names = enumerate(sorted(shapes))
        return {name: jax.random.normal(jax.random.fold_in(key, index), shapes[name]) for index, name in names}

    return jax.vmap(of_example)(keys)


def axis_name(mode: str) -> str | None:
    """The axis name that a method must be made with to run under `mode` ("jit" or "pmap")."""
    if mode not in MODES:
        raise ValueError(f'train.parallel is "{mode}", expected "jit" or "pmap".')
    return AXIS if mode == "pmap" else None


def check_devices() -> None:
    """Starts JAX. Raises ValueError where the environment asks for devices that are not there."""
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        names = [name for name in ("JAX_PLATFORMS", "JAX_PLATFORM_NAME") if os.environ.get(name)]
        asked = "".join(f"{name} is {os.environ[name]}, and " for name in names)
        why = str(error).partition("\n")[0].partition(" (set JAX_PLATFORMS")[0].rstrip(".")
        raise ValueError(
            f"{asked}JAX finds no such device here{why and f' ({why})'}: set "
            f"JAX_PLATFORMS=cpu{' and unset JAX_PLATFORM_NAME' if 'JAX_PLATFORM_NAME' in names else ''}, or install "
            "jaxvid[cuda12], jaxvid[cuda13] or jaxvid[tpu]."
        ) from error


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A one-dimensional mesh over `devices` (default: all, of every process).

    The devices of a process are neighbors in it, in the order in which a TPU's torus connects them, and processes come
    in the order of their numbers, as their rows of a batch do.
    """
    devices = list(devices or jax.devices())
    ring = jax.make_mesh((len(devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=devices).devices.flat
    ordered = sorted(ring, key=lambda device: device.process_index)
    return Mesh(np.asarray(ordered), (AXIS,), axis_types=(AxisType.Auto,))


def local_mesh(rows: int) -> Mesh:
    """A mesh over as many devices of this process as can share batches of so many rows equally."""
    devices = jax.local_devices()
    count = next(count for count in range(min(rows, len(devices)), 0, -1) if rows % count == 0)
    return make_mesh(devices[:count])


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of what is the same on every device."""
    return NamedSharding(mesh, PartitionSpec())


def sharded(mesh: Mesh) -> NamedSharding:
    """The sharding of a batch: its first axis over the devices."""
    return NamedSharding(mesh, PartitionSpec(AXIS))


def state_sharding(abstract: Any, mesh: Mesh, shard: bool) -> Any:
    """The shardings of a `core.TrainState` of these shapes: all replicated, or as in the first stage of ZeRO.

    With `shard`, optimizer states and averaged parameters are distributed over the devices, each along its largest axis
    that they can share equally (Rajbhandari et al. 2020, section 5.1); small arrays and what every device needs in each
    step are not.
    """
    whole = jax.tree.map(lambda _: replicated(mesh), abstract)
    if not shard:
        return whole
    parts = {
        field: jax.tree.map(lambda leaf: NamedSharding(mesh, _largest(leaf.shape, mesh.size)), getattr(abstract, field))
        for field in ("opt_state", "ema")
    }
    return whole.replace(**parts)


def _largest(shape: tuple[int, ...], devices: int) -> PartitionSpec:
    """The largest axis that the devices can share equally, on the mesh's axis; none where the array is small."""
    axes = [axis for axis, length in enumerate(shape) if length % devices == 0 and math.prod(shape) >= LEAST]
    axis = max(axes, key=lambda axis: shape[axis], default=None)
    return PartitionSpec() if axis is None else PartitionSpec(*(None,) * axis, AXIS)


def scattered(tree: Tree) -> Tree:
    """Gradients or parameters, distributed as `state_sharding` distributes their averages: of each a device has a part.

    It holds within a step from `make_step` whose state is sharded, and is the identity elsewhere, as `gathered` is.
    """
    # Whole before: otherwise XLA distributes what gradients are computed from too, and moves it to and fro.
    return _constrained(gathered(tree), _largest)


def gathered(tree: Tree) -> Tree:
    """Arrays of which parts were computed, whole on every device again: the inverse of `scattered`."""
    return _constrained(tree, lambda shape, devices: PartitionSpec())


def _constrained(tree: Tree, spec: Callable[[tuple[int, ...], int], PartitionSpec]) -> Tree:
    mesh = jax.sharding.get_abstract_mesh()  # empty but within `_under`; pmap maps the axis by hand
    if dict(zip(mesh.axis_names, mesh.axis_types, strict=True)).get(AXIS) != AxisType.Auto:
        return tree
    return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, spec(x.shape, mesh.size)), tree)


def _under(mesh: Mesh, function: Callable) -> Callable:
    """The function, traced where `scattered` and `gathered` find the mesh."""

    @functools.wraps(function)
    def traced(*arguments: Any) -> Any:
        if jax.config.jax_disable_jit:  # type: ignore[attr-defined]  # then nothing is traced
            return function(*arguments)
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return function(*arguments)

    return traced


def with_whole_state(function: Callable, mesh: Mesh) -> Callable:
    """The function, to be compiled, which finds its first argument whole on every device, sharded or not before."""
    return _under(mesh, lambda state, *others: function(gathered(state), *others))


def put_batch(batch: Mapping[str, np.ndarray], mesh: Mesh, mode: str = "jit") -> dict[str, jax.Array]:
    """Sends this process's rows of a batch to its devices; text stays behind.

    Args:
      batch: arrays [B / processes, ...].
      mesh: from `make_mesh`.
      mode: "jit" gives global arrays [B, ...], "pmap" [devices, B / devices, ...].
    """

    def put(array: np.ndarray) -> jax.Array:
        if mode == "pmap":
            array = array.reshape(len(mesh.local_devices), -1, *array.shape[1:])
        return jax.make_array_from_process_local_data(sharded(mesh), array)

    return {name: put(array) for name, array in batch.items() if array.dtype.kind in "biuf"}


def platform() -> str:
    """Of `jax.default_device`, or of JAX's first device: "cpu", "gpu", "tpu", ..."""
    config: Any = jax.config
    device = config.jax_default_device  # a device, the name of its platform, or None
    return getattr(device, "platform", device) or jax.default_backend()


def compute_capability() -> float:
    """Of NVIDIA's GPUs, such as 9.0 of Hopper; 0 on any other `platform`."""
    if platform() in ("cpu", "tpu"):
        return 0.0
    found = str(getattr(jax.devices()[0], "compute_capability", ""))  # of others "gfx942", or nothing
    return float(found) if re.fullmatch(r"\d+\.\d+", found) else 0.0


def compiler_options() -> dict[str, Any] | None:
    """What makes convolutions fast: docs/speed.md has the figures.

    On CPU, YNN fusion slows them down by 1.2 to 2 times, and barriers keep whole what `nn.conv` computes at once. On
    Hopper GPUs and newer ones channels come last.
    """
    if jax.default_backend() == "cpu":
        return {"xla_cpu_experimental_ynn_fusion_type": "", "xla_disable_hlo_passes": "cse_barrier_expander"}
    return {"xla_gpu_force_conv_nhwc": True} if compute_capability() >= 9 else None


def keep_memory() -> None:
    """Lets this process keep the memory that a step on CPU frees, before any thread of JAX starts.

    Linux would take it back, and hand it out again page by page: a tenth of the time of vae:frame's steps.
    """
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "mallopt"):  # of the GNU C library
        for threshold in (-1, -3):  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
            library.mallopt(threshold, 1 << 30)
        library.mallopt(-8, 1)  # M_ARENA_MAX: the arenas of other threads give back what is above 64 MB


def free_host_memory() -> int | None:
    """Bytes that this process can still take from the host, by Linux and the limit of its container; None elsewhere."""
    try:
        fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        free = sum(1024 * int(fields[name].split()[0]) for name in ("MemAvailable", "SwapFree"))
    except (OSError, KeyError, ValueError):
        return None
    for limit in ("memory.max", "memory/memory.limit_in_bytes"):  # of control groups, version 2 and 1
        with contextlib.suppress(OSError, ValueError):  # there is none, or "max"
            free = min(free, int(Path("/sys/fs/cgroup", limit).read_text()))
    return free


def free_memory() -> int | None:
    """Bytes that each device of this process can still take; None where that is unknown."""
    device = jax.local_devices()[0]
    if device.platform == "cpu":
        host = free_host_memory()
        return host and host // jax.local_device_count()
    stats = device.memory_stats() or {}
    return stats["bytes_limit"] - stats["bytes_in_use"] if {"bytes_limit", "bytes_in_use"} <= stats.keys() else None


def make_init(init: Callable, mesh: Mesh, state: Any = None) -> Callable:
    """A compiled init (key, batch) -> state, with the shardings `state`, by default the same on every device."""
    # It runs once: XLA:CPU would spend 20 times longer on optimizing the random numbers than on drawing them.
    options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    return jax.jit(init, out_shardings=state or replicated(mesh), compiler_options=options)


def make_step(train_step: Callable, mesh: Mesh, mode: str = "jit", state: Any = None) -> jax.stages.Wrapped:
    """A compiled step (state, batch) -> (state, metrics) over the mesh; the state passed in is donated.

    Args:
      train_step: from a method that was made with `axis_name(mode)`.
      mesh: from `make_mesh`.
      mode: "jit" (one program over global arrays) or "pmap" (one program per device; the batch comes from `put_batch`
        with the same mode). The state has the same shape in both: checkpoints are exchangeable.
      state: its shardings, from `state_sharding`; None for one that is replicated, as pmap needs it.
    """
    if axis_name(mode) is None:
        return jax.jit(
            _under(mesh, train_step) if state else train_step,
            in_shardings=(state or replicated(mesh), sharded(mesh)),
            out_shardings=(state, replicated(mesh)) if state else replicated(mesh),
            donate_argnums=0,
            compiler_options=compiler_options(),
        )
    return jax.pmap(
        train_step,
        axis_name=AXIS,
        in_axes=(None, 0),
        out_axes=None,
        donate_argnums=0,
        devices=list(mesh.devices.flat),
    )
