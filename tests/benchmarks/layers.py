"""Times our layers beside the plain forms of JAX and Flax.

    python tests/benchmarks/layers.py [--rounds 7] [--only conv]

Prints for every layer the median milliseconds of both, their ratio and, for convolutions, our share of the GFLOP/s that
a large matrix product reaches in the same rounds. The forms run by turns, so that a busy machine disturbs all alike. A
plain form that would take over 5 seconds is left out, and its line says so.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxvid.nn.attention import AxialAttention
from jaxvid.nn.conv import VIDEO, conv, conv_transpose
from jaxvid.nn.norm import BatchNorm, GroupNorm
from jaxvid.nn.quantize import _nearest, _statistics
from jaxvid.parallel import compiler_options

PATIENCE = 5.0  # seconds
PRODUCT = 2048  # rows and columns of the matrix product that stands for the machine's limit


class Convolution(NamedTuple):
    """Shapes of video [B,T,H,W,I] and kernel [kt,kh,kw,I,O]."""

    name: str
    video: tuple[int, ...]
    kernel: tuple[int, ...]
    strides: tuple[int, int, int] = (1, 1, 1)
    transposed: bool = False


CONVOLUTIONS = [
    Convolution("3x3x3 240->240", (4, 4, 16, 16, 240), (3, 3, 3, 240, 240)),
    Convolution("3x3x3 64->64", (4, 8, 32, 32, 64), (3, 3, 3, 64, 64)),
    Convolution("3x3x3 64->3", (4, 8, 32, 32, 64), (3, 3, 3, 64, 3)),
    Convolution("4x4x4 stride 2, 240->240", (4, 8, 32, 32, 240), (4, 4, 4, 240, 240), (2, 2, 2)),
    Convolution("4x4x4 stride 2, 3->240", (4, 16, 64, 64, 3), (4, 4, 4, 3, 240), (2, 2, 2)),
    Convolution("4x4x4 transposed stride 2, 240->240", (4, 4, 16, 16, 240), (4, 4, 4, 240, 240), (2, 2, 2), True),
    Convolution("4x4x4 transposed stride 2, 240->3", (4, 8, 32, 32, 240), (4, 4, 4, 240, 3), (2, 2, 2), True),
    Convolution("1x4x4 transposed stride 2, 240->240", (4, 4, 16, 16, 240), (1, 4, 4, 240, 240), (1, 2, 2), True),
]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7, help="timed rounds of each form")
    parser.add_argument("--only", default="", help="run only the layers whose name contains this")
    arguments = parser.parse_args()
    print(f"JAX {jax.__version__}, {jax.default_backend()}, float32, medians of {arguments.rounds} rounds")
    print(f"{'layer':<52}{'ours ms':>9}{'plain ms':>10}{'plain/ours':>12}{'GFLOP/s':>9}{'of product':>12}")
    for layer in CONVOLUTIONS:
        if arguments.only in f"conv {layer.name}":
            compare_convolution(layer, arguments.rounds)
    for name, ours, plain, inputs in other_layers():
        if arguments.only in name:
            times = medians({"ours": compiled(ours, *inputs), "plain": compiled(plain, *inputs)}, arguments.rounds)
            print_line(name, times)


def compare_convolution(layer: Convolution, rounds: int) -> None:
    """Prints one line each for the forward pass, the gradient by the video and the gradient by the kernel."""
    plain_form: Callable = lax.conv_transpose if layer.transposed else lax.conv_general_dilated
    ours = passes(partial(conv_transpose if layer.transposed else conv, strides=layer.strides))
    plain = passes(lambda x, kernel: plain_form(x, kernel, layer.strides, "SAME", dimension_numbers=VIDEO))
    corner = layer._replace(video=(1, *(min(n, 8) for n in layer.video[1:4]), layer.video[4]))
    square = normal(3, (PRODUCT, PRODUCT))
    for name in ours:
        forms = {"ours": compiled(ours[name], *inputs(layer)), "product": compiled(jnp.matmul, square, square)}
        # Some plain forms take minutes: a corner of the video tells in advance.
        expected = medians({"plain": compiled(plain[name], *inputs(corner))}, 1)["plain"] * flops(layer) / flops(corner)
        if expected < PATIENCE:
            forms["plain"] = compiled(plain[name], *inputs(layer))
        print_line(f"conv {layer.name}, {name}", medians(forms, rounds), flops(layer))


def passes(form: Callable) -> dict[str, Callable]:
    """Functions of video, kernel and the output's gradient."""
    return {
        "forward": lambda x, kernel, _: form(x, kernel),
        "by video": lambda x, kernel, gradient: jax.vjp(lambda x: form(x, kernel), x)[1](gradient),
        "by kernel": lambda x, kernel, gradient: jax.vjp(lambda kernel: form(x, kernel), kernel)[1](gradient),
    }


def inputs(layer: Convolution) -> list[jax.Array]:
    """Video, kernel and a gradient of the output."""
    factors = layer.strides if layer.transposed else [1 / stride for stride in layer.strides]
    sizes = [int(n * factor) for n, factor in zip(layer.video[1:4], factors, strict=True)]
    return [normal(i, s) for i, s in enumerate((layer.video, layer.kernel, (layer.video[0], *sizes, layer.kernel[4])))]


def flops(layer: Convolution) -> float:
    """Multiplications and additions of one pass: forward, or either gradient."""
    places = np.prod(layer.video[:4]) / (1 if layer.transposed else np.prod(layer.strides))
    return float(2 * places * np.prod(layer.kernel))


def other_layers() -> Iterator[tuple[str, Callable, Callable, tuple]]:
    """(name, ours, plain, inputs)"""
    x, gradient = normal(0, (4, 4, 16, 16, 240)), normal(1, (4, 4, 16, 16, 240))
    affine = {"scale": jnp.ones(240), "bias": jnp.zeros(240)}
    running = {"mean": jnp.zeros(240), "var": jnp.ones(240)}

    def both_ways(module: nn.Module, *arguments: Any) -> Callable:
        def run(params: Any, state: Any, x: jax.Array, gradient: jax.Array) -> Any:
            def call(params: Any, x: jax.Array) -> Any:
                return module.apply({"params": params, **state}, x, *arguments, mutable=["batch_stats"])

            y, pull, state = jax.vjp(call, params, x, has_aux=True)
            return y, state, pull(gradient)

        return run

    yield "GroupNorm(8), both ways", both_ways(GroupNorm(8)), both_ways(nn.GroupNorm(8)), (affine, {}, x, gradient)
    statistics_of = {"batch_stats": running}
    plain_norm = both_ways(nn.BatchNorm(use_running_average=False, momentum=0.9))
    yield "BatchNorm, both ways", both_ways(BatchNorm(), True), plain_norm, (affine, statistics_of, x, gradient)
    attention = AxialAttention(heads=2)
    params = attention.init(jax.random.key(0), x[:1, :1, :1, :1])["params"]
    yield (
        "axial attention, both ways",
        both_ways(attention),
        both_ways(PlainAxialAttention()),
        (params, {}, x, gradient),
    )
    rows, embedding = normal(0, (4096, 256)), normal(1, (2048, 256))
    indices = jax.jit(_nearest)(rows, embedding)
    yield "nearest of 2048 codes, 4096 x 256", _nearest, plain_nearest, (rows, embedding)
    ours = partial(_statistics, codes=2048, axis_name=None)
    yield "codebook statistics, 4096 x 256", ours, plain_statistics, (rows, indices)


class PlainAxialAttention(nn.Module):
    """The parameters of `AxialAttention` used as one projection, attention and projection per axis."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (x.shape[-1], 3, 3, 2, x.shape[-1] // 2)
        inward = self.param("query_key_value", nn.initializers.zeros, (x.shape[-1], 9 * x.shape[-1])).reshape(shape)
        outward = self.param("output", nn.initializers.zeros, (3 * x.shape[-1], x.shape[-1]))
        y = self.param("bias", nn.initializers.zeros, x.shape[-1:])
        for number, axis in enumerate((1, 2, 3)):
            lines = jnp.moveaxis(x, axis, 3)
            queries, keys, values = (jnp.einsum("...c,cnd->...nd", lines, inward[:, number, j]) for j in range(3))
            attended = nn.dot_product_attention(queries, keys, values).reshape(lines.shape)
            y = y + jnp.moveaxis(attended @ jnp.split(outward, 3)[number], 3, axis)
        return y


def plain_nearest(rows: jax.Array, embedding: jax.Array) -> jax.Array:
    return jnp.argmin(jnp.square(embedding).sum(-1) - 2 * rows @ embedding.T, -1)


def plain_statistics(rows: jax.Array, indices: jax.Array) -> tuple[jax.Array, jax.Array]:
    one_hot = jax.nn.one_hot(indices, 2048)
    return one_hot.sum(0), one_hot.T @ rows


def normal(seed: int, shape: tuple[int, ...]) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape)


def compiled(function: Callable, *inputs: Any) -> Callable[[], Any]:
    """The function of these inputs, compiled and warm."""
    run = jax.jit(function).lower(*inputs).compile(compiler_options=dict(compiler_options() or {}))
    jax.block_until_ready(run(*inputs))
    return lambda: jax.block_until_ready(run(*inputs))


def medians(forms: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median seconds of each form, run by turns."""
    seconds: dict[str, list[float]] = {name: [] for name in forms}
    for _ in range(rounds):
        for name, run in forms.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def print_line(name: str, times: dict[str, float], operations: float = 0.0) -> None:
    ours, plain = times["ours"], times.get("plain")
    line = f"{name:<52}{1e3 * ours:>9.1f}"
    line += f"{1e3 * plain:>10.1f}{plain / ours:>12.2f}" if plain else f"{f'over {PATIENCE:.0f} s':>10}{'-':>12}"
    if operations:
        limit = 2 * PRODUCT**3 / times["product"]
        line += f"{operations / ours / 1e9:>9.0f}{operations / ours / limit:>12.0%}"
    print(line, flush=True)


if __name__ == "__main__":
    main()
