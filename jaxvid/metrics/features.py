"""Features of many images or videos: in batches, over all devices, whatever their number."""

import functools
from collections.abc import Callable, Mapping, Sequence
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
Extractor = Callable[[np.ndarray], dict[str, np.ndarray]]


def make_extractor(
    protocol: Protocol,
    params: Any,
    taps: Sequence[str],
    dtype: Any = jnp.float32,
    devices: Sequence[jax.Device] | None = None,
) -> Extractor:
    """A function from pixels to features, compiled once; the resize is compiled for each frame size.

    Args:
      protocol, params: of `protocol.PROTOCOLS`, and of its network, from `weights.load`.
      taps: names of the network's outputs: of `inception.TAPS`, or "logits" and "pooled" of I3D.
      dtype: of the network's convolutions; bfloat16 is faster on accelerators, and no longer comparable.
      devices: to distribute the batches over; all local ones by default.

    Returns uint8 [B,H,W,3], or [B,T,H,W,3] for I3D, of any B -> {tap: float32 [B,d]}, which raises ValueError for
    another dtype or shape.
    """
    mesh = Mesh(np.asarray(devices or jax.local_devices()), ("data",))
    program = _program(protocol, tuple(taps), jnp.dtype(dtype), mesh)
    params = jax.device_put(params, NamedSharding(mesh, PartitionSpec()))
    size = PER_DEVICE[protocol.network] * mesh.size

    def extract(pixels: np.ndarray) -> dict[str, np.ndarray]:
        expect("[B>=1,...,H,W,3]", "uint8", pixels=pixels)
        parts = []
        for start in range(0, len(pixels), size):
            part = pixels[start : start + size]
            padded = np.zeros((size, *part.shape[1:]), np.uint8)
            padded[: len(part)] = part
            parts.append({tap: np.asarray(found)[: len(part)] for tap, found in program(params, padded).items()})
        return {tap: np.concatenate([part[tap] for part in parts]) for tap in parts[0]}

    return extract


@functools.cache
def _program(protocol: Protocol, taps: tuple[str, ...], dtype: Any, mesh: Mesh) -> Callable:
    """(params, uint8 pixels of all devices) -> {tap: float32 [B,d]}: two programs, compiled once in a process."""
    network = Inception(taps, dtype) if protocol.network == "inception" else I3D(protocol.epsilon, dtype)

    def forward(params: Any, pixels: jax.Array) -> Mapping[str, jax.Array]:
        outputs: Any = network.apply({"params": params}, pixels)
        return {tap: outputs[tap] for tap in taps}

    # Every device runs the same program on as many examples, so that features do not depend on the number of devices.
    whole, rows = PartitionSpec(), PartitionSpec("data")
    # XLA:CPU's YNN fusion makes convolutions 1.2 to 2 times slower.
    options: dict[str, Any] = {"xla_cpu_experimental_ynn_fusion_type": ""} if jax.default_backend() == "cpu" else {}

    def compiled(function: Callable, *specs: PartitionSpec) -> Callable:
        sharded = jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=rows, check_vma=False)
        return jax.jit(sharded, compiler_options=options)

    resize, extract = compiled(functools.partial(prepare, protocol=protocol), rows), compiled(forward, whole, rows)
    return lambda params, pixels: extract(params, resize(pixels))
