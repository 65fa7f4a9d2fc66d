"""Features of many images or videos: in batches, over all devices, whatever their number."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxvid.metrics.i3d import I3D
from jaxvid.metrics.inception import Inception
from jaxvid.metrics.protocol import Protocol, prepare
from jaxvid.shapes import expect

PER_DEVICE = {"inception": 16, "i3d": 4}  # examples, always: so results do not depend on the size of a batch
Features = dict[str, np.ndarray]
Extractor = Callable[[Iterable[np.ndarray]], Iterator[Features]]


def make_extractor(
    protocol: Protocol,
    params: Any,
    taps: Sequence[str],
    dtype: Any = jnp.float32,
    devices: Sequence[jax.Device] | None = None,
) -> Extractor:
    """A function from batches of pixels to batches of features, compiled once for each frame size.

    Args:
      protocol, params: of `protocol.PROTOCOLS`, and of its network, from `weights.load`.
      taps: names of the network's outputs: of `inception.TAPS`, or "logits" and "pooled" of I3D.
      dtype: of the network's convolutions; bfloat16 is faster on accelerators, and no longer comparable.
      devices: to distribute the batches over; all local ones by default.

    Returns (batches of uint8 [B,H,W,3], or [B,T,H,W,3] for I3D, of any B) -> for each, {tap: float32 [B,d]}, which
    raises ValueError for batches of another dtype or shape.
    """
    devices = tuple(devices or jax.local_devices())
    program = _program(protocol, tuple(taps), jnp.dtype(dtype), devices)
    params = jax.device_put(params, NamedSharding(_mesh(devices), PartitionSpec()))
    size = PER_DEVICE[protocol.network] * len(devices)
    return functools.partial(_extract, functools.partial(program, params), size)


@functools.cache
def _program(protocol: Protocol, taps: tuple[str, ...], dtype: Any, devices: tuple[jax.Device, ...]) -> Callable:
    """(params, uint8 pixels of all devices) -> {tap: float32 [B,d]}, compiled once in a process."""
    network = Inception(taps, dtype) if protocol.network == "inception" else I3D(protocol.epsilon, dtype)

    def forward(params: Any, pixels: jax.Array) -> Mapping[str, jax.Array]:
        outputs: Any = network.apply({"params": params}, prepare(pixels, protocol))
        return {tap: outputs[tap] for tap in taps}

    # Every device runs the same program on as many examples, so that features do not depend on the number of devices.
    whole, rows = PartitionSpec(), PartitionSpec("data")
    return jax.jit(
        jax.shard_map(forward, mesh=_mesh(devices), in_specs=(whole, rows), out_specs=rows, check_vma=False),
        compiler_options=_compiler_options(),
    )


def _mesh(devices: tuple[jax.Device, ...]) -> Mesh:
    return Mesh(np.asarray(devices), ("data",))


def _extract(program: Callable, size: int, batches: Iterable[np.ndarray]) -> Iterator[Features]:
    """Runs batches of any length through a program for `size` examples; the last part of each is padded."""
    for batch in batches:
        expect("[B>=1,...,H,W,3]", "uint8", pixels=batch)
        parts = []
        for start in range(0, len(batch), size):
            part = batch[start : start + size]
            padded = np.zeros((size, *part.shape[1:]), np.uint8)
            padded[: len(part)] = part
            parts.append({tap: np.asarray(found)[: len(part)] for tap, found in program(padded).items()})
        yield {tap: np.concatenate([part[tap] for part in parts]) for tap in parts[0]}


def _compiler_options() -> dict[str, Any] | None:
    """XLA:CPU's YNN fusion makes convolutions 1.2 to 2 times slower, so it is off there."""
    return {"xla_cpu_experimental_ynn_fusion_type": ""} if jax.default_backend() == "cpu" else None
