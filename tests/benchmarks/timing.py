"""Timing that the benchmarks share: forms by turns in one process, so that a busy machine disturbs all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxvid.parallel import compiler_options

PRODUCT = 2048  # rows and columns of the matrix product that stands for the machine's limit
PRODUCT_FLOP = 2 * PRODUCT**3


def interleaved(forms: Mapping[str, Callable[[], Any]], rounds: int, seconds: float = 0.0) -> dict[str, list[float]]:
    """Seconds per call of each form in every round.

    Args:
      forms: by name; each call blocks until its work is done.
      rounds: how often each form is timed; which form begins changes from round to round.
      seconds: how long each form runs in a round, at least one call. A form that runs for longer than 0 has one
        untimed call before, since pages and caches still belong to the form that ran last.
    """
    found: dict[str, list[float]] = {name: [] for name in forms}
    names = list(forms)
    for index in range(rounds):
        for name in names[index % len(names) :] + names[: index % len(names)]:
            if seconds:
                forms[name]()
            calls, start = 0, time.perf_counter()
            while not calls or time.perf_counter() - start < seconds:
                forms[name]()
                calls += 1
            found[name].append((time.perf_counter() - start) / calls)
    return found


def medians(forms: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median seconds of one call of each form, run by turns."""
    return {name: statistics.median(times) for name, times in interleaved(forms, rounds).items()}


def paired(times: Sequence[float], reference: Sequence[float]) -> str:
    """The median of the ratios of the same rounds, with the smallest and the largest: "0.85 [0.82-0.91]"."""
    ratios = sorted(a / b for a, b in zip(times, reference, strict=True))
    return f"{statistics.median(ratios):.2f} [{ratios[0]:.2f}-{ratios[-1]:.2f}]"


def compiled(function: Callable, *inputs: Any) -> Callable[[], Any]:
    """The function of these inputs, compiled and warm; a call blocks until the result is there."""
    run = jax.jit(function).lower(*inputs).compile(compiler_options=dict(compiler_options() or {}))
    jax.block_until_ready(run(*inputs))
    return lambda: jax.block_until_ready(run(*inputs))


def normal(seed: int, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    """Standard normal numbers."""
    return jax.random.normal(jax.random.key(seed), shape, dtype)


def product() -> Callable[[], Any]:
    """A large float32 matrix product of `PRODUCT_FLOP` operations, compiled and warm."""
    square = normal(0, (PRODUCT, PRODUCT))
    return compiled(jnp.matmul, square, square)


def repeated(function: Callable, *inputs: Any, options: Any = None) -> Callable[..., Any]:
    """run(count=1): the compiled function of these inputs, so often; warm, blocks at the end."""
    run = jax.jit(function, compiler_options=options)
    jax.block_until_ready(run(*inputs))
    return lambda count=1: jax.block_until_ready([run(*inputs) for _ in range(count)])
