"""Times the networks of FID and FVD.

    python tests/benchmarks/metrics.py i3d [--batch 4] [--frames 16] [--rounds 7]
    python tests/benchmarks/metrics.py inception [--batch 16] [--rounds 7]

Prints clips or images per second, our share of the GFLOP/s that a large matrix product reaches in the same rounds (by
turns, so that a busy machine disturbs both alike), the seconds of compilation, and the peak memory of the process.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvid.metrics.i3d import I3D
from jaxvid.metrics.inception import Inception
from jaxvid.parallel import compiler_options

PRODUCT = 2048  # rows and columns of the matrix product that stands for the machine's limit


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("network", choices=["i3d", "inception"])
    parser.add_argument("--batch", type=int, help="default: 4 clips or 16 images")
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    arguments = parser.parse_args()
    network: nn.Module
    if arguments.network == "i3d":
        batch = arguments.batch or 4
        network, shape, what = I3D(dtype=arguments.dtype), (batch, arguments.frames, 224, 224, 3), "clips"
    else:
        batch = arguments.batch or 16
        network, shape, what = Inception(dtype=arguments.dtype), (batch, 299, 299, 3), "images"
    x = jax.random.uniform(jax.random.key(0), shape, minval=-1.0)
    shapes = jax.eval_shape(network.init, jax.random.key(1), x)
    variables = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.01), shapes)
    forward, compilation = compiled(network.apply, variables, x)
    operations = flops(network, variables, x)
    square = jax.random.normal(jax.random.key(2), (PRODUCT, PRODUCT))
    seconds = medians({"network": forward, "product": compiled(jnp.matmul, square, square)[0]}, arguments.rounds)
    rate, limit = operations / seconds["network"], 2 * PRODUCT**3 / seconds["product"]
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{arguments.network} {shape} {arguments.dtype}, JAX {jax.__version__}, {jax.default_backend()}: "
        f"{1e3 * seconds['network']:.0f} ms, {batch / seconds['network']:.2f} {what}/s, {rate / 1e9:.0f} GFLOP/s, "
        f"{rate / limit:.0%} of a matrix product's; compiled in {compilation:.1f} s; peak memory {memory:.2f} GB"
    )


def flops(network: nn.Module, variables: Any, x: jax.Array) -> float:
    """Multiplications and additions of all convolutions and of the last product, from their shapes."""
    total = 0

    def count(apply: Callable, arguments: tuple, keywords: dict, context: Any) -> Any:
        nonlocal total
        y = apply(*arguments, **keywords)
        if "kernel" in (own := context.module.variables.get("params", {})):
            total += 2 * y.size // y.shape[-1] * own["kernel"].size
        return y

    with nn.intercept_methods(count):
        jax.eval_shape(network.apply, variables, x)
    return float(total)


def compiled(function: Callable, *inputs: Any) -> tuple[Callable[[], Any], float]:
    """The function of these inputs, compiled and warm, and the seconds of tracing and compilation."""
    start = time.perf_counter()
    run = jax.jit(function).lower(*inputs).compile(compiler_options=dict(compiler_options() or {}))
    seconds = time.perf_counter() - start
    jax.block_until_ready(run(*inputs))
    return lambda: jax.block_until_ready(run(*inputs)), seconds


def medians(forms: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median seconds of each form, run by turns."""
    seconds: dict[str, list[float]] = {name: [] for name in forms}
    for _ in range(rounds):
        for name, run in forms.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


if __name__ == "__main__":
    main()
